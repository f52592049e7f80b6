"""Downloads to folders: nothing outside, nothing half."""

from __future__ import annotations

import io
import json
import os
import stat
import subprocess
import sys
import zipfile
from collections import Counter

import pyarrow as pa
import pytest
from pyarrow import parquet

from sonoloop.errors import TrainingError
from sonoloop.jobs.events import Progress, Unpacked
from sonoloop_training.__main__ import main
from sonoloop_training.datasets import find_datasets
from sonoloop_training.datasets.unpack import Limits, unpack

CLASSES = ("benign", "malignant", "normal")


def alone(samples):
    return {s.name: s.name for s in samples}


@pytest.fixture
def busi(datasets):
    root = datasets / "Dataset_BUSI_with_GT"
    return {p.relative_to(root).as_posix(): p.read_bytes() for p in sorted(root.rglob("*.png"))}


def write_zip(path, files, **special):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in {**files, **special}.items():
            archive.writestr(name, data)
    return path


def assert_refused(source, out, message, **options):
    before = sorted(out.parent.rglob("*"))
    with pytest.raises(TrainingError, match=message):
        list(unpack(source, out, **options))
    assert sorted(out.parent.rglob("*")) == before


def test_busis_zip_becomes_a_folder_that_trains(busi, tmp_path):
    files = {f"Dataset_BUSI_with_GT/{name}": data for name, data in busi.items()}
    junk = {"__MACOSX/Dataset_BUSI_with_GT/._x.png": b"x", "Dataset_BUSI_with_GT/run.exe": b"MZ"}
    source = write_zip(tmp_path / "archive.zip", files | junk)
    events = list(unpack(source, tmp_path / "busi"))
    assert events[-1] == Unpacked(path=str(tmp_path / "busi"), dataset="busi", images=24, masks=25)
    assert events[-2] == Progress(stage="Unpacking", done=49, total=49)
    written = {
        p.relative_to(tmp_path / "busi").as_posix(): p.read_bytes() for p in (tmp_path / "busi").rglob("*.*")
    }
    assert written == busi
    assert len(find_datasets(tmp_path, find_groups=alone)) == 24
    assert sorted(p.name for p in tmp_path.iterdir()) == ["archive.zip", "busi"]


@pytest.mark.parametrize(
    "name",
    [
        "../out.png",
        "benign/../../out.png",
        "/etc/out.png",
        "C:/out.png",
        "..\\out.png",
        "\\\\host\\share\\out.png",
        "benign/nul.png",
        "COM1/out.png",
        "benign/out.png.",
        "benign/a:b.png",
        "benign/line\nbreak.png",
        "benign/" + "x" * 300 + ".png",
    ],
)
def test_an_unsafe_member_refuses_the_whole_archive(busi, tmp_path, name):
    source = write_zip(tmp_path / "bad.zip", busi | {name: b"x"})
    assert_refused(source, tmp_path / "out", "whose path is not safe; nothing was unpacked")


def test_links_encryption_and_twins_are_refused(busi, tmp_path):
    link = zipfile.ZipInfo("benign/link.png")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    source = write_zip(tmp_path / "link.zip", busi)
    with zipfile.ZipFile(source, "a") as archive:
        archive.writestr(link, "/etc/passwd")
    assert_refused(source, tmp_path / "out", r"benign/link\.png, which is a link")

    source = write_zip(tmp_path / "twins.zip", busi | {"benign/BENIGN (1).png": b"x"})
    assert_refused(source, tmp_path / "out", r"twice; pack it again")

    data = bytearray(write_zip(tmp_path / "locked.zip", {"benign/a.png": b"x"}).read_bytes())
    data[data.index(b"PK\x01\x02") + 8] |= 1
    (tmp_path / "locked.zip").write_bytes(data)
    assert_refused(tmp_path / "locked.zip", tmp_path / "out", "is encrypted")


def test_what_is_too_much_is_refused(busi, tmp_path):
    source = write_zip(tmp_path / "busi.zip", busi)
    out = tmp_path / "out"
    assert_refused(source, out, "has 49 files, more than 48", limits=Limits(members=48))
    assert_refused(source, out, "unpacks to 0 MB, more than", limits=Limits(file_bytes=3_000))
    assert_refused(source, out, "unpacks to 0.0 GB, more than", limits=Limits(total_bytes=100_000))
    bomb = write_zip(tmp_path / "bomb.zip", busi | {"benign/bomb.png": bytes(2_000_000)})
    assert_refused(bomb, out, r"bomb\.png in bomb\.zip unpacks to over 100 times its size")


