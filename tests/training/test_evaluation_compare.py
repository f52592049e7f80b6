"""Two models on the same images, and one model on parts of them."""

from __future__ import annotations

import dataclasses
import importlib
from pathlib import Path

import numpy as np
import pytest
from evaluation_scores import a_score, random_scores

from sonoloop.models.manifest import Manifest, Member
from sonoloop_training.evaluation.summary import (
    EvaluatedModel,
    compare,
    describe_differences,
    mark_hospital,
    stratify,
    summarise,
    write_figure,
)


def test_a_small_steady_gain_is_shown_that_two_intervals_would_hide():
    rng = np.random.default_rng(0)
    one = [a_score(name=str(n), group=str(n), dice=float(d)) for n, d in enumerate(rng.uniform(0.2, 0.9, 60))]
    other = [dataclasses.replace(s, dice=s.dice + float(rng.uniform(0, 0.04))) for s in one]
    apart = [summarise(scores)["lesion_dice"]["ci95"] for scores in (one, other)]
    assert apart[1][0] < apart[0][1]
    found = compare(one, other)["lesion_dice"]
    assert found["value"] == pytest.approx(0.02, abs=0.005)
    assert found["ci95"][0] > 0
    assert found["verdict"] == "better"
    assert compare(other, one)["lesion_dice"]["verdict"] == "worse"


def test_less_is_better_where_it_is():
    one = random_scores(60)
    other = [dataclasses.replace(s, pixels=s.pixels and dataclasses.replace(s.pixels, hd95=1.0)) for s in one]
    found = compare(one, other)["hd95_px"]
    assert found["value"] < 0
    assert found["verdict"] == "better"


def test_the_same_model_twice_shows_no_difference():
    scores = random_scores(80)
    differences = compare(scores, scores)
    assert {found["verdict"] for found in differences.values() if found} == {"no difference shown"}
    assert all(found["value"] == 0 for found in differences.values() if found)
    (told,) = describe_differences("a-1", "b-2", differences)
    assert told.startswith("no difference is shown in Dice, images with a lesion; ")


def test_what_the_truth_alone_decides_is_not_compared():
    scores = random_scores(80)
    assert summarise(scores)["empty_right"]["n"] > 0
    differences = compare(scores, scores)
    assert "empty_right" not in differences
    assert "false_alarms" in differences


def test_rankings_are_compared_where_both_models_claim_a_mask():
    one, other = (
        random_scores(80),
        random_scores(80)[:40]
        + [dataclasses.replace(score, claimed=False) for score in random_scores(80)[40:]],
    )
    both = sum(a.claimed and b.claimed for a, b in zip(one, other, strict=True))
    differences = compare(one, other)
    assert both < 40
    assert (differences["aurc"]["n"], differences["dice_at_80"]["n"]) == (both, both)


def test_differences_are_told_in_words():
    differences = {
        "lesion_dice": {"value": 0.02, "ci95": [0.01, 0.03], "n": 9, "verdict": "better"},
        "auc": {"value": -0.1, "ci95": [-0.2, -0.05], "n": 9, "verdict": "worse"},
        "missed": {"value": 0.0, "ci95": [-0.1, 0.1], "n": 9, "verdict": "no difference shown"},
        "iou": None,
    }
    assert describe_differences("a-1", "b-2", differences) == [
        "b-2 is better than a-1 in Dice, images with a lesion: +0.020 [+0.010, +0.030]",
        "b-2 is worse than a-1 in AUC, malignant against benign: -0.100 [-0.200, -0.050]",
        "no difference is shown in lesions missed (Dice 0)",
    ]


def test_other_images_are_not_compared():
    with pytest.raises(ValueError, match="not of the same images"):
        compare(random_scores(4), random_scores(5))


def test_the_strata_part_the_images():
    scores = random_scores(120)
    strata = stratify(scores)
    assert list(strata) == ["class", "size", "overlay", "scanner", "dataset"]
    assert sum(part["images"] for part in strata["class"].values()) == 120
    assert list(strata["size"]) == ["small", "medium", "large"]
    assert sum(part["images"] for part in strata["size"].values()) == sum(s.lesion for s in scores)
    # two thirds of the overlays and half of the scanners are known
    assert sum(part["images"] for part in strata["overlay"].values()) == 80
    assert {name: part["images"] for name, part in strata["scanner"].items()} == {"GE": 60}
    benign = [s for s in scores if s.label == "benign"]
    assert strata["class"]["benign"]["lesion_dice"] == summarise(benign)["lesion_dice"]


def test_a_hospital_is_known_where_it_had_a_say_in_the_model():
    split = Manifest(
        train=(Member(name="busi/a"), Member(name="3f2a")),
        validation=(Member(name="busbra/b"),),
        test=(Member(name="breast-usg/c"),),
    )
    model = EvaluatedModel(bundle=None, folder=Path(), split=split)
    assert model.hospitals == {"busi", "busbra"}
    marks = [mark_hospital(name, model.hospitals) for name in ("busi", "busbra", "breast-usg")]
    assert marks == ["known", "known", "left out"]
    assert (
        mark_hospital("busi", EvaluatedModel(bundle=None, folder=Path(), split=None).hospitals) == "unknown"
    )


def test_a_lesion_on_a_bound_is_of_the_larger_size():
    sizes = stratify([a_score(area=0.035), a_score(area=0.0349), a_score(area=1.0)])["size"]
    assert {name: part["images"] for name, part in sizes.items()} == {"small": 1, "medium": 1, "large": 1}


def test_what_is_unknown_makes_no_stratum():
    strata = stratify([a_score(scanner="", overlay=None)])
    assert "scanner" not in strata
    assert "overlay" not in strata


@pytest.mark.parametrize(
    ("figure", "words"),
    [
        (None, "-"),
        ({"value": 0.5, "ci95": None}, "0.500"),
        ({"value": 24.19, "ci95": [18.2, 31.38]}, "24.2 [18.2, 31.4]"),
    ],
)
def test_figures_are_written_with_their_interval(figure, words):
    assert write_figure(figure) == words


@pytest.mark.parametrize(
    ("figure", "words"),
    [
        (None, "-"),
        ({"value": 0.5, "ci95": None, "n": 3}, "0.500"),
        ({"value": 0.5, "ci95": [0.25, 0.75], "n": 3}, "0.500 [0.250, 0.750]"),
    ],
)
def test_the_pages_write_a_figure_without_an_interval(figure, words, root, monkeypatch):
    monkeypatch.syspath_prepend(root / "docs")
    assert importlib.import_module("accuracy").cell(figure) == words
