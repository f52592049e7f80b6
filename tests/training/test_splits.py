"""Who trains and who judges."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
from split_samples import assert_apart, groups, make_samples, names

from sonoloop.errors import TrainingError
from sonoloop_training.datasets import Sample, find_datasets
from sonoloop_training.splits import PARTS, SplitConfig, apply_split
from sonoloop_training.splits.parts import leave_out, split, split_growing, split_leaky


def test_no_group_is_in_two_parts_and_every_class_in_each(datasets):
    parts = split(find_datasets(datasets), validation=0.25, test=0.25, key="k")
    assert_apart(parts)
    for part in PARTS:
        assert {s.label for s in parts[part]} == {"normal", "benign", "malignant"}


def test_the_split_depends_on_names_and_key_alone(datasets):
    samples = find_datasets(datasets)
    one = split(samples, validation=0.25, test=0.25, key="k")
    again = split(samples[::-1], validation=0.25, test=0.25, key="k")
    other = split(samples, validation=0.25, test=0.25, key="another")
    tested = [{s.name for s in p["test"]} for p in (one, again, other)]
    assert tested[0] == tested[1] != tested[2]
    with pytest.raises(ValueError, match="shares"):
        split(samples, validation=0.6, test=0.6, key="k")


@pytest.mark.parametrize("splitting", [split, split_growing, split_leaky])
def test_an_empty_part_is_named_unless_nothing_was_asked_for_it(splitting):
    few = make_samples(3)[::2]
    with pytest.raises(TrainingError, match=r"leave nothing for (test|validation); give more"):
        splitting(few, validation=0.01, test=0.01, key="k")
    parts = splitting(few, validation=0, test=0, key="k")
    assert [len(parts[part]) for part in PARTS] == [3, 0, 0]
    with pytest.raises(TrainingError, match="leave nothing for train"):
        splitting([], validation=0, test=0, key="k")


def test_data_that_are_added_move_nobody_in_a_split_that_grows():
    few, many = make_samples(100), make_samples(400)
    one = split_growing(few, validation=0.1, test=0.2, key="k")
    more = split_growing(many, validation=0.1, test=0.2, key="k")
    assert_apart(more)
    for part, inside in zip(PARTS, groups(one), strict=True):
        assert inside == {s.group for s in more[part]} & {s.group for s in few}
    # shares hold on average: 400 groups, three standard deviations
    assert abs(len(groups(more)[2]) - 80) < 24
    assert abs(len(groups(more)[1]) - 40) < 18
    closed = split(few, validation=0.1, test=0.2, key="k")
    assert groups(closed)[2] != groups(split(many, validation=0.1, test=0.2, key="k"))[2] & groups(closed)[2]


def test_groups_that_were_computed_grow_only_from_an_earlier_split(tmp_path):
    def computed(name, group):
        return Sample(
            name=name, dataset="own", image=Path(name), masks=(), label="benign", group=group, computed=True
        )

    before = [computed(f"case{n:03}", f"own/case{n:03}") for n in range(100)]
    config = SplitConfig(method="grows", validation=0.1, test=0.2)
    with pytest.raises(TrainingError, match=r"near-duplicates of own are computed, .* could move others"):
        apply_split(config, before)
    first = apply_split(SplitConfig(validation=0.1, test=0.2), before)
    path = tmp_path / "split.json"
    path.write_text(json.dumps(names(first)))
    # a twin that comes first renames each group: by its name it would be dealt anew
    after = [computed(f"a{n:03}", f"own/a{n:03}") for n in range(100)]
    after += [computed(f"case{n:03}", f"own/a{n:03}") for n in range(100)]
    kept = SplitConfig(method="grows", validation=0.1, test=0.2, file=str(path))
    grown = apply_split(kept, [*after, computed("new", "own/new")])
    assert_apart(grown)
    for part in PARTS:
        assert set(names(first)[part]) == {n for n in names(grown)[part] if n.startswith("own/case")}
    assert sum("own/new" in names(grown)[part] for part in PARTS) == 1
    # one that looks like an image that trains and like one that tests
    train, test = first["train"][0].name, first["test"][0].name
    bridged = [computed(s.name, "own/x" if s.name in (train, test) else s.group) for s in before]
    with pytest.raises(TrainingError, match=r"group own/x joins .* in two parts; .* them: own/bridge"):
        apply_split(kept, [*bridged, computed("bridge", "own/x")])


def test_the_leaky_split_leaks():
    parts = split_leaky(make_samples(), validation=0.1, test=0.2, key="k")
    train, _, test = groups(parts)
    assert [len(parts[part]) for part in PARTS] == [84, 12, 24]
    assert len(test & train) > 12


def test_one_scanner_is_left_out(caplog):
    samples = make_samples(scanners=("A", "B", "A", "A"))
    both = Sample(
        name="0-c", dataset="own", image=Path("x"), masks=(), label="normal", group="own/0", scanner="B"
    )
    parts = leave_out([*samples, both], scanner="B", validation=0.1)
    assert_apart(parts)
    assert {s.scanner for s in parts["test"]} == {"B"}
    assert len(parts["test"]) == 31
    assert {s.scanner for part in PARTS[:2] for s in parts[part]} == {"A"}
    # the patient on both sides is named, and trains nowhere
    assert "own/0" not in {s.group for part in PARTS[:2] for s in parts[part]}
    assert "dropped from training, for they are in the test too: own/0" in caplog.text
    with pytest.raises(TrainingError, match="no image is of the scanner 'C'; there are: A, B"):
        leave_out(samples, scanner="C", validation=0.1)
    with pytest.raises(TrainingError, match="leave nothing for train"):
        leave_out([s for s in samples if s.scanner == "B"], scanner="B", validation=0.1)


def test_one_dataset_is_left_out():
    samples = make_samples() + make_samples(30, dataset="other")
    parts = apply_split(SplitConfig(method="leave-dataset", left_out="other"), samples)
    assert_apart(parts)
    assert {s.dataset for s in parts["test"]} == {"other"}
    assert len(parts["test"]) == 60
    with pytest.raises(TrainingError, match="no image is of the dataset 'third'; there are: other, own"):
        leave_out(samples, dataset="third", validation=0.1)
    with pytest.raises(ValueError, match="either a scanner or a dataset"):
        leave_out(samples, validation=0.1)


def test_several_datasets_are_left_out_by_name_in_any_case():
    samples = [s for name in ("own", "other", "a, b") for s in make_samples(30, dataset=name)]
    for text, left_out in (("OTHER, own", {"other", "own"}), ("a, b", {"a, b"})):
        parts = apply_split(SplitConfig(method="leave-dataset", left_out=text), samples)
        assert_apart(parts)
        assert {s.dataset for s in parts["test"]} == left_out
    with pytest.raises(TrainingError, match="no image is of the dataset 'gone'; there are: a, b, other, own"):
        leave_out(samples, dataset="own, gone", validation=0.1)


def test_the_recipes_table_keeps_its_defaults_and_names_what_is_wrong():
    config = SplitConfig()
    assert (config.method, config.validation, config.test, config.key) == ("hashed", 0.08, 0.1, "sonoloop")
    samples = make_samples(300)
    assert names(apply_split(config, samples)) == names(
        split(samples, validation=0.08, test=0.1, key="sonoloop")
    )
    for method in ("grows", "leaky", "folds"):
        other = apply_split(SplitConfig(method=method), samples)
        assert names(other) != names(apply_split(config, samples))
    for wrong, message in (
        ({"method": "random"}, "method must be one of hashed, folds, .*, got 'random'"),
        ({"validation": 1.0}, "shares must be in"),
        ({"folds": 1}, "folds must be at least 2, got 1"),
        ({"fold": -1}, "fold must not be negative, got -1"),
        ({"method": "leave-scanner"}, "leave-scanner needs left_out: which scanner"),
    ):
        with pytest.raises(ValueError, match=message):
            SplitConfig(**wrong)


@pytest.mark.data
def test_the_split_of_the_real_sets_stays_as_trained_models_know_it(data):
    # the sets that they were made of: others may lie beside them
    own = [sample for sample in find_datasets(data) if sample.dataset in ("busi", "busbra")]
    parts = apply_split(SplitConfig(), own)
    assert [len(parts[part]) for part in PARTS] == [1653, 160, 193]
    digest = hashlib.sha256(json.dumps(names(parts), sort_keys=True).encode()).hexdigest()
    # split_sha256 in the card of the first default model
    assert digest == "5b0ea967d8e4b676a6506725354910c36da2893ecfc45a02d1ed71a8cddb4de7"
    for fold in (1, 5):
        folded = apply_split(SplitConfig(method="folds", fold=fold), own)
        assert_apart(folded)
        assert abs(len(folded["test"]) - 2006 / 5) < 4
