"""Masks, overlays and the table, written and read back."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import itertools
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sonoloop.errors import ImageError, ModelError, NotAnImageError, OutputError, SonoloopError
from sonoloop.formats import prediction_folder
from sonoloop.formats.mask_png import read_mask, write_mask
from sonoloop.formats.prediction_folder import (
    PredictionFolder,
    PredictionRow,
    describe,
    overlay_lines,
    plan_stems,
    read_predictions,
    tell_apart,
)
from sonoloop.imaging.grey import frame_from_array
from sonoloop.imaging.image_files import FoundImage
from sonoloop.values import Frame, Prediction


@pytest.fixture
def frame() -> Frame:
    return frame_from_array(np.arange(600, dtype=np.uint16).reshape(20, 30), name="a.png")


@pytest.fixture
def prediction(frame) -> Prediction:
    mask = np.zeros(frame.shape, np.uint8)
    mask[2:6, 3:9] = 1
    mask[10:12, 20:29] = 2
    return Prediction(
        frame_id=frame.id,
        lesion=mask.astype(np.float32),
        mask=mask,
        classes=np.array([0.04, 0.83, 0.13], np.float32),
        expected_dice=0.8125,
        threshold=0.5,
        model="default-3f2a",
    )


@pytest.fixture
def row(prediction) -> PredictionRow:
    return describe(prediction, image="b/a.png", seconds=0.25)


@pytest.fixture
def predict(frame, prediction, tmp_path):
    """Run over images, given with their masks' stems, into one folder; stop early on an error if told to."""

    def run(stems: dict[str, str], *, overlay: bool = False, interrupted: bool = False) -> set[str]:
        ending = pytest.raises(KeyboardInterrupt) if interrupted else contextlib.nullcontext()
        with ending, PredictionFolder(tmp_path, overlay=overlay) as folder:
            for image, stem in stems.items():
                folder.write(frame, prediction, describe(prediction, image=image, seconds=0), Path(stem))
            if interrupted:
                raise KeyboardInterrupt
        return {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*.png")}

    return run


def images(*paths: tuple[str, str]) -> list[FoundImage]:
    return [FoundImage(Path(path), Path(relative)) for path, relative in paths]


def test_a_row_describes_its_prediction(row):
    assert row == PredictionRow(
        image="b/a.png",
        width=30,
        height=20,
        p_normal=0.04,
        p_benign=0.83,
        p_malignant=0.13,
        predicted_class="benign",
        lesions=2,
        lesion_area_px=42,
        expected_dice=0.8125,
        model="default-3f2a",
        seconds=0.25,
    )


def test_what_is_written_is_read_back(frame, prediction, row, tmp_path):
    folder = PredictionFolder(tmp_path / "out", overlay=True)
    folder.check()
    with folder:
        files = folder.write(frame, prediction, row, Path("b/a"))
        assert read_predictions(tmp_path / "out") == [row], "a row is there as soon as its mask is"
    assert files == ["masks/b/a_mask.png", "masks/b/a_overlay.png"]
    assert np.array_equal(read_mask(tmp_path / "out" / files[0]), prediction.mask)


def test_a_second_run_replaces_the_table_at_its_end(frame, prediction, row, tmp_path):
    for _ in range(2):
        folder = PredictionFolder(tmp_path)
        folder.check()
        with folder:
            before = (tmp_path / "predictions.csv").read_text()
            folder.write(frame, prediction, row, Path("a"))
            folder.write(frame, prediction, row, Path("b"))
    assert before.count("\n") == 3, "the first run's table was whole while the second wrote"
    assert len(read_predictions(tmp_path)) == 2
    assert not list(tmp_path.glob("*partial*"))


def test_a_run_that_fails_at_once_leaves_no_table_and_keeps_an_earlier_one(frame, prediction, row, tmp_path):
    with pytest.raises(ZeroDivisionError), PredictionFolder(tmp_path):
        raise ZeroDivisionError
    assert not list(tmp_path.iterdir())
    with PredictionFolder(tmp_path) as folder:
        folder.write(frame, prediction, row, Path("a"))
    with pytest.raises(ZeroDivisionError), PredictionFolder(tmp_path):
        raise ZeroDivisionError
    assert read_predictions(tmp_path) == [row]


def test_a_second_run_takes_the_earlier_runs_pictures_away(predict, tmp_path):
    predict({"b/a.png": "b/a", "c.png": "c", "d.jpg": "d.jpg"}, overlay=True)
    assert predict({"c.png": "c", "e.png": "e"}) == {"masks/c_mask.png", "masks/e_mask.png"}
    assert [row.image for row in read_predictions(tmp_path)] == ["c.png", "e.png"]


@pytest.mark.parametrize("again", [True, False], ids=["one run twice", "two planned at once"])
def test_what_an_earlier_run_left_is_what_is_there_when_a_run_begins(again, frame, prediction, tmp_path):
    first = PredictionFolder(tmp_path)
    second = first if again else PredictionFolder(tmp_path)
    rows = [describe(prediction, image=f"{name}.png", seconds=0) for name in "abc"]
    with first:
        first.write(frame, prediction, rows[0], Path("a"))
        first.write(frame, prediction, rows[1], Path("b"))
    with pytest.raises(ZeroDivisionError), second:
        second.write(frame, prediction, rows[2], Path("c"))
        raise ZeroDivisionError
    assert {row.image for row in read_predictions(tmp_path)} == {"a.png", "b.png", "c.png"}
    with second:
        second.write(frame, prediction, rows[2], Path("c"))
    assert read_predictions(tmp_path) == rows[2:]
    assert [path.name for path in tmp_path.rglob("*.png")] == ["c_mask.png"]


def test_an_interrupted_second_run_keeps_the_rows_that_it_did_not_reach(predict, tmp_path):
    predict({"a.png": "a", "b.png": "b.png", "c.png": "c"}, overlay=True)
    # b.jpg is gone, so that b.png no longer keeps its suffix
    pictures = predict({"b.png": "b", "d.png": "d"}, interrupted=True)
    assert [row.image for row in read_predictions(tmp_path)] == ["b.png", "d.png", "a.png", "c.png"]
    kept = {f"masks/{stem}_{kind}.png" for stem in "ac" for kind in ("mask", "overlay")}
    assert pictures == kept | {"masks/b_mask.png", "masks/d_mask.png"}


def test_the_earlier_table_stays_where_its_rows_cannot_be_taken_over(
    predict, frame, prediction, tmp_path, monkeypatch
):
    def refuse(*_: object) -> None:
        raise OSError(28, "No space left on device")

    predict({"a.png": "a", "b.png": "b"})
    with pytest.raises(KeyboardInterrupt), PredictionFolder(tmp_path) as folder:
        folder.write(frame, prediction, read_predictions(tmp_path)[0], Path("a"))
        monkeypatch.setattr(prediction_folder.csv, "writer", refuse)
        raise KeyboardInterrupt
    assert [row.image for row in read_predictions(tmp_path)] == ["a.png", "b.png"]


def test_a_row_goes_with_the_mask_that_another_image_replaced(predict, tmp_path):
    predict({"a.jpg": "a", "b.jpg": "b"})
    predict({"a.png": "a"}, interrupted=True)
    assert [row.image for row in read_predictions(tmp_path)] == ["a.png", "b.jpg"]


def test_a_second_run_removes_nothing_that_the_first_did_not_write(predict, tmp_path):
    predict({"a.png": "a", "b.png": "b", "../c.png": "c"})
    outside = tmp_path / "c_mask.png"
    outside.write_bytes((tmp_path / "masks" / "c_mask.png").read_bytes())
    corrected = read_mask(tmp_path / "masks" / "b_mask.png")
    corrected[15, 15] = 3
    write_mask(tmp_path / "masks" / "b_mask.png", corrected)
    (tmp_path / "masks" / "mine_mask.png").write_bytes(b"hours of work")
    left = {"c_mask.png", "masks/b_mask.png", "masks/mine_mask.png", "masks/e_mask.png"}
    assert predict({"e.png": "e"}) == left


def test_a_mask_of_which_there_might_be_two_stays(predict):
    predict({"a.png": "a"})
    predict({"a.png": "a.png"}, interrupted=True)
    both = predict({"a.png": "a", "a.jpg": "a.jpg"})
    assert both == {"masks/a_mask.png", "masks/a.jpg_mask.png"}


@pytest.mark.parametrize(
    "kept",
    ["predictions.csv", "masks/x/a_mask.png", "masks/a_overlay.png", "predictions.csv masks/a_mask.png"],
)
def test_what_is_somebody_elses_is_refused_before_the_run(tmp_path, kept):
    for name in kept.split():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"hours of work")
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    with pytest.raises(SonoloopError, match="--out"):
        PredictionFolder(tmp_path).check()
    with pytest.raises(SonoloopError, match="--out"), PredictionFolder(tmp_path):
        pass
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize(
    "target", ["predictions.csv", "predictions.manifest.jsonl", "predictions.partial.csv"]
)
def test_a_link_or_a_file_of_somebody_else_in_the_place_of_ours_is_refused(predict, tmp_path, target):
    predict({"a.png": "a"})
    (tmp_path / target).unlink(missing_ok=True)
    (tmp_path / "theirs").write_text("theirs")
    (tmp_path / target).symlink_to("theirs")
    with pytest.raises(SonoloopError, match=target):
        PredictionFolder(tmp_path).check()
    (tmp_path / target).unlink()
    (tmp_path / target).write_text("theirs")
    with pytest.raises(SonoloopError, match=target):
        PredictionFolder(tmp_path).check()
    assert (tmp_path / target).read_text() == (tmp_path / "theirs").read_text() == "theirs"


