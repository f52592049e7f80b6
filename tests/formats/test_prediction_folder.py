"""Masks, overlays and the table, written and read back."""

from __future__ import annotations

import contextlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sonoloop.errors import ImageError, NotAnImageError, SonoloopError
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
    table = tmp_path / "predictions.csv"
    outside = tmp_path / "c_mask.png"
    outside.write_bytes((tmp_path / "masks" / "c_mask.png").read_bytes())
    corrected = read_mask(tmp_path / "masks" / "b_mask.png")
    corrected[15, 15] = 3
    write_mask(tmp_path / "masks" / "b_mask.png", corrected)
    (tmp_path / "masks" / "mine_mask.png").write_bytes(b"hours of work")
    left = {"c_mask.png", "masks/b_mask.png", "masks/c_mask.png", "masks/mine_mask.png", "masks/e_mask.png"}
    assert predict({"e.png": "e"}) == left
    table.write_text("theirs")
    assert predict({"f.png": "f"}) == left | {"masks/f_mask.png"}


def test_a_mask_of_which_there_might_be_two_stays(predict):
    predict({"a.png": "a"})
    predict({"a.png": "a.png"}, interrupted=True)
    both = predict({"a.png": "a", "a.jpg": "a.jpg"})
    assert both == {"masks/a_mask.png", "masks/a.jpg_mask.png"}


def test_a_full_disk_is_said(frame, prediction, row, tmp_path, monkeypatch):
    def refuse(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(prediction_folder, "write_mask", refuse)
    with pytest.raises(SonoloopError, match="No space left"), PredictionFolder(tmp_path) as folder:
        folder.write(frame, prediction, row, Path("a"))
    assert not list(tmp_path.rglob("*.png"))


def test_a_half_written_mask_is_never_seen(tmp_path, monkeypatch):
    write_mask(tmp_path / "a_mask.png", np.ones((4, 4), np.uint8))

    def break_off(self: Image.Image, path: Path, **_: object) -> None:
        path.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Image.Image, "save", break_off)
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
    stems = plan_stems(images(("/d/a.png", "a.png"), ("/d/A.jpg", "A.jpg"), ("/d/b.v2.png", "b.v2.png")))
    assert [stem.as_posix() for stem in stems.values()] == ["a.png", "A.jpg", "b.v2"]


def test_images_that_cannot_be_told_apart_are_refused():
    with pytest.raises(SonoloopError, match="same mask"):
        plan_stems(images(("/d/a.png", "a.png"), ("/d/a.jpg", "a.jpg"), ("/d/a.png.tif", "a.png.tif")))


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