def test_a_damaged_archive_leaves_nothing_behind(busi, tmp_path):
    source = write_zip(tmp_path / "busi.zip", busi)
    whole = source.read_bytes()
    source.write_bytes(whole[: len(whole) // 2])
    assert_refused(source, tmp_path / "out", r"busi\.zip is no zip file, or damaged .*download it again")
    broken = bytearray(whole)
    place = len(whole) // 2
    broken[place : place + 64] = bytes(64)
    source.write_bytes(broken)
    assert_refused(source, tmp_path / "out", r"in busi\.zip is damaged .*download it again")


def test_what_is_no_dataset_is_refused(busi, tmp_path):
    out = tmp_path / "out"
    assert_refused(tmp_path / "gone.zip", out, r"no file or folder .*gone\.zip")
    assert_refused(write_zip(tmp_path / "a.zip", {"readme.md": b"x"}), out, "has no images in it")
    assert_refused(write_zip(tmp_path / "b.zip", {"readme.txt": b"x"}), out, "no dataset with a layout")
    bare = {name: data for name, data in busi.items() if "_mask" not in name}
    assert_refused(write_zip(tmp_path / "c.zip", bare), out, "holds no masks of lesions")
    (tmp_path / "empty").mkdir()
    assert_refused(tmp_path / "empty", out, "holds no Parquet files")
    (tmp_path / "saved").mkdir()
    (tmp_path / "saved" / "data-00000-of-00001.arrow").touch()
    assert_refused(tmp_path / "saved", out, "load_from_disk, write it with to_parquet, and unpack that")
    source = write_zip(tmp_path / "busi.zip", busi)
    assert_refused(source, tmp_path / "empty", "empty is there already; give another --out")
    assert_refused(source, tmp_path / "no" / "out", "there is no folder .*no; make it")


def test_an_interrupted_unpacking_leaves_nothing_behind(busi, tmp_path):
    events = unpack(write_zip(tmp_path / "busi.zip", busi), tmp_path / "out")
    assert isinstance(next(events), Progress)
    assert len(list(tmp_path.iterdir())) == 2
    events.close()
    assert [p.name for p in tmp_path.iterdir()] == ["busi.zip"]


def test_what_a_killed_unpacking_left_goes_with_the_next(busi, tmp_path):
    source = write_zip(tmp_path / "archive.zip", busi)
    place = tmp_path / ("busi" * 40)
    unpacking = unpack(source, place)
    next(unpacking)
    (begun,) = (path for path in tmp_path.iterdir() if path != source)
    ended = subprocess.run(
        [sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, check=True
    )
    left = tmp_path / begun.name.replace(f".{os.getpid()}.", f".{int(ended.stdout)}.")
    assert left != begun
    left.mkdir()
    (left / "half.png").touch()
    list(unpacking)
    assert left.is_dir()
    list(unpack(source, tmp_path / "again"))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["again", "archive.zip", place.name]


def hugging_face(path, columns, **features):
    """Write a table as `datasets` does: images as bytes and path, class names in the notes."""
    notes = {"info": {"features": features}}
    table = pa.table(columns).replace_schema_metadata({"huggingface": json.dumps(notes)})
    path.parent.mkdir(parents=True, exist_ok=True)
    parquet.write_table(table, path)
    return path


LABEL = {"names": list(CLASSES), "_type": "ClassLabel"}


def test_parquet_with_masks_among_the_images_is_unpacked(busi, tmp_path):
    names = list(busi)
    for number, part in enumerate((names[:30], names[30:])):
        hugging_face(
            tmp_path / "hf" / "default" / "train" / f"{number:04}.parquet",
            {
                "image": [{"bytes": busi[name], "path": name.split("/")[1]} for name in part],
                "label": [CLASSES.index(name.split("/")[0]) for name in part],
            },
            image={"_type": "Image"},
            label=LABEL,
        )
    events = list(unpack(tmp_path / "hf", tmp_path / "busi"))
    assert events[-1] == Unpacked(path=str(tmp_path / "busi"), dataset="busi", images=24, masks=25)
    written = {
        p.relative_to(tmp_path / "busi").as_posix(): p.read_bytes() for p in (tmp_path / "busi").rglob("*.*")
    }
    # the bytes stay as they are, and so does a frame's id
    assert written == busi


def test_parquet_with_a_column_of_masks_is_unpacked(busi, tmp_path):
    images = [name for name in busi if "_mask" not in name]
    source = hugging_face(
        tmp_path / "train.parquet",
        {
            "image": [{"bytes": busi[name], "path": None} for name in images],
            "mask": [{"bytes": busi[name.replace(".png", "_mask.png")], "path": None} for name in images],
            "class_label": [name.split("/")[0] for name in images],
            "image_id": [name.split("/")[1].removesuffix(".png") for name in images],
        },
    )
    list(unpack(source, tmp_path / "busi"))
    samples = find_datasets(tmp_path / "busi", find_groups=alone)
    assert Counter(s.label for s in samples) == dict.fromkeys(CLASSES, 8)
    assert {len(s.masks) for s in samples} == {1}
    assert next(s for s in samples if s.name == "benign (3)").read()[1].any()


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"picture": [1]}, "has no column image; it has picture"),
        (
            {"image": [{"bytes": b"\x89PNG", "path": "a.png"}], "label": [0]},
            "row 1 of x.parquet has the class 0",
        ),
        ({"image": [{"bytes": b"\x89PNG", "path": "a.png"}], "label": ["cyst"]}, "has the class 'cyst'"),
        ({"image": [{"bytes": None, "path": "a.png"}], "label": ["benign"]}, "no image inside, only a link"),
        (
            {"image": [{"bytes": b"GIF8", "path": "a.gif"}], "label": ["benign"]},
            "no image that Sonoloop reads",
        ),
        ({"image": [{"bytes": b"\x89PNG", "path": None}], "label": ["benign"]}, "has no file name"),
        (
            {"image": [{"bytes": b"\x89PNG", "path": "nul.png"}], "label": ["benign"]},
            "whose path is not safe",
        ),
        (
            {"image": [{"bytes": b"\x89PNG", "path": "a.png"}] * 2, "label": ["benign"] * 2},
            "benign/a.png twice",
        ),
    ],
)
def test_a_wrong_row_is_named_and_nothing_is_written(tmp_path, columns, message):
    assert_refused(hugging_face(tmp_path / "x.parquet", columns), tmp_path / "out", message)


