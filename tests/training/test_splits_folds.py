"""Folds, made and read, and parts as a file lists them."""

from __future__ import annotations

import csv
import json
from collections import Counter
from pathlib import Path

import pytest
from split_samples import CLASSES, assert_apart, groups, make_samples, names

from sonoloop.errors import TrainingError
from sonoloop_training.datasets import Sample
from sonoloop_training.splits import PARTS, SplitConfig, apply_split, describe_folds, write_folds
from sonoloop_training.splits.folds import (
    make_folds,
    published_folds,
    read_folds,
    read_parts,
    split_by_fold,
)
from sonoloop_training.splits.parts import split


def test_folds_share_out_every_class_and_every_size():
    sizes = {number: 1 + number % 4 for number in range(90)}
    samples = [
        Sample(
            name=f"{n}-{i}", dataset="own", image=Path("x"), masks=(), label=CLASSES[n % 3], group=f"own/{n}"
        )
        for n, size in sizes.items()
        for i in range(size)
    ]
    folds = make_folds(samples, folds=5, key="k")
    assert folds == make_folds(samples[::-1], folds=5, key="k")
    assert folds != make_folds(samples, folds=5, key="another")
    assert len(folds) == 90
    for label in CLASSES:
        images = Counter(folds[s.group] for s in samples if s.label == label)
        assert sorted(images) == [1, 2, 3, 4, 5]
        assert max(images.values()) - min(images.values()) <= 1


def test_too_few_groups_for_the_folds_are_named():
    with pytest.raises(TrainingError, match="3 groups are benign, too few for 5 folds"):
        make_folds(make_samples(9), folds=5)
    with pytest.raises(ValueError, match="folds must be at least 2, got 1"):
        make_folds(make_samples(9), folds=1)


def test_each_fold_is_tested_once():
    samples = make_samples()
    folds = make_folds(samples)
    tested = []
    for fold in range(1, 6):
        parts = split_by_fold(samples, folds, test=fold, validation=0.1)
        assert_apart(parts)
        # 48 groups are left, 16 a class: a tenth of each is two
        assert len(groups(parts)[1]) == 6
        tested += [s.name for s in parts["test"]]
    assert sorted(tested) == sorted(s.name for s in samples)
    with pytest.raises(TrainingError, match="there is no fold 6; there are 1, 2, 3, 4, 5"):
        split_by_fold(samples, folds, test=6, validation=0.1)
    with pytest.raises(TrainingError, match="group own/60 has no fold"):
        split_by_fold(make_samples(61), folds, test=1, validation=0.1)


def test_folds_are_written_and_read_again(tmp_path):
    samples = make_samples()
    folds = make_folds(samples)
    write_folds(tmp_path / "folds.json", folds)
    assert read_folds(tmp_path / "folds.json", samples) == folds
    assert [p.name for p in tmp_path.iterdir()] == ["folds.json"]
    with pytest.raises(TrainingError, match=r"own/60-a is not in folds\.json"):
        read_folds(tmp_path / "folds.json", make_samples(61))
    with pytest.raises(TrainingError, match="cannot be written"):
        write_folds(tmp_path / "no" / "folds.json", folds)


def test_the_folds_of_a_split_are_kept_and_split_the_same_again(tmp_path):
    samples = make_samples()
    made = SplitConfig(method="folds", fold=2, folds=4, key="k")
    folds = describe_folds(made, samples)
    assert folds == make_folds(samples, folds=4, key="k")
    write_folds(tmp_path / "folds.json", folds)
    again = SplitConfig(method="file", file=str(tmp_path / "folds.json"), fold=2, key="k")
    assert describe_folds(again, samples) == folds
    parts = apply_split(made, samples)
    assert names(apply_split(again, samples)) == names(parts)
    assert groups(parts)[2] == {group for group, fold in folds.items() if fold == 2}


def test_a_split_without_folds_has_none_to_keep(tmp_path):
    samples = make_samples(facts=lambda number: {"5-fold": str(number % 5 + 1)})
    for config in (
        SplitConfig(),
        SplitConfig(method="grows"),
        SplitConfig(method="leaky"),
        SplitConfig(method="leave-scanner", left_out="A"),
    ):
        assert describe_folds(config, samples) is None
    path = tmp_path / "split.json"
    path.write_text(json.dumps(names(split(samples, validation=0.1, test=0.2, key="k"))))
    assert describe_folds(SplitConfig(method="file", file=str(path)), samples) is None
    assert describe_folds(SplitConfig(method="file"), samples) == published_folds(samples)


def write_csv(path, rows):
    with path.open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    return path


