"""BUSI and BUS-BRA on disk, and how datasets are found."""

from __future__ import annotations

import csv
import json
import shutil
from collections import Counter

import numpy as np
import pytest
from PIL import Image

from sonoloop.errors import ImageTruncatedError, TrainingError
from sonoloop_training.datasets import find_datasets, load_busbra, load_busi, registry


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
    with pytest.raises(TrainingError, match=r"there is no list of near-duplicates .*gone.json"):
        load_busi(copy / "Dataset_BUSI_with_GT", tmp_path / "gone.json")


def test_a_missing_class_folder_is_named(datasets, tmp_path):
    busi = shutil.copytree(datasets / "Dataset_BUSI_with_GT", tmp_path / "data" / "BUSI")
    shutil.rmtree(busi / "normal")
    for data in (busi, busi.parent):
        with pytest.raises(TrainingError, match=r"BUSI has no folder 'normal'; give the folder that holds"):
            find_datasets(data)


@pytest.mark.parametrize("name", ["archive.zip", "0000.parquet"])
def test_a_packed_dataset_in_place_of_a_folder_is_to_be_unpacked(tmp_path, name):
    (tmp_path / name).write_bytes(b"x")
    with pytest.raises(TrainingError) as raised:
        find_datasets(tmp_path / name)
    path = tmp_path / name
    assert str(raised.value) == (
        f"{path} is a file; unpack it first: sonoloop data unpack {path} --out FOLDER"
    )
    (tmp_path / "bus_data.csv").touch()
    with pytest.raises(
        TrainingError, match=r"csv is a file; give the folder with the datasets, or a pack of them$"
    ):
        find_datasets(tmp_path / "bus_data.csv")


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


def test_folders_in_any_case_and_every_kind_of_mask_are_read(datasets, tmp_path):
    copy = tmp_path / "BUSI"
    shutil.copytree(datasets / "Dataset_BUSI_with_GT", copy)
    for label in ("benign", "malignant", "normal"):
        (copy / label).rename(copy / f"_{label}")
        (copy / f"_{label}").rename(copy / label.upper())
    path = copy / "BENIGN" / "benign (3)_mask.png"
    truth = np.asarray(Image.open(path)) > 0
    for mode in ("1", "L", "P", "RGB", "RGBA"):
        Image.fromarray(np.uint8(truth) * 255).convert(mode).save(path)
        samples = {s.name: s for s in load_busi(copy, datasets / "busi_groups.json")}
        np.testing.assert_array_equal(samples["benign (3)"].read()[1], truth)


def test_the_list_says_what_is_burned_in_and_objected_to(datasets, tmp_path):
    listing = {
        "groups": [
            {"images": ["benign (1)", "Benign (2)"], "overlay": ["text", "measurement"]},
            {"images": ["malignant (3)"], "objection": "needle"},
        ]
    }
    copy = shutil.copytree(datasets / "Dataset_BUSI_with_GT", tmp_path / "BUSI")
    (copy / "busi_groups.json").write_text(json.dumps(listing))
    samples = {s.name: s for s in load_busi(copy)}
    assert samples["benign (2)"].overlay is True
    assert samples["benign (2)"].facts == {"overlay": "text, measurement"}
    assert samples["benign (2)"].group == "busi/benign (1)"
    assert samples["malignant (3)"].facts == {"objection": "needle"}
    # the list knows every overlay: what it does not name is clean
    assert samples["malignant (3)"].overlay is False
    # a list as computed says nothing of overlays
    (copy / "busi_groups.json").rename(copy / "groups.json")
    (copy / "groups.json").write_text(json.dumps({"groups": [{"images": ["benign (1)", "benign (5)"]}]}))
    computed = {s.name: s for s in load_busi(copy)}
    assert computed["benign (5)"].group == "busi/benign (1)"
    assert computed["benign (5)"].overlay is None


def test_without_a_list_groups_are_computed_and_contradictions_left_out(
    datasets, tmp_path, caplog, monkeypatch
):
    copy = shutil.copytree(datasets / "Dataset_BUSI_with_GT", tmp_path / "BUSI")
    twins = {"benign (4)": "benign (2)", "normal (1)": "benign (7)"}

    def find_groups(samples):
        return {s.name: twins.get(s.name, s.name) for s in samples}

    monkeypatch.setattr("sonoloop_training.datasets.groups.near_duplicate_groups", find_groups)
    samples = find_datasets(tmp_path)
    group = {s.name: s.group for s in samples}
    assert group["benign (4)"] == group["benign (2)"] == "busi/benign (2)"
    assert "normal (1)" not in group
    assert "benign (7)" not in group
    assert "BUSI has no list of near-duplicates: 22 groups were computed, and 2 images" in caplog.text
    # said before, since it takes a while
    assert caplog.messages[0] == (
        "BUSI has no list of near-duplicates: its 24 images are compared with each other"
    )
    assert all(sample.computed for sample in samples)
    # a caller that hands in its own groups knows of them
    caplog.clear()
    assert load_busi(copy, find_groups=find_groups) == samples
    assert find_datasets(tmp_path, find_groups=find_groups) == samples
    assert not caplog.text


