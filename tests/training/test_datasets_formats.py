"""Dataset B, Hugging Face's image folder, and a user's own folder."""

from __future__ import annotations

import csv
import shutil

import numpy as np
import pytest
from openpyxl import Workbook
from PIL import Image

from sonoloop.errors import TrainingError
from sonoloop.imaging.phantom import phantom
from sonoloop_training.datasets import find_datasets, load_folder, load_huggingface, load_udiat


def alone(samples):
    return {s.name: s.name for s in samples}


def write_pair(image, mask, label="benign", seed=1):
    made = phantom(label, seed=seed, shape=(64, 72))
    for path, pixels in ((image, made.image), (mask, made.mask * 255)):
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path)
    return made


def write_csv(path, rows, delimiter=","):
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, delimiter=delimiter).writerows(rows)


@pytest.fixture
def udiat(tmp_path):
    root = tmp_path / "BUS"
    book = Workbook()
    book.active.append(["Image", "Type", "Diagnosis"])
    for number, (kind, what) in enumerate([("Benign", "CYST"), ("Malignant", "IDC"), ("Benign", "FA")], 1):
        name = f"{number:06}.png"
        write_pair(root / "original" / name, root / "GT" / name, kind.lower(), number)
        # one as a number, as Excel likes it
        book.active.append([number if number == 2 else f"{number:06}", kind, what])
    book.save(root / "DatasetB.xlsx")
    return root


def test_dataset_b_is_read_from_its_excel_table(udiat):
    samples = load_udiat(udiat, find_groups=alone)
    assert [(s.name, s.label, s.facts["histology"]) for s in samples] == [
        ("000001", "benign", "CYST"),
        ("000002", "malignant", "IDC"),
        ("000003", "benign", "FA"),
    ]
    assert {s.scanner for s in samples} == {"Siemens ACUSON Sequoia C512"}
    assert samples[1].group == "udiat/000002"
    frame, mask = samples[1].read()
    assert frame.shape == mask.shape == (64, 72)
    assert mask.any()
    assert find_datasets(udiat.parent, find_groups=alone) == samples


def test_dataset_b_is_read_from_csv_too(udiat):
    (udiat / "DatasetB.xlsx").unlink()
    write_csv(
        udiat / "datasetb.csv", [["Image", "Type"], [1, "Benign"], [2, "Malignant"], [3, "Benign"]], ";"
    )
    assert [s.label for s in load_udiat(udiat, find_groups=alone)] == ["benign", "malignant", "benign"]


def test_faults_of_dataset_b_are_named(udiat, tmp_path):
    copy = shutil.copytree(udiat, tmp_path / "copy")
    (copy / "GT" / "000003.png").unlink()
    with pytest.raises(TrainingError, match=r"000003\.png has no mask in .*GT"):
        load_udiat(copy, find_groups=alone)
    (copy / "DatasetB.xlsx").write_bytes(b"PK no workbook")
    with pytest.raises(TrainingError, match=r"DatasetB\.xlsx cannot be read"):
        load_udiat(copy, find_groups=alone)
    (copy / "DatasetB.xlsx").unlink()
    with pytest.raises(TrainingError, match=r"has no DatasetB\.xlsx"):
        load_udiat(copy, find_groups=alone)
    write_csv(copy / "DatasetB.csv", [["Image", "Type"], [1, "Benign"]])
    with pytest.raises(TrainingError, match=r"DatasetB\.csv has no row for 000002\.png"):
        load_udiat(copy, find_groups=alone)
    shutil.rmtree(copy / "original")
    with pytest.raises(TrainingError, match="no folder original or GT"):
        load_udiat(copy, find_groups=alone)


def test_hugging_faces_parts_are_put_together(datasets, tmp_path):
    root = tmp_path / "hf"
    shutil.copytree(datasets / "Dataset_BUSI_with_GT", root / "train")
    for label in ("benign", "malignant", "normal"):
        (root / "test" / label).mkdir(parents=True)
        for path in (root / "train" / label).glob(f"{label} (1)*"):
            path.rename(root / "test" / label / path.name)
    shutil.copy(datasets / "busi_groups.json", root)
    samples = {s.name: s for s in find_datasets(tmp_path)}
    assert len(samples) == 22
    assert samples["benign (1)"].image.parent.parent.name == "test"
    assert len(samples["benign (1)"].masks) == 2
    assert samples["benign (1)"].group == samples["benign (2)"].group
    shutil.copy(root / "train" / "benign" / "benign (3).png", root / "test" / "benign")
    with pytest.raises(TrainingError, match="have one name"):
        load_huggingface(root)


def test_parquet_is_to_be_unpacked_first(tmp_path):
    (tmp_path / "hf" / "data").mkdir(parents=True)
    (tmp_path / "hf" / "data" / "train-00000-of-00001.parquet").write_bytes(b"PAR1")
    with pytest.raises(TrainingError, match=r"sonoloop data unpack .*hf --out FOLDER"):
        load_huggingface(tmp_path / "hf")
    with pytest.raises(TrainingError, match=r"unpack it first: sonoloop data unpack .*hf --out FOLDER"):
        find_datasets(tmp_path)


