"""The datasets on disk, and who trains."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
from PIL import Image

from sonoloop.errors import ImageTruncatedError, TrainingError
from sonoloop_training.datasets import find_datasets, load_busbra, load_busi
from sonoloop_training.splits import PARTS, split


def test_busi_is_listed_with_its_groups(datasets):
    samples = {s.name: s for s in load_busi(datasets / "Dataset_BUSI_with_GT")}
    # the group whose members contradict each other in class is left out
    assert len(samples) == 24 - 2
    assert samples["benign (1)"].group == samples["benign (2)"].group != samples["benign (3)"].group
    assert samples["malignant (3)"].label == "malignant"


def test_masks_of_several_lesions_are_united(datasets):
    folder = datasets / "Dataset_BUSI_with_GT" / "benign"
    sample = next(s for s in load_busi(folder.parent) if s.name == "benign (1)")
    assert [p.name for p in sample.masks] == ["benign (1)_mask.png", "benign (1)_mask_1.png"]
    _, mask = sample.read()
    parts = [np.asarray(Image.open(p).convert("L")) > 0 for p in sample.masks]
    np.testing.assert_array_equal(mask, parts[0] | parts[1])
    assert mask.sum() > parts[0].sum()


def test_busbra_is_grouped_by_patient(datasets):
    samples = load_busbra(datasets / "BUSBRA")
    assert len(samples) == 16
    assert len({s.group for s in samples}) == 8


def test_both_are_found_together_and_names_do_not_collide(datasets):
    samples = find_datasets(datasets)
    assert {s.dataset for s in samples} == {"busi", "busbra"}
    assert len({(s.dataset, s.name) for s in samples}) == len(samples) == 38


def test_what_is_missing_is_named(datasets, tmp_path):
    with pytest.raises(TrainingError, match="neither BUSI"):
        find_datasets(tmp_path)
    with pytest.raises(TrainingError, match="no folder"):
        find_datasets(tmp_path / "gone")
    copy = shutil.copytree(datasets, tmp_path / "copy")
    (copy / "BUSBRA" / "Masks" / "mask_0003-l.png").unlink()
    with pytest.raises(TrainingError, match="bus_0003-l"):
        find_datasets(copy)
    (copy / "busi_groups.json").unlink()
    with pytest.raises(TrainingError, match="near-duplicates"):
        load_busi(copy / "Dataset_BUSI_with_GT")


def test_a_mask_of_another_size_is_named(datasets, tmp_path):
    copy = shutil.copytree(datasets / "BUSBRA", tmp_path / "copy")
    Image.new("L", (10, 20)).save(copy / "Masks" / "mask_0001-l.png")
    with pytest.raises(TrainingError, match=r"mask_0001-l\.png is 10 x 20"):
        load_busbra(copy)[0].read()


def test_a_damaged_mask_is_named(datasets, tmp_path):
    copy = shutil.copytree(datasets / "BUSBRA", tmp_path / "copy")
    mask = copy / "Masks" / "mask_0001-l.png"
    mask.write_bytes(mask.read_bytes()[:60])
    with pytest.raises(ImageTruncatedError, match=r"mask_0001-l\.png"):
        load_busbra(copy)[0].read()


def test_no_group_is_in_two_parts_and_every_class_in_each(datasets):
    parts = split(find_datasets(datasets), validation=0.25, test=0.25, key="k")
    groups = [{s.group for s in parts[part]} for part in PARTS]
    assert not (groups[0] & groups[1] or groups[0] & groups[2] or groups[1] & groups[2])
    for part in PARTS:
        assert {s.label for s in parts[part]} == {"normal", "benign", "malignant"}


def test_the_split_depends_on_names_and_key_alone(datasets):
    samples = find_datasets(datasets)
    one = split(samples, validation=0.25, test=0.25, key="k")
    again = split(samples[::-1], validation=0.25, test=0.25, key="k")
    other = split(samples, validation=0.25, test=0.25, key="another")
    names = [{s.name for s in p["test"]} for p in (one, again, other)]
    assert names[0] == names[1] != names[2]
    with pytest.raises(ValueError, match="shares"):
        split(samples, validation=0.6, test=0.6, key="k")


@pytest.mark.data
def test_the_real_sets_are_read_whole(data):
    samples = find_datasets(data)
    assert sum(s.dataset == "busbra" for s in samples) == 1401
    assert len({s.group for s in samples if s.dataset == "busbra"}) == 797
    # 624 images, without those in the groups that contradict themselves
    assert 600 <= sum(s.dataset == "busi" for s in samples) < 624
    assert all(s.masks for s in samples)