def test_a_layout_of_ones_own_is_a_line_more(datasets, tmp_path, monkeypatch):
    def load(root, groups=None, *, find_groups=None):
        return load_busi(root / "inner", find_groups=lambda samples: {})

    shutil.copytree(datasets / "Dataset_BUSI_with_GT", tmp_path / "ours" / "inner")
    (tmp_path / "ours" / "ours.txt").touch()
    with pytest.raises(TrainingError, match=r"Dataset B \(original, GT\) or images, masks and a CSV$"):
        find_datasets(tmp_path)
    layout = registry.Layout("ours (ours.txt)", lambda root: (root / "ours.txt").is_file(), load)
    monkeypatch.setattr(registry, "LAYOUTS", (*registry.LAYOUTS, layout))
    assert len(find_datasets(tmp_path)) == 24
    (tmp_path / "ours" / "ours.txt").unlink()
    with pytest.raises(TrainingError, match=r"images, masks and a CSV or ours \(ours\.txt\)"):
        find_datasets(tmp_path)


def group_of(samples, dataset):
    return {s.name: s.group for s in samples if s.dataset == dataset}


def test_a_neighbours_list_groups_nothing(datasets, tmp_path):
    shutil.copytree(datasets / "Dataset_BUSI_with_GT", tmp_path / "BUSI")
    clinic = tmp_path / "clinic"
    clinic.mkdir()
    for folder, suffix in (("images", ""), ("masks", "_mask")):
        (clinic / folder).mkdir()
        for number in (1, 2):
            source = tmp_path / "BUSI" / "benign" / f"benign ({number}){suffix}.png"
            shutil.copy(source, clinic / folder / f"case{number}.png")
    (clinic / "classes.csv").write_text("image,class\ncase1,benign\ncase2,benign\n")
    (tmp_path / "busi_groups.json").write_text(
        '{"groups": [{"images": ["benign (1)", "benign (2)"], "overlay": ["text"]},'
        ' {"images": ["case1"], "overlay": ["text"]}]}'
    )

    def find_groups(samples):
        return {s.name: "case1" if s.dataset == "clinic" else s.name for s in samples}

    samples = find_datasets(tmp_path, find_groups=find_groups)
    assert group_of(samples, "clinic") == {"case1": "clinic/case1", "case2": "clinic/case1"}
    assert [s.overlay for s in samples if s.dataset == "clinic"] == [None, None]
    assert group_of(samples, "busi")["benign (2)"] == "busi/benign (1)"
    # a list of no one kind counts for the dataset whose images it names
    (tmp_path / "busi_groups.json").rename(tmp_path / "groups.json")
    (tmp_path / "groups.json").write_text('{"groups": [{"images": ["benign (1)", "benign (2)"]}]}')
    samples = find_datasets(tmp_path, find_groups=find_groups)
    assert group_of(samples, "clinic") == {"case1": "clinic/case1", "case2": "clinic/case1"}
    assert group_of(samples, "busi")["benign (2)"] == "busi/benign (1)"
    (tmp_path / "groups.json").write_text('{"groups": [{"images": ["Case2", "case0"]}]}')
    samples = find_datasets(tmp_path, find_groups=find_groups)
    assert group_of(samples, "clinic") == {"case1": "clinic/case1", "case2": "clinic/Case2"}
    assert group_of(samples, "busi")["benign (2)"] == "busi/benign (2)"


def test_a_datasets_own_list_comes_before_one_beside_it(datasets, tmp_path):
    copy = shutil.copytree(datasets / "Dataset_BUSI_with_GT", tmp_path / "BUSI")
    (tmp_path / "busi_groups.json").write_text('{"groups": [{"images": ["benign (1)", "benign (2)"]}]}')
    (copy / "groups.json").write_text('{"groups": [{"images": ["benign (3)", "benign (2)"]}]}')
    group = group_of(load_busi(copy), "busi")
    assert group["benign (2)"] == "busi/benign (3)"
    assert group["benign (1)"] == "busi/benign (1)"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "is no list of near-duplicates"),
        ('{"groups": [{"image": "a"}]}', "is no list of near-duplicates"),
        ('{"groups": [{"images": null}]}', "is no list of near-duplicates"),
        ('{"groups": [{"images": ["a"]}, {"images": ["b", "A"]}]}', "lists a in two groups"),
    ],
)
def test_a_wrong_list_is_named(datasets, tmp_path, text, message):
    path = tmp_path / "groups.json"
    path.write_text(text)
    with pytest.raises(TrainingError, match=message) as caught:
        load_busi(datasets / "Dataset_BUSI_with_GT", path)
    assert "groups.json" in str(caught.value)


def test_a_lesion_without_a_mask_is_listed_and_refused_when_read(datasets, tmp_path):
    copy = shutil.copytree(datasets / "Dataset_BUSI_with_GT", tmp_path / "BUSI")
    (copy / "malignant" / "malignant (2)_mask.png").unlink()
    (copy / "normal" / "normal (2)_mask.png").unlink()
    samples = {s.name: s for s in load_busi(copy, datasets / "busi_groups.json")}
    with pytest.raises(TrainingError, match=r"malignant \(2\)\.png is malignant and has no mask"):
        samples["malignant (2)"].read()
    assert not samples["normal (2)"].read()[1].any()