def test_a_table_that_a_person_changed_is_refused(predict, tmp_path):
    predict({"a.png": "a"})
    table = tmp_path / "predictions.csv"
    table.write_text(table.read_text().replace("benign", "malignant"))
    with pytest.raises(SonoloopError, match="was changed since"):
        predict({"a.png": "a"})
    assert "malignant" in table.read_text()


def test_a_mask_that_a_person_changed_fails_alone_and_stays(frame, prediction, predict, tmp_path):
    predict({"a.png": "a", "b.png": "b"}, overlay=True)
    changed = tmp_path / "masks" / "a_mask.png"
    write_mask(changed, np.full((20, 30), 7, np.uint8))
    with PredictionFolder(tmp_path) as folder:
        for name in "ab":
            row = describe(prediction, image=f"{name}.png", seconds=0)
            failing = pytest.raises(OutputError, match="was changed since")
            with failing if name == "a" else contextlib.nullcontext():
                folder.write(frame, prediction, row, Path(name))
    assert read_mask(changed).max() == 7
    assert [row.image for row in read_predictions(tmp_path)] == ["b.png"]


@pytest.mark.parametrize(
    ("stem", "make"),
    [
        ("n" * 250, lambda masks: None),
        ("\ud800", lambda masks: None),
        ("a", lambda masks: (masks / "a_mask.png").mkdir()),
        ("sub/a", lambda masks: (masks / "sub").write_text("a file")),
        ("sub/a", lambda masks: (masks / "sub").symlink_to("sub")),
        ("a", lambda masks: (masks / "a_mask.png").symlink_to("nowhere")),
        ("/".join(["d" * 200] * 25), lambda masks: None),
    ],
    ids=["name too long", "no name", "a folder", "a file", "a loop", "a link", "path too long"],
)
@pytest.mark.parametrize("overlay", [False, True])
def test_an_image_whose_mask_has_no_place_fails_alone(frame, prediction, tmp_path, *, stem, make, overlay):
    with PredictionFolder(tmp_path) as folder:
        folder.write(frame, prediction, describe(prediction, image="b.png", seconds=0), Path("b"))
    make(tmp_path / "masks")
    rows = [describe(prediction, image=f"{name}.png", seconds=0) for name in "abc"]
    with PredictionFolder(tmp_path, overlay=overlay) as folder:
        with pytest.raises(OutputError, match="--out"):
            folder.write(frame, prediction, rows[0], Path(stem))
        folder.write(frame, prediction, rows[2], Path("c"))
    assert read_predictions(tmp_path) == rows[2:]
    pictures = {path.name for path in (tmp_path / "masks").rglob("*.png") if path.is_file()}
    assert pictures == ({"c_mask.png", "c_overlay.png"} if overlay else {"c_mask.png"})
    assert not list(tmp_path.rglob("*.tmp"))