def test_too_much_parquet_is_refused_before_it_is_read(tmp_path):
    row = {"image": [{"bytes": b"\x89PNG" + bytes(1000), "path": "a.png"}], "label": ["benign"]}
    source = hugging_face(tmp_path / "x.parquet", {name: values * 3 for name, values in row.items()})
    assert_refused(source, tmp_path / "out", r"x\.parquet has 3 rows, more than 2", limits=Limits(members=2))
    limits = Limits(total_bytes=500)
    assert_refused(source, tmp_path / "out", r"x\.parquet unpacks to 0\.0 GB, more than", limits=limits)


def test_what_is_no_parquet_is_named(busi, tmp_path):
    (tmp_path / "x.parquet").write_bytes(b"PAR1 and nothing else")
    assert_refused(tmp_path / "x.parquet", tmp_path / "out", r"x\.parquet cannot be read as Parquet")


def test_the_command_speaks_in_events(busi, tmp_path, capsys):
    source = write_zip(tmp_path / "busi.zip", busi)
    assert main(["unpack", str(source), "--out", str(tmp_path / "busi")]) == 0
    events = [json.loads(line) for line in io.StringIO(capsys.readouterr().out)]
    assert events[-1] == {
        "event": "unpacked",
        "path": str(tmp_path / "busi"),
        "dataset": "busi",
        "images": 24,
        "masks": 25,
    }
    assert main(["unpack", str(source), "--out", str(tmp_path / "busi")]) == 1
    failed = json.loads(capsys.readouterr().out)
    assert failed["event"] == "failed"
    assert "is there already" in failed["error"]
