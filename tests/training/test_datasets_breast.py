"""BrEaST: the archive's own layout, and an index with calibration."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
from openpyxl import Workbook
from PIL import Image

from sonoloop.errors import TrainingError
from sonoloop.imaging.phantom import phantom
from sonoloop_training.datasets import find_datasets, load_breast

SHARED = Path(__file__).parents[3] / "shared" / "data" / "BrEaST"


def write(folder, name, label, seed):
    """Write an image and, but for a normal one, its mask."""
    folder.mkdir(parents=True, exist_ok=True)
    made = phantom(label, seed=seed, shape=(64, 72))
    Image.fromarray(made.image).save(folder / f"{name}.png")
    if label != "normal":
        Image.fromarray((made.mask > 0).astype(np.uint8) * 255).save(folder / f"{name}_tumor.png")


@pytest.fixture
def archive(tmp_path):
    root = tmp_path / "somewhere"
    book = Workbook()
    book.active.append(
        [
            "CaseID",
            "Image_filename",
            "Mask_tumor_filename",
            "Mask_other_filename",
            "Pixel_size",
            "BIRADS",
            "Verification",
            "Diagnosis",
            "Classification",
        ]
    )
    for number, label in enumerate(["benign", "malignant", "normal"], 1):
        name = f"case{number:03}"
        write(root / "BrEaST-Lesions_USG-images_and_masks", name, label, number)
        mask = None if label == "normal" else f"{name}_tumor.png"
        book.active.append(
            [
                number,
                f"{name}.png",
                mask,
                "gone_other1.png",
                0.0078125,
                "4a",
                "confirmed by biopsy",
                "x",
                label,
            ]
        )
    book.save(root / "BrEaST-Lesions-USG-clinical-data-Dec-15-2023.xlsx")
    return root


def write_index(root, rows):
    columns = ["image", "mask", "class", "patient", "pixel_size_cm", "birads"]
    with (root / "index.csv").open("w", newline="") as file:
        csv.writer(file).writerows([columns, *rows])


def test_the_archive_is_read_from_its_clinical_table(archive):
    samples = find_datasets(archive.parent)
    assert samples == load_breast(archive)
    assert [(s.name, s.label, len(s.masks), s.group) for s in samples] == [
        ("case001", "benign", 1, "breast-usg/1"),
        ("case002", "malignant", 1, "breast-usg/2"),
        ("case003", "normal", 0, "breast-usg/3"),
    ]
    assert {s.dataset for s in samples} == {"breast-usg"}
    assert samples[0].facts == {"birads": "4a", "verification": "confirmed by biopsy", "diagnosis": "x"}


def test_its_pixel_size_is_the_spacing_of_its_frames_in_millimetres(archive):
    frame, mask = load_breast(archive)[1].read()
    assert frame.spacing == pytest.approx((0.078125, 0.078125))
    assert mask.any()
    assert frame.shape == (64, 72)


def test_an_index_names_paths_below_its_folder_and_several_masks(tmp_path):
    write(tmp_path / "images", "a", "benign", 1)
    write(tmp_path / "images", "b", "malignant", 2)
    masks = "images/a_tumor.png;images/b_tumor.png"
    write_index(tmp_path, [["images/a.png", masks, "benign", "BrEaST-001", "", "3"]])
    (sample,) = find_datasets(tmp_path)
    assert (sample.dataset, sample.patient, sample.spacing, len(sample.masks)) == (
        "breast-usg",
        "BrEaST-001",
        None,
        2,
    )


def test_somebodys_own_table_with_the_same_columns_is_their_own(tmp_path):
    for seed, name in enumerate("ab"):
        write(tmp_path / "images", name, "benign", seed)
    (tmp_path / "masks").mkdir()
    for name in "ab":
        (tmp_path / "images" / f"{name}_tumor.png").rename(tmp_path / "masks" / f"{name}.png")
    write_index(tmp_path, [[f"{name}.png", f"{name}.png", "benign", name, "0.01", "3"] for name in "ab"])
    assert {s.dataset for s in find_datasets(tmp_path)} == {tmp_path.name.lower()}


@pytest.mark.parametrize(
    ("row", "told"),
    [
        (["images/none.png", "", "benign", "p", "", ""], r"names 'images/none\.png', which is not in"),
        (["../a.png", "", "benign", "p", "", ""], r"names '\.\./a\.png', which is not in"),
        (["images/a.png", "images/no.png", "benign", "p", "", ""], r"names 'images/no\.png'"),
        (["images/a.png", "", "cyst", "p", "", ""], r"calls images/a\.png 'cyst'"),
        (["images/a.png", "", "benign", "p", "wide", ""], r"a pixel of 'wide' cm"),
        (["images/a.png", "", "benign", "p", "nan", ""], r"a pixel of 'nan' cm"),
        (["images/a.png", "", "benign", "p", "-1", ""], r"a pixel of '-1' cm"),
    ],
)
def test_a_row_that_cannot_be_meant_is_named(tmp_path, row, told):
    write(tmp_path / "images", "a", "benign", 1)
    write_index(tmp_path, [row])
    with pytest.raises(TrainingError, match=told):
        load_breast(tmp_path)


@pytest.mark.skipif(not SHARED.is_dir(), reason="BrEaST is not here")
def test_the_real_one_has_170_patients_all_calibrated():
    samples = load_breast(SHARED)
    counts = [sum(s.label == label for s in samples) for label in ("benign", "malignant", "normal")]
    assert counts == [99, 69, 2]
    assert len({s.group for s in samples}) == 170
    assert all(s.spacing and 0.02 < s.spacing[0] < 0.5 for s in samples)
