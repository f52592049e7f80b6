"""Copies of images that judge do not train."""

from __future__ import annotations

import csv
import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from sonoloop.errors import TrainingError
from sonoloop.imaging.phantom import phantom
from sonoloop.jobs.events import EpochDone, Notice, Progress, drain
from sonoloop.values import CLASSES
from sonoloop_training.datasets import find_datasets
from sonoloop_training.fit.recipe import Recipe
from sonoloop_training.fit.train import describe_split, list_members, train
from sonoloop_training.leakage import leave_out_copies
from sonoloop_training.splits import PARTS, SplitConfig, apply_split
from sonoloop_training.splits.folds import read_parts

SHAPE = (96, 128)
# splits so that copies of images that test train and validate
KEY = "b"
RECIPE = Recipe(name="tiny", split=SplitConfig(validation=0.25, test=0.25, key=KEY))


def write(path, pixels):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


@pytest.fixture(scope="module")
def busi(tmp_path_factory):
    """Eight phantoms of each class, none a copy of another."""
    root = tmp_path_factory.mktemp("copies") / "BUSI"
    for label in CLASSES:
        for number in range(1, 9):
            made = phantom(label, seed=number, shape=SHAPE)
            write(root / label / f"{label} ({number}).png", made.image)
            write(root / label / f"{label} ({number})_mask.png", made.mask * 255)
    (root / "groups.json").write_text('{"groups": []}')
    return root


def clinic(root, busi, *, brighter=False):
    """Eight of the images once more, each with a second one of its patient."""
    rows = [("image", "class", "patient")]
    for label in CLASSES[1:]:
        for number in range(1, 5):
            (root / "images").mkdir(parents=True, exist_ok=True)
            name = f"{label}{number}"
            source = busi / label / f"{label} ({number}).png"
            if brighter:
                pixels = np.asarray(Image.open(source)).astype(int)[:, ::-1] + 12
                write(root / "images" / f"{name}.png", np.clip(pixels, 0, 255).astype(np.uint8))
            else:
                shutil.copy(source, root / "images" / f"{name}.png")
            write(root / "masks" / f"{name}.png", phantom(label, seed=number, shape=SHAPE).mask * 255)
            other = phantom(label, seed=100 + number, shape=SHAPE)
            write(root / "images" / f"{name}-b.png", other.image)
            write(root / "masks" / f"{name}-b.png", other.mask * 255)
            rows += [(name, label, name), (f"{name}-b", label, name)]
    with (root / "classes.csv").open("w", newline="") as file:
        csv.writer(file).writerows(rows)


def run(data):
    samples = find_datasets(data)
    parts = apply_split(RECIPE.split, samples)
    events = leave_out_copies(RECIPE, parts, drain(list_members(parts)))
    told = []
    while True:
        try:
            told.append(next(events))
        except StopIteration as end:
            listing = describe_split(end.value[0], samples)
            return parts, told, *end.value, listing.get("left_out", [])


def names(parts):
    return {part: {f"{s.dataset}/{s.name}" for s in parts[part]} for part in PARTS}


@pytest.mark.parametrize("brighter", [False, True])
def test_what_judges_in_one_dataset_does_not_train_in_another(busi, tmp_path, brighter):
    shutil.copytree(busi, tmp_path / "BUSI")
    clinic(tmp_path / "clinic", busi, brighter=brighter)
    before, told, parts, members, left_out = run(tmp_path)
    place = {name: part for part, inside in names(before).items() for name in inside}
    after = {name: part for part, inside in names(parts).items() for name in inside}
    twins = {
        f"busi/{label} ({number})": f"clinic/{label}{number}"
        for label in CLASSES[1:]
        for number in range(1, 5)
    }
    apart = [pair for pair in twins.items() if place[pair[0]] != place[pair[1]]]
    assert apart, "the split of this test puts no copy on another side"
    # of each pair in two parts, the one that trains goes, or that validates where the other tests
    for pair in apart:
        goes = min(pair, key=lambda name: PARTS.index(place[name]))
        assert goes in left_out
    assert parts["test"] == before["test"]
    # a patient goes whole
    for name in left_out:
        if name.startswith("clinic/"):
            assert {name.removesuffix("-b"), f"{name.removesuffix('-b')}-b"} <= set(left_out)
    assert sorted(set(place) - set(after)) == left_out
    assert {part: {m.name for m in members[part]} for part in PARTS} == names(parts)
    assert [type(event) for event in told if not isinstance(event, Progress)] == [Notice, Notice]
    train = len(before["train"]) - len(parts["train"])
    kind = "near copy" if brighter else "same image"
    assert told[0].message.startswith(
        f"{train} images do not train, since copies of them, or of others of their groups, judge, such as "
    )
    assert f"({kind}: " in told[0].message
    assert " do not validate, since copies of them" in told[1].message


