"""A dataset with every fault there is, checked without a crash, and one without any."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

from sonoloop.errors import TrainingError
from sonoloop.imaging.phantom import phantom
from sonoloop.jobs.events import Checked, Progress
from sonoloop.values import CLASSES
from sonoloop_training.checking.report import check
from sonoloop_training.datasets import load_busi

SHAPE = (240, 300)


def write(folder, name, image, *masks):
    folder.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(folder / f"{name}.png")
    for number, mask in enumerate(masks):
        suffix = f"_{number}" if number else ""
        Image.fromarray(mask.astype(np.uint8) * 255).save(folder / f"{name}_mask{suffix}.png")


@pytest.fixture(scope="module")
def clean(tmp_path_factory):
    """Three images of each class in BUSI's layout, with nothing to mend."""
    root = tmp_path_factory.mktemp("clean") / "study"
    for label in CLASSES:
        for number in range(1, 4):
            made = phantom(label, seed=number + 1, shape=SHAPE)
            write(root / label, f"{label} ({number})", made.image, made.mask)
    return root


@pytest.fixture(scope="module")
def faulty(clean, tmp_path_factory):
    """The same with one fault of each kind, and two twins."""
    root = shutil.copytree(clean, tmp_path_factory.mktemp("faulty") / "study")
    benign, malignant, normal = root / "benign", root / "malignant", root / "normal"
    made = phantom("benign", seed=2, shape=SHAPE)
    write(malignant, "malignant (4)", np.ascontiguousarray(made.image[:, ::-1]), made.mask[:, ::-1])
    second = phantom("benign", seed=3, shape=SHAPE)
    write(benign, "benign (4)", second.image[:, 40:], second.mask[:, 40:])

    others = [phantom("benign", seed=seed, shape=SHAPE) for seed in range(5, 12)]
    write(benign, "benign (5)", others[0].image)
    write(benign, "benign (6)", others[1].image, np.zeros(SHAPE))
    write(benign, "benign (7)", others[2].image, others[2].mask[:120, :140])
    write(benign, "benign (8)", others[3].image, others[3].mask)
    grey = others[3].mask * 255
    grey[:40, :2] = 90
    Image.fromarray(grey).save(benign / "benign (8)_mask.png")
    write(benign, "benign (9)", others[4].image, others[4].mask)
    whole = (benign / "benign (9).png").read_bytes()
    (benign / "benign (9).png").write_bytes(whole[: len(whole) // 2])
    write(benign, "benign (10)", others[5].image, others[5].mask)
    (benign / "benign (10)_mask.png").write_bytes(b"")
    write(normal, "normal (4)", phantom("normal", seed=9, shape=SHAPE).image, others[0].mask)
    for number, made in ((11, others[6]), (12, phantom("benign", seed=12, shape=SHAPE))):
        marked = Image.fromarray(made.image)
        ImageDraw.Draw(marked).text((40, 160), "RT BREAST", fill=255)
        write(benign, f"benign ({number})", np.asarray(marked), made.mask)
    return root


def run(data, out):
    events = list(check(data, out))
    assert all(isinstance(event, Progress) for event in events[:-1])
    assert isinstance(events[-1], Checked)
    return events[-1]


@pytest.fixture(scope="module")
def checked(faulty, tmp_path_factory):
    return run(faulty, tmp_path_factory.mktemp("out") / "check")


FAULTS = {
    "images cannot be read": (
        "benign (9): benign (9).png breaks off or is damaged; copy or export it again",
    ),
    "masks cannot be read": (
        "benign (10): benign (10)_mask.png is empty (0 bytes); copy or export it again",
    ),
    "images with a lesion have no mask": ("benign (5)",),
    "masks of a lesion are empty": ("benign (6)",),
    "masks have another size than their image": (
        "benign (7): benign (7)_mask.png is 140 x 120, its image 300 x 240",
    ),
    "groups of near-duplicates contradict themselves in class": ("benign (1), malignant (4)",),
}


@pytest.mark.parametrize("what", FAULTS)
def test_a_fault_is_found_and_named(checked, what):
    found = next(finding for finding in checked.findings if finding.what == what)
    assert found.names == FAULTS[what]
    assert found.severity == "mend"
    assert found.advice


def test_other_faults_are_found(checked):
    found = {finding.what: finding for finding in checked.findings}
    (name,) = found["normal images have a mask"].names
    assert re.fullmatch(r"normal \(4\): \d+\.\d% of the frame", name)
    assert found["masks have more than two levels"].names == ("benign (8): benign (8)_mask.png has 3 levels",)
    assert found["masks have more than two levels"].severity == "heed"
    assert checked.mend == 7


def test_the_worst_findings_come_first(checked):
    order = [finding.severity for finding in checked.findings]
    assert order == sorted(order, key=["mend", "heed", "note"].index)
    assert set(order) == {"mend", "heed", "note"}


def test_figures_are_right(checked):
    (dataset,) = checked.datasets
    benign = dataset["classes"]["benign"]
    assert (benign["images"], benign["readable"]) == (12, 11)
    assert benign["widths"] == (260.0, 300.0, 300.0)
    assert benign["overlays"] == 2
    assert benign["depths"] == {"8-bit grey": 11}
    assert dataset["classes"]["all"]["images"] == 20
    assert sorted(map(sorted, dataset["near_duplicates"])) == [
        ["benign (1)", "malignant (4)"],
        ["benign (2)", "benign (4)"],
    ]


def test_overlays_of_one_class_are_a_shortcut_in_words(checked):
    told = next(finding for finding in checked.findings if "burned into" in finding.what)
    assert told.severity == "heed"
    assert "0% of the normal, 18% of the benign" in told.what
    assert "a classifier can tell the class by them" in told.advice


def test_groups_are_read_by_the_loader(checked, faulty):
    (path,) = checked.groups
    samples = {sample.name: sample for sample in load_busi(faulty, Path(path))}
    assert samples["benign (2)"].group == samples["benign (4)"].group != samples["benign (3)"].group
    assert "benign (1)" not in samples and "malignant (4)" not in samples
    assert samples["benign (11)"].overlay and not samples["benign (3)"].overlay


def test_the_report_is_one_file_that_needs_no_network(checked):
    html = Path(checked.report).read_text(encoding="utf-8")
    assert "http:" not in html and "https:" not in html and "<script" not in html
    assert html.count('src="data:image/') == html.count("<img") > 20
    for words in ("not for diagnosis", "contradicts itself in class, mirrored", "prefers-color-scheme: dark"):
        assert words in html


def test_a_clean_dataset_has_nothing_to_mend(clean, tmp_path):
    done = run(clean, tmp_path / "out")
    assert done.mend == 0
    assert done.findings == []
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"report.html", "groups.json"}
    assert json.loads((tmp_path / "out" / "groups.json").read_text())["groups"] == []
    # and again over itself
    assert run(clean, tmp_path / "out").mend == 0


def test_a_list_that_lacks_a_pair_is_told(clean, tmp_path):
    root = shutil.copytree(clean, tmp_path / "study")
    twin = np.asarray(Image.open(root / "benign" / "benign (1).png"))
    mask = np.asarray(Image.open(root / "benign" / "benign (1)_mask.png")) > 0
    write(root / "benign", "benign (4)", twin[:, 40:], mask[:, 40:])
    (tmp_path / "busi_groups.json").write_text('{"groups": [{"images": ["benign (2)", "benign (3)"]}]}')
    done = run(root, tmp_path / "out")
    leak = next(finding for finding in done.findings if finding.severity == "mend")
    assert leak.what == "pairs of near-duplicates are in two groups of the list"
    assert leak.names == ("benign (1), benign (4)",)
    assert "busi_groups.json" in leak.advice


def test_a_set_that_cannot_be_listed_does_not_stop_the_others(clean, datasets, tmp_path):
    shutil.copytree(clean, tmp_path / "data" / "study")
    broken = shutil.copytree(datasets / "BUSBRA", tmp_path / "data" / "BUSBRA")
    (broken / "Masks" / "mask_0003-l.png").unlink()
    done = run(tmp_path / "data", tmp_path / "out")
    assert [dataset["dataset"] for dataset in done.datasets] == ["busi"]
    (finding,) = [finding for finding in done.findings if finding.severity == "mend"]
    assert (finding.dataset, finding.what) == ("BUSBRA", "the dataset could not be listed")
    assert "bus_0003-l" in finding.names[0]
    assert "BUSBRA could not be listed" in (tmp_path / "out" / "report.html").read_text()


def test_one_patient_under_two_numbers_is_told(datasets, tmp_path):
    root = shutil.copytree(datasets / "BUSBRA", tmp_path / "BUSBRA")
    shutil.copy(root / "Images" / "bus_0001-l.png", root / "Images" / "bus_0003-l.png")
    done = run(root, tmp_path / "out")
    found = {finding.what: finding for finding in done.findings}
    told = found["pairs of near-duplicates are in two patients"]
    assert told.names == ("bus_0001-l, bus_0003-l",)
    assert told.severity == "mend"
    assert "there is no normal image; models trained on it alone say nothing of that class" in found


def write_clinic(root, source, numbers, table):
    """A folder of one's own: case1, case2 and so on, each an image of `source`."""
    for folder, suffix in (("images", ""), ("masks", "_mask")):
        (root / folder).mkdir(parents=True)
        for case, number in enumerate(numbers, start=1):
            shutil.copy(source / f"benign ({number}){suffix}.png", root / folder / f"case{case}.png")
    (root / "classes.csv").write_text(table)


@pytest.mark.parametrize(("column", "home"), [("group", "group of the table"), ("patient", "patient")])
@pytest.mark.parametrize("second", ["case1", "case2"])
def test_twins_across_the_groups_of_a_table_are_told(clean, tmp_path, column, home, second):
    table = f"image,class,{column}\ncase1,benign,case1\ncase2,benign,{second}\ncase3,benign,case3\n"
    write_clinic(tmp_path / "clinic", clean / "benign", (1, 1, 1), table)
    # a list says nothing where the table does
    (tmp_path / "clinic" / "groups.json").write_text('{"groups": [{"images": ["case1", "case3"]}]}')
    (told,) = [f for f in run(tmp_path / "clinic", tmp_path / "out").findings if f.severity == "mend"]
    assert told.what == f"pairs of near-duplicates are in two {home.replace(column, column + 's')}"
    apart = {"case1, case3", "case2, case3"} | ({"case1, case2"} if second == "case2" else set())
    assert set(told.names) == apart
    assert told.advice.endswith(f"put both into one {home}")


def test_a_dataset_that_is_being_unpacked_is_not_checked(clean, tmp_path):
    shutil.copytree(clean, tmp_path / "data" / "study")
    (tmp_path / "data" / ".BUSBRA-part").mkdir()
    (tmp_path / "data" / ".BUSBRA-part" / "bus_data.csv").write_text("ID,Case,Pathology\n")
    done = run(tmp_path / "data", tmp_path / "out")
    assert ([dataset["dataset"] for dataset in done.datasets], done.mend) == (["busi"], 0)


def test_a_neighbours_list_is_not_checked_against(clean, tmp_path):
    write_clinic(tmp_path / "clinic", clean / "benign", (1, 1), "image,class\ncase1,benign\ncase2,benign\n")
    (tmp_path / "busi_groups.json").write_text('{"groups": [{"images": ["benign (2)", "benign (3)"]}]}')
    done = run(tmp_path / "clinic", tmp_path / "out")
    # training computes the groups, and keeps the two together
    assert done.mend == 0
    assert done.datasets[0]["near_duplicates"] == [["case1", "case2"]]


def test_a_patient_of_two_classes_is_told(datasets, tmp_path):
    root = shutil.copytree(datasets / "BUSBRA", tmp_path / "BUSBRA")
    table = root / "bus_data.csv"
    table.write_text(table.read_text().replace("bus_0001-l,1,malignant", "bus_0001-l,1,benign"))
    done = run(root, tmp_path / "out")
    told = next(finding for finding in done.findings if "several classes" in finding.what)
    assert told.severity == "heed"
    assert told.names == ("1: bus_0001-l benign, bus_0001-r malignant",)


def test_what_is_refused_writes_nothing(clean, tmp_path):
    with pytest.raises(TrainingError, match="there is no folder"):
        list(check(tmp_path / "gone", tmp_path / "out"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(TrainingError, match="holds neither BUSI"):
        list(check(tmp_path / "empty", tmp_path / "out"))
    with pytest.raises(TrainingError, match="lies in the dataset, which stays as it is; give another --out"):
        list(check(clean, clean / "benign" / "check"))
    (tmp_path / "file").write_text("mine")
    with pytest.raises(TrainingError, match="is a file; give a folder as --out"):
        list(check(clean, tmp_path / "file"))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty", "file"]


def test_files_of_somebody_else_are_not_replaced(clean, tmp_path):
    theirs = tmp_path / "out" / "groups.json"
    theirs.parent.mkdir()
    theirs.write_text('{"source": "an afternoon of mine", "groups": []}')
    with pytest.raises(TrainingError, match=r"groups\.json is none that the check wrote; move it away"):
        list(check(clean, theirs.parent))
    assert "an afternoon of mine" in theirs.read_text()
    assert [path.name for path in theirs.parent.iterdir()] == ["groups.json"]


def test_the_default_folder_is_never_inside_the_dataset(clean, tmp_path, monkeypatch):
    root = shutil.copytree(clean, tmp_path / "study")
    before = sorted(path.relative_to(root) for path in root.rglob("*"))
    monkeypatch.chdir(root)
    done = run(root, None)
    assert done.report == str(tmp_path / "study-check" / "report.html")
    assert sorted(path.relative_to(root) for path in root.rglob("*")) == before


@pytest.mark.parametrize("stop", [1, 3])
def test_a_check_that_is_stopped_leaves_nothing(clean, tmp_path, stop):
    events = check(clean, tmp_path / "out")
    for _ in range(stop):
        next(events)
    events.close()
    assert not (tmp_path / "out").exists()


def test_images_that_two_datasets_share_are_named(clean, tmp_path):
    shutil.copytree(clean, tmp_path / "data" / "study")
    clinic = tmp_path / "data" / "clinic"
    twin = phantom("benign", seed=2, shape=SHAPE)
    write(clinic / "images", "case1", np.ascontiguousarray(twin.image[:, ::-1]))
    other = phantom("benign", seed=40, shape=SHAPE)
    write(clinic / "images", "case2", other.image)
    for name, mask in (("case1", twin.mask[:, ::-1]), ("case2", other.mask)):
        write(clinic / "masks", name, mask.astype(np.uint8) * 255)
    (clinic / "classes.csv").write_text("image,class,patient\ncase1,benign,1\ncase2,benign,2\n")
    done = run(tmp_path / "data", tmp_path / "out")
    (found,) = [finding for finding in done.findings if finding.severity == "mend"]
    assert found.dataset == "clinic and busi"
    assert found.what == "images are near-duplicates of images of the other dataset"
    assert found.names == ("clinic/case1, busi/benign (1) (mirrored)",)
    assert done.mend == 1