@pytest.mark.parametrize("who", ["group", "short group", "name", "full name", "file", "BUS-BRA"])
def test_folds_are_read_from_a_users_csv(tmp_path, who):
    samples = make_samples()
    folds = make_folds(samples)
    columns = {
        "group": ("group", lambda s: s.group),
        "short group": ("Group", lambda s: s.group.removeprefix("own/")),
        "name": ("name", lambda s: s.name),
        "full name": ("name", lambda s: f"own/{s.name}"),
        "file": ("image", lambda s: f"{s.name}.png"),
        "BUS-BRA": ("ID", lambda s: s.name),
    }
    head, get = columns[who]
    rows = [[head, "kFold" if who == "BUS-BRA" else "fold"], *([get(s), folds[s.group]] for s in samples)]
    # rows about images that are not here are passed over
    path = write_csv(tmp_path / "my.csv", [*rows, ["elsewhere", 1]])
    assert read_folds(path, samples) == folds


def test_an_image_that_is_called_like_a_group_keeps_its_own_fold(tmp_path):
    samples = [
        Sample(name=name, dataset="own", image=Path(name), masks=(), label="benign", group=group)
        for name, group in (("1", "own/2"), ("2", "own/1"))
    ]
    write_folds(tmp_path / "folds.json", {"own/1": 1, "own/2": 2})
    for path in (tmp_path / "folds.json", write_csv(tmp_path / "a.csv", [["group", "fold"], [1, 1], [2, 2]])):
        assert read_folds(path, samples) == {"own/1": 1, "own/2": 2}
    path = write_csv(tmp_path / "b.csv", [["name", "fold"], [1, 1], [2, 2]])
    assert read_folds(path, samples) == {"own/2": 1, "own/1": 2}


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (
            [["name", "part"], ["0-a", "test"]],
            "needs a column group or name or image or id and a column fold or",
        ),
        ([["name", "fold"], ["0-a", 1], ["0-b", 2]], "group own/0 is in the folds 1 and 2 of my.csv"),
        ([["name", "fold"], ["0-a", 1], ["0-a", 2]], "has 1 and 2 for own/0-a; keep one"),
        ([["name", "fold"], ["0-a", "one"]], "own/0-a has the fold 'one' in my.csv"),
        ([["name", "fold"], ["0-a", 1]], "own/0-b is not in my.csv"),
    ],
)
def test_wrong_folds_are_named(tmp_path, rows, message):
    with pytest.raises(TrainingError, match=message):
        read_folds(write_csv(tmp_path / "my.csv", rows), make_samples(1))


def test_a_name_of_two_datasets_needs_the_dataset(tmp_path):
    samples = make_samples(1) + make_samples(1, dataset="other")
    path = write_csv(tmp_path / "my.csv", [["name", "fold"], ["0-a", 1]])
    with pytest.raises(TrainingError, match="0-a, which is in two datasets; write dataset/0-a"):
        read_folds(path, samples)


def test_published_folds_are_taken_from_the_dataset():
    samples = make_samples(
        facts=lambda number: {"5-fold": str(number % 5 + 1), "10-fold": str(number % 10 + 1)}
    )
    assert published_folds(samples)["own/7"] == 3
    assert published_folds(samples, folds=10)["own/7"] == 8
    parts = apply_split(SplitConfig(method="file", fold=3, folds=10), samples)
    assert groups(parts)[2] == {f"own/{number}" for number in range(2, 60, 10)}
    with pytest.raises(TrainingError, match="other/0-a is not in the published 5-fold list; only BUS-BRA"):
        published_folds(samples + make_samples(1, dataset="other"))


def test_who_was_where_is_taken_from_an_earlier_training(tmp_path):
    samples = make_samples()
    parts = split(samples, validation=0.1, test=0.2, key="k")
    path = tmp_path / "split.json"
    told = {
        part: [{"name": name, "group": "not read"} for name in inside]
        for part, inside in names(parts).items()
    }
    for listing in (told, names(parts)):
        path.write_text(json.dumps(listing))
        assert names(read_parts(path, samples)) == names(parts)
    rows = [[s.group, part] for part in PARTS for s in parts[part]]
    listed = write_csv(tmp_path / "split.csv", [["group", "part"], *rows])
    for file in (path, listed):
        again = apply_split(SplitConfig(method="file", file=str(file)), samples)
        assert names(again) == names(parts)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[]", "lists no folds and no parts"),
        ("{", "cannot be read as JSON"),
        ('{"train": ["own/0-a"]}', "has no list 'validation'"),
        (
            '{"train": ["own/0-a"], "validation": ["own/0-a"], "test": []}',
            "own/0-a in train and in validation",
        ),
        ('{"train": ["own/0-a"], "validation": [], "test": []}', r"own/0-b is not in split\.json"),
        (
            '{"train": ["own/0-a"], "validation": ["own/1-a", "own/1-b"], "test": ["own/0-b"]}',
            "group own/0 is in train and in test; put own/0-b where the rest",
        ),
        (
            '{"train": ["own/0-a", "own/0-b"], "validation": ["own/1-a", "own/1-b"], "test": []}',
            "leave nothing for test",
        ),
    ],
)
def test_a_wrong_file_of_parts_is_named(tmp_path, content, message):
    path = tmp_path / "split.json"
    path.write_text(content)
    with pytest.raises(TrainingError, match=message):
        apply_split(SplitConfig(method="file", file=str(path)), make_samples(2))