def test_where_nothing_is_copied_nothing_changes(busi):
    before, told, parts, _, left_out = run(busi)
    assert parts == before
    assert told == []
    assert left_out == []


def test_a_part_of_copies_alone_is_refused(busi):
    parts = apply_split(SplitConfig(validation=0.25, test=0.25), find_datasets(busi))
    members = drain(list_members(parts))
    copies = [
        replace(judge, name=mine.name, group=mine.group)
        for mine, judge in zip(members.train, members.test * 3, strict=False)
    ]
    members = replace(members, train=tuple(copies))
    with pytest.raises(
        TrainingError, match=r"all 12 images that are to train are copies .* remove one of the two datasets"
    ):
        drain(leave_out_copies(RECIPE, parts, members))


def test_a_list_of_the_split_knows_who_was_left_out(busi, tmp_path):
    parts = apply_split(SplitConfig(validation=0.25, test=0.25), find_datasets(busi))
    gone = parts["train"].pop()
    path = tmp_path / "split.json"
    path.write_text(json.dumps(describe_split(parts)))
    with pytest.raises(TrainingError, match=r"is not in split\.json"):
        read_parts(path, find_datasets(busi))
    listing = describe_split(parts, find_datasets(busi))
    assert listing["left_out"] == [f"{gone.dataset}/{gone.name}"]
    path.write_text(json.dumps(listing))
    again = read_parts(path, find_datasets(busi))
    assert names(again) == names(parts)


def begin(recipe, data, out):
    """Train until the first epoch is done, and give the events."""
    events = []
    for event in train(recipe, data, out, device="cpu"):
        events.append(event)
        if isinstance(event, EpochDone):
            return events
    raise AssertionError("it learned nothing")


def test_a_training_leaves_them_out_and_says_so(busi, tmp_path, tiny):
    shutil.copytree(busi, tmp_path / "data" / "BUSI")
    clinic(tmp_path / "data" / "clinic", busi)
    quick = ("epochs=1", "draws=4")
    out = tmp_path / "out"
    events = list(train(tiny(*quick, f"split.key={KEY}"), tmp_path / "data", out, device="cpu"))
    told = [event.message for event in events if isinstance(event, Notice) and "copies" in event.message]
    assert len(told) == 2
    listing = json.loads((out / "split.json").read_text())
    trained = json.loads((out / "bundle" / "split.json").read_text())
    assert [len(trained[part]) for part in PARTS] == [len(listing[part]) for part in PARTS]
    assert len(listing["left_out"]) == 24 + 16 - sum(len(listing[part]) for part in PARTS) > 0
    identities = {part: {member["id"] for member in trained[part]} for part in PARTS}
    for one, other in (("train", "validation"), ("train", "test"), ("validation", "test")):
        assert not identities[one] & identities[other]
    # the list makes the same split again
    again = tiny(*quick, "split.method=file", f"split.file={out / 'split.json'}")
    events = begin(again, tmp_path / "data", tmp_path / "again")
    assert not [event for event in events if isinstance(event, Notice) and "copies" in event.message]
    assert json.loads((tmp_path / "again" / "split.json").read_text()) == listing
    # a split by image leaks on purpose
    leaky = tiny(*quick, "split.method=leaky")
    events = begin(leaky, tmp_path / "data", tmp_path / "leaky")
    assert not [event for event in events if isinstance(event, Notice) and "copies" in event.message]