def test_a_mask_of_255_bytes_is_written(predict):
    stem = "\u00e9" * 123
    assert predict({"a.png": stem}) == {f"masks/{stem}_mask.png"}


@pytest.mark.parametrize("name", ["ENOSPC", "EROFS", "EIO", "EDQUOT"])
def test_an_error_of_the_disk_ends_the_run_and_keeps_what_is_done(
    frame, prediction, predict, tmp_path, monkeypatch, *, name
):
    predict({"a.png": "a", "b.png": "b", "c.png": "c"})
    rows = {row.image: row for row in read_predictions(tmp_path)}
    with pytest.raises(SonoloopError, match="make room"), PredictionFolder(tmp_path) as folder:
        folder.write(frame, prediction, replace(rows["a.png"], model="new"), Path("a"))

        def refuse(*_: object) -> None:
            raise OSError(getattr(errno, name), "as it says")

        monkeypatch.setattr(Path, "write_bytes", refuse)
        folder.write(frame, prediction, rows["b.png"], Path("b"))
    monkeypatch.undo()
    assert [(row.image, row.model) for row in read_predictions(tmp_path)] == [
        ("a.png", "new"),
        ("b.png", "default-3f2a"),
        ("c.png", "default-3f2a"),
    ]
    assert predict({"d.png": "d"}) == {"masks/d_mask.png"}