@pytest.fixture
def own(tmp_path):
    root = tmp_path / "Own"
    write_pair(root / "images" / "case1.png", root / "masks" / "case1.png")
    write_pair(root / "images" / "case1_2.png", root / "masks" / "case1_2_mask.png", "malignant", 2)
    write_pair(root / "images" / "case3.jpg", root / "masks" / "CASE3-seg.jpg", "malignant", 3)
    write_pair(root / "images" / "case4.png", root / "masks" / "unused.png", "normal", 4)
    write_pair(root / "images" / "undecided.png", root / "masks" / "undecided.png")
    write_pair(tmp_path / "scratch.png", root / "masks" / "case1_mask_1.png", "malignant", 5)
    return root


ROWS = [
    ["Image", "Class", "Patient", "Scanner", "Overlay", "BI-RADS"],
    ["case1", "Benign", "p1", "Acme 1", "yes", "3"],
    ["case1_2.png", "malignant", "p1", "", "no", ""],
    ["images\\case3.jpg", "MALIGNANT", "p2", "Acme 1", "", "5"],
    ["case4.png", "normal", "p3", "", "", ""],
]


@pytest.mark.parametrize("delimiter", [",", ";"])
def test_an_own_folder_is_read(own, delimiter):
    write_csv(own / "classes.csv", ROWS, delimiter)
    samples = {s.name: s for s in find_datasets(own.parent)}
    # undecided.png has no row: nobody said what it is
    assert sorted(samples) == ["case1", "case1_2", "case3", "case4"]
    one = samples["case1"]
    assert (one.dataset, one.group, one.patient) == ("own", "own/p1", "p1")
    assert (one.scanner, one.overlay, one.facts) == ("Acme 1", True, {"bi-rads": "3"})
    assert [s.overlay for s in samples.values()] == [True, False, None, None]
    # case1_2.png is an image, so that its mask is not the second one of case1
    assert [p.name for p in one.masks] == ["case1.png", "case1_mask_1.png"]
    assert [p.name for p in samples["case1_2"].masks] == ["case1_2_mask.png"]
    assert [p.name for p in samples["case3"].masks] == ["CASE3-seg.jpg"]
    assert samples["case4"].masks == ()
    # the blocks around a JPEG's edges are no lesion
    truth = phantom("malignant", seed=3, shape=(64, 72)).mask > 0
    mask = samples["case3"].read()[1]
    assert np.logical_xor(mask, truth).sum() < 0.1 * truth.sum()


def test_masks_may_be_named_in_the_table(own):
    write_csv(
        own / "classes.csv",
        [["image", "class", "group", "mask"], ["case1", "benign", "g", "case1.png; unused.png"]],
    )
    assert [p.name for p in load_folder(own)[0].masks] == ["case1.png", "unused.png"]
    assert load_folder(own)[0].group == "own/g"
    for name in ("../images/case1.png", "gone.png"):
        write_csv(own / "classes.csv", [["image", "class", "group", "mask"], ["case1", "benign", "g", name]])
        with pytest.raises(TrainingError, match=r"names the mask .* which is not in .*masks"):
            load_folder(own)


def test_without_patients_near_duplicates_are_groups(own):
    write_csv(own / "classes.csv", [["image", "class"], ["case1", "benign"], ["undecided", "benign"]])
    samples = load_folder(own, find_groups=lambda found: {s.name: "case1" for s in found})
    assert [s.group for s in samples] == ["own/case1", "own/case1"]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([["image", "class"]], "has no rows"),
        ([["image", "label"], ["case1", "benign"]], "has no column class; it has image, label"),
        ([["image", "class"], ["case9", "benign"]], "names 'case9', which is not in"),
        (
            [["image", "class"], ["case1", "cyst"]],
            "calls case1 'cyst'; a class is one of normal, benign, malignant",
        ),
        ([["image", "class"], ["case1", "benign"], ["case1.png", "benign"]], "two rows for case1.png"),
        (
            [["image", "class", "overlay"], ["case1", "benign", "maybe"]],
            "overlay 'maybe' for case1; use yes or no",
        ),
        (
            [["image", "class", "patient"], ["case1", "benign", "1"], ["case4", "normal", ""]],
            "no patient or group for case4",
        ),
    ],
)
def test_a_wrong_row_is_named(own, rows, message):
    write_csv(own / "classes.csv", rows)
    with pytest.raises(TrainingError, match=message):
        load_folder(own, find_groups=alone)


def test_a_folder_without_one_table_is_named(own):
    with pytest.raises(TrainingError, match="needs one CSV with the columns image and class; it has none"):
        find_datasets(own.parent)
    for name in ("a.csv", "b.csv"):
        write_csv(own / name, ROWS)
    with pytest.raises(TrainingError, match=r"it has a\.csv, b\.csv"):
        load_folder(own)
    (own / "b.csv").unlink()
    (own / "a.csv").write_bytes(b"image,class\n\xff\xfe\n")
    with pytest.raises(TrainingError, match=r"a\.csv cannot be read .* save it again as CSV in UTF-8"):
        load_folder(own)
    write_csv(own / "a.csv", ROWS)
    with pytest.raises(TrainingError, match="rename the folder"):
        load_folder(own.rename(own.parent / "BUSI"))