def test_a_mask_that_contradicts_the_class_is_refused_when_read(datasets, tmp_path):
    copy = shutil.copytree(datasets / "Dataset_BUSI_with_GT", tmp_path / "BUSI")
    drawn = copy / "benign" / "benign (1)_mask.png"
    shutil.copy(drawn, copy / "normal" / "normal (2)_mask.png")
    Image.new("L", (128, 96)).save(copy / "malignant" / "malignant (2)_mask.png")
    # one of its two lesions is left, and that is enough
    Image.new("L", (128, 96)).save(drawn)
    samples = {s.name: s for s in load_busi(copy, datasets / "busi_groups.json")}
    with pytest.raises(
        TrainingError,
        match=r"malignant \(2\)\.png is malignant and its mask is empty; draw the lesion, or correct",
    ):
        samples["malignant (2)"].read()
    with pytest.raises(
        TrainingError,
        match=r"normal \(2\)\.png is normal and has a lesion in its mask; correct the class, or empty",
    ):
        samples["normal (2)"].read()
    assert samples["benign (1)"].read()[1].any()
    assert not samples["normal (3)"].read()[1].any()


def test_two_images_of_one_name_are_refused(datasets, tmp_path):
    copy = shutil.copytree(datasets / "Dataset_BUSI_with_GT", tmp_path / "BUSI")
    shutil.copy(copy / "benign" / "benign (1).png", copy / "normal" / "Benign (1).png")
    with pytest.raises(TrainingError, match="have one name"):
        load_busi(copy, datasets / "busi_groups.json")


def test_the_same_dataset_twice_is_refused(datasets, tmp_path):
    for name in ("one", "two"):
        shutil.copytree(datasets / "BUSBRA", tmp_path / name)
    with pytest.raises(TrainingError, match=r"one and .*two are both 'busbra'"):
        find_datasets(tmp_path)


def test_busbra_keeps_what_its_tables_say(datasets, tmp_path):
    copy = shutil.copytree(datasets / "BUSBRA", tmp_path / "BUSBRA")
    rows = [line.split(",") for line in (copy / "bus_data.csv").read_text().split()[1:]]
    with (copy / "bus_data.csv").open("w", encoding="utf-8-sig", newline="") as file:
        table = csv.writer(file)
        table.writerow(["ID", "Case", "Histology", "Pathology", "BIRADS", "Device", "Side"])
        table.writerows([i, c, "cyst", p, 3, "Toshiba Aplio 300 @12-14 MHz", "left"] for i, c, p in rows)
    for folds in (5, 10):
        with (copy / f"{folds}-fold-cv.csv").open("w", newline="") as file:
            csv.writer(file).writerows([["ID", "kFold"], *([i, int(c) % folds + 1] for i, c, _ in rows)])
    sample = next(s for s in load_busbra(copy) if s.name == "bus_0007-l")
    assert (sample.patient, sample.group) == ("7", "busbra/7")
    assert sample.scanner == "Toshiba Aplio 300"
    assert sample.facts == {
        "histology": "cyst",
        "birads": "3",
        "device": "Toshiba Aplio 300 @12-14 MHz",
        "side": "left",
        "5-fold": "3",
        "10-fold": "8",
    }
    text = (copy / "bus_data.csv").read_text(encoding="utf-8-sig")
    (copy / "bus_data.csv").write_text(text.replace("malignant", "carcinoma"))
    with pytest.raises(TrainingError, match=r"bus_data\.csv calls bus_0001-l 'carcinoma'"):
        load_busbra(copy)
    (copy / "bus_data.csv").write_text(text.replace("Pathology", "Diagnosis"))
    with pytest.raises(TrainingError, match="has no column pathology; it has id, case"):
        load_busbra(copy)


@pytest.mark.data
def test_the_real_sets_are_read_whole(data):
    samples = find_datasets(data)
    assert sum(s.dataset == "busbra" for s in samples) == 1401
    assert len({s.group for s in samples if s.dataset == "busbra"}) == 797
    # 624 images, without those in the groups that contradict themselves
    assert 600 <= sum(s.dataset == "busi" for s in samples) < 624
    assert all(s.masks for s in samples)
    scanners = Counter(s.scanner for s in samples if s.dataset == "busbra")
    assert scanners == {"GE Logiq 7": 676, "GE Logiq 5": 604, "Toshiba Aplio 300": 103, "U-Systems": 18}
    overlays = Counter(s.overlay for s in samples if s.dataset == "busi")
    assert overlays == {False: 417, True: 188}


@pytest.mark.data
@pytest.mark.slow
def test_no_mask_of_the_real_sets_contradicts_its_class(data):
    samples = find_datasets(data, find_groups=lambda found: {s.name: s.name for s in found})
    drawn = Counter((s.label == "normal", bool(s.read()[1].any())) for s in samples)
    assert set(drawn) == {(True, False), (False, True)}
    assert drawn.total() == len(samples)