def test_two_runs_do_not_write_into_one_folder(predict, tmp_path):
    with PredictionFolder(tmp_path):
        for again in (PredictionFolder(tmp_path).check, PredictionFolder(tmp_path).__enter__):
            with pytest.raises(SonoloopError, match="another `sonoloop predict` is writing into"):
                again()
    assert predict({"a.png": "a"}) == {"masks/a_mask.png"}
    assert not list(tmp_path.glob(".*"))


KILLED = """
import os, signal, sys
from pathlib import Path
import numpy as np
from sonoloop.formats.prediction_folder import PredictionFolder, describe
from sonoloop.imaging.grey import frame_from_array
from sonoloop.values import Prediction

frame = frame_from_array(np.arange(600, dtype=np.uint16).reshape(20, 30), name="a.png")
mask = np.ones(frame.shape, np.uint8)
prediction = Prediction(frame_id=frame.id, lesion=mask.astype(np.float32), mask=mask,
                        classes=np.array([0, 1, 0], np.float32), expected_dice=1.0, threshold=0.5,
                        model="new")
with PredictionFolder(Path(sys.argv[1]), overlay=True) as folder:
    for name in sys.argv[2]:
        folder.write(frame, prediction, describe(prediction, image=f"{name}.png", seconds=0), Path(name))
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGKILL there")
@pytest.mark.parametrize("first", [{}, {"b.png": "b", "c.png": "c"}], ids=["first", "second"])
def test_what_a_killed_run_wrote_is_known_to_the_next(predict, tmp_path, first):
    if first:
        predict(first)
    subprocess.run([sys.executable, "-c", KILLED, str(tmp_path), "ab"], check=False)
    predict({"d.png": "d"}, interrupted=True)
    models = {row.image: row.model for row in read_predictions(tmp_path)}
    assert models == {
        "d.png": "default-3f2a",
        "a.png": "new",
        "b.png": "new",
        **({"c.png": "default-3f2a"} if first else {}),
    }
    assert predict({"a.png": "a"}) == {"masks/a_mask.png"}


def test_a_folder_of_an_older_version_is_used(predict, tmp_path):
    predict({"a.png": "a", "b.png": "b", "c.png": "c"}, overlay=True)
    (tmp_path / "predictions.manifest.jsonl").unlink()
    write_mask(tmp_path / "masks" / "c_mask.png", np.full((20, 30), 7, np.uint8))
    left = {"masks/c_mask.png", "masks/c_overlay.png", "masks/a_mask.png"}
    assert predict({"a.png": "a"}) == left
    assert [row.image for row in read_predictions(tmp_path)] == ["a.png"]


def test_our_columns_over_other_masks_are_somebody_elses(predict, tmp_path):
    predict({"a.png": "a"})
    (tmp_path / "predictions.manifest.jsonl").unlink()
    (tmp_path / "masks" / "a_mask.png").unlink()
    with pytest.raises(SonoloopError, match="stays as it is"):
        PredictionFolder(tmp_path).check()


def test_a_manifest_cannot_reach_out_of_its_folder(predict, tmp_path):
    out = tmp_path / "out"
    outside = tmp_path / "mine_mask.png"
    outside.write_bytes(b"mine")
    out.mkdir()
    with PredictionFolder(out):
        pass
    digest = hashlib.sha256(b"mine").hexdigest()
    with (out / "predictions.manifest.jsonl").open("a") as file:
        for name in ("../mine_mask.png", "masks/../../mine_mask.png", str(outside)):
            file.write(json.dumps({"image": "x.png", "files": {name: digest}}) + "\n")
        file.write('half a li\n[1]\n{"files": 3}\n{"image": 1, "files": {"a": "b"}}\n')
    with PredictionFolder(out):
        pass
    assert outside.read_bytes() == b"mine"


@pytest.mark.parametrize(
    "name", ["=1+1.png", "-5.png", "a\nb.png", "\x1b[31m.png", "\udcff.png", "\u202e.png"]
)
def test_a_name_comes_back_from_the_table_as_it_was(prediction, predict, tmp_path, name):
    predict({name: "a"})
    [row] = read_predictions(tmp_path)
    assert row.image == name
    line = (tmp_path / "predictions.csv").read_bytes().splitlines()[1]
    assert line[:1] not in b"=+-@"
    assert not set(line) & set(b"\x1b\n")
    assert predict({"b.png": "b"}) == {"masks/b_mask.png"}


def test_a_prediction_that_is_no_number_is_refused(prediction):
    for broken in (
        replace(prediction, expected_dice=float("nan")),
        replace(prediction, classes=np.array([np.inf, 0, 0], np.float32)),
    ):
        with pytest.raises(ModelError, match="no numbers"):
            describe(broken, image="a.png", seconds=0)


# every way in which a run changes a disk
STEPS = [
    (os, "write"),
    (os, "open"),
    (Path, "write_bytes"),
    (Path, "replace"),
    (Path, "unlink"),
    (Path, "open"),
]
QUICK = (
    (True, True, errno.ENOSPC),
    (True, False, errno.EACCES),
    (False, True, errno.EACCES),
    (False, False, errno.ENOSPC),
)


# each way is there once where time is short
@pytest.mark.parametrize(
    ("first", "lasts", "number"),
    [
        pytest.param(
            *case,
            marks=() if case in QUICK else pytest.mark.slow,
            id=f"{'second' if case[0] else 'first'} run-{'for good' if case[1] else 'once'}-{case[2]}",
        )
        for case in itertools.product([True, False], [True, False], [errno.ENOSPC, errno.EACCES])
    ],
)
def test_whatever_step_fails_nothing_of_the_earlier_run_is_lost(
    frame, prediction, tmp_path, *, number, lasts, first
):
    def run(out: Path, model: str, names: str, rows: int) -> None:
        mask = prediction.mask.copy()
        mask[0, :rows] = 1
        told = replace(prediction, model=model, mask=mask)
        folder = PredictionFolder(out, overlay=True)
        folder.check()
        with folder:
            for name in names:
                row = describe(told, image=f"{name}.png", seconds=0)
                with contextlib.suppress(OutputError):
                    folder.write(frame, told, row, Path(name))

    step, failures = 0, 1
    while failures:
        step += 1
        out = tmp_path / str(step)
        out.mkdir()
        if first:
            run(out, "old", "abc", 1)
        with pytest.MonkeyPatch.context() as patch:
            failures = fail_at(patch, step, number, lasts=lasts)
            ended = False
            with contextlib.suppress(SonoloopError):
                run(out, "new", "abd", 2)
                ended = True
            failures = failures[0]
        tables = [path for name in ("csv", "partial.csv") if has_bytes(path := out / f"predictions.{name}")]
        rows = {row.image: row for table in tables for row in read_predictions(table)}
        if first:
            # c.png is not in the new run, and goes when that one's table is there
            assert rows.keys() >= {"a.png", "b.png"}
            assert ended or "c.png" in rows or {row.model for row in rows.values()} == {"new"}
        for row in rows.values():
            mask = read_mask(out / "masks" / row.image.replace(".png", "_mask.png"))
            assert np.count_nonzero(mask) == row.lesion_area_px
        run(out, "newest", "abcd", 3)
        assert {row.model for row in read_predictions(out)} == {"newest"}
        assert len(read_predictions(out)) == 4
    assert step > 20


def has_bytes(path: Path) -> bool:
    return path.exists() and path.stat().st_size > 0


def fail_at(patch: pytest.MonkeyPatch, step: int, number: int, *, lasts: bool) -> list[int]:
    """Have the step of a run fail, and give how many did."""
    count, failures = [0], [0]

    def wrap(owner: object, name: str) -> None:
        true = getattr(owner, name)

        def call(*arguments: object, **options: object) -> object:
            if name == "open":
                mode = options.get("mode", arguments[1] if len(arguments) > 1 else "r")
                writes = bool(mode & os.O_CREAT) if isinstance(mode, int) else "r" not in str(mode)
            if name != "open" or writes:
                count[0] += 1
                if count[0] == step or (lasts and count[0] > step):
                    failures[0] += 1
                    raise OSError(number, os.strerror(number), str(arguments[0]))
            return true(*arguments, **options)

        patch.setattr(owner, name, call)

    for owner, name in STEPS:
        wrap(owner, name)
    return failures


def test_a_full_disk_is_said(frame, prediction, row, tmp_path, monkeypatch):
    def refuse(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", refuse)
    with pytest.raises(SonoloopError, match="No space left"), PredictionFolder(tmp_path) as folder:
        folder.write(frame, prediction, row, Path("a"))
    assert not list(tmp_path.rglob("*.png"))


def test_a_half_written_mask_is_never_seen(tmp_path, monkeypatch):
    write_mask(tmp_path / "a_mask.png", np.ones((4, 4), np.uint8))

    def break_off(path: Path, data: bytes) -> None:
        path.write_text("half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", break_off)
    with pytest.raises(OSError, match="No space"):
        write_mask(tmp_path / "a_mask.png", np.zeros((4, 4), np.uint8))
    assert read_mask(tmp_path / "a_mask.png").all()
    assert [path.name for path in tmp_path.iterdir()] == ["a_mask.png"]


def test_a_mask_in_colour_is_no_mask(tmp_path):
    Image.new("RGB", (4, 4)).save(tmp_path / "a.png")
    with pytest.raises(NotAnImageError, match=r"a\.png"):
        read_mask(tmp_path / "a.png")
    (tmp_path / "b.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    with pytest.raises(ImageError, match=r"b\.png"):
        read_mask(tmp_path / "b.png")


def test_a_table_that_does_not_fit_is_refused(tmp_path):
    table = tmp_path / "predictions.csv"
    table.write_text("image,width\na.png,3\n")
    with pytest.raises(SonoloopError, match="lacks expected_dice"):
        read_predictions(table)
    header = ",".join(PredictionRow.__dataclass_fields__)
    table.write_text(f"{header}\na.png,three,3,1,0,0,normal,0,0,1,m,1\n")
    with pytest.raises(SonoloopError, match="line 2"):
        read_predictions(table)


def test_images_of_one_name_keep_apart():
    told = tell_apart(images(("/d/x/a.png", "a.png"), ("/d/y/a.png", "a.png"), ("/d/b.png", "b.png")))
    assert [image.relative.as_posix() for image in told] == ["x/a.png", "y/a.png", "b.png"]


def test_images_that_differ_in_their_suffix_keep_it():
    stems, refused = plan_stems(
        images(("/d/a.png", "a.png"), ("/d/A.jpg", "A.jpg"), ("/d/b.v2.png", "b.v2.png"))
    )
    assert not refused
    assert [stem.as_posix() for stem in stems.values()] == ["a.png", "A.jpg", "b.v2"]


@pytest.mark.parametrize(
    ("names", "refused"),
    [
        (("a.png", "a.jpg", "a.png.tif"), {"a.png.tif"}),
        (("a.png", "A.png", "b.png"), {"A.png"}),
        (("\u00e9.png", "e\u0301.png"), {"e\u0301.png"}),
        (("x/a.png", "X/a.png", "X/b.png"), {"X/a.png"}),
    ],
)
def test_an_image_whose_mask_another_one_has_is_refused_alone(names, refused):
    stems, told = plan_stems(images(*((f"/d/{name}", name) for name in names)))
    assert {image.relative.as_posix() for image in told} == refused
    assert {image.relative.as_posix() for image in stems} == set(names) - refused
    assert all("same mask as /d/" in str(error) for error in told.values())


def test_an_overlay_says_class_model_and_purpose(row):
    text = " ".join(overlay_lines(row))
    for word in (
        "benign 83%",
        "normal 4%",
        "malignant 13%",
        "2 lesions",
        "0.81",
        "default-3f2a",
        "not for diagnosis",
    ):
        assert word in text


def test_images_that_differ_in_their_case_alone_keep_their_folder(tmp_path):
    images = [FoundImage(tmp_path / "l" / name, Path("l") / name) for name in ("E.png", "e.png")]
    assert tell_apart(images) == images
    stems, refused = plan_stems(images)
    assert stems == {images[0]: Path("l/E.png")}
    assert list(refused) == [images[1]]
