"""The main figures, and what is fitted on validation frames."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from evaluation_scores import a_score

from sonoloop_training.evaluation.scores import LesionCounts, confusion
from sonoloop_training.evaluation.summary import summarise
from sonoloop_training.fit.calibration import Answers, fit_line, fit_temperature, lowest_gate


def test_normals_count_as_false_alarms_and_never_in_the_lesion_dice():
    wrong = LesionCounts(lesions=0, found=0, false_positives=2)
    none = LesionCounts(lesions=0, found=0, false_positives=0)
    normal = {"label": "normal", "lesion": False, "pixels": None}
    scores = [
        a_score(group="a", dice=0.9),
        a_score(group="b", dice=0.0, label="malignant", probabilities=(0, 0.1, 0.9), predicted="malignant"),
        a_score(group="c", **normal, dice=0.0, counts=wrong),
        a_score(group="d", **normal, dice=1.0, claimed=False, predicted="normal", counts=none),
    ]
    summary = summarise(scores)
    assert (summary["images"], summary["groups"]) == (4, 4)
    assert summary["lesion_dice"]["value"] == pytest.approx(0.45)
    assert summary["missed"]["value"] == 0.5
    assert summary["false_alarms"] == {"value": 0.5, "ci95": [0.0, 1.0], "n": 2}
    assert summary["false_positives_per_image"]["value"] == 0.5
    assert summary["empty_right"] == {"value": 1.0, "ci95": None, "n": 1}
    assert summary["auc"]["value"] == 1.0
    assert summary["accuracy"]["value"] == 0.75
    # 1 of 1 benign, 1 of 1 malignant, 1 of 2 normals
    assert summary["balanced_accuracy"]["value"] == pytest.approx(5 / 6, abs=1e-4)
    assert confusion(scores)["normal"] == {"normal": 1, "benign": 1, "malignant": 0}


def test_the_interval_is_over_groups():
    rng = np.random.default_rng(0)
    values = rng.uniform(0, 1, 40)
    apart = [a_score(group=str(i), dice=v) for i, v in enumerate(values)]
    twins = [a_score(group=str(i), dice=v) for i, v in enumerate(values) for _ in range(10)]
    # ten copies of each patient tell no more than one
    one, ten = summarise(apart)["lesion_dice"]["ci95"], summarise(twins)["lesion_dice"]["ci95"]
    assert ten == pytest.approx(one, abs=0.01)
    assert one[1] - one[0] == pytest.approx(2 * 1.96 * values.std() / np.sqrt(40), rel=0.1)


def test_what_cannot_be_said_is_none():
    summary = summarise([a_score()])
    assert summary["auc"] is None
    assert summary["false_alarms"] is None
    assert summary["hd95_mm"] is None
    assert summary["specificity_at_95_sensitivity"] is None
    # one group says nothing of how another would fare
    assert summary["lesion_dice"] == {"value": 0.8, "ci95": None, "n": 1}


def test_no_images_give_no_figures():
    summary = summarise([])
    assert summary["images"] == 0
    assert {value for key, value in summary.items() if key not in ("images", "groups")} == {None}


def test_a_model_of_one_head_has_the_figures_of_that_head():
    assert "auc" not in summarise([a_score()], heads=("lesion",))
    assert "ece_if_perfect" not in summarise([a_score()], heads=("lesion",))
    assert "lesion_dice" not in summarise([a_score()], heads=("classes",))


def test_the_temperature_of_overconfident_logits_is_found():
    torch.manual_seed(0)
    calm = torch.randn(1, 4000, 3)
    truths = torch.distributions.Categorical(logits=calm[0]).sample().numpy()
    answers = Answers(
        logits=(calm * 3).numpy(),
        dice=np.zeros((4000, 1, 1)),
        claimed=np.zeros((4000, 1, 1), np.bool_),
        thresholds=(0.5,),
        min_areas=(0.0,),
        truth=truths,
        lesion=np.ones(4000, np.bool_),
        groups=np.arange(4000).astype(np.str_),
    )
    assert fit_temperature([answers]) == pytest.approx(3, rel=0.15)


def test_the_gate_is_the_lowest_that_spares_the_lesions():
    normal = np.array([0.1] * 198 + [0.72, 0.95])
    assert lowest_gate(normal, 0.005) == pytest.approx(0.73)
    assert lowest_gate(normal, 0.0) == pytest.approx(0.96)
    assert lowest_gate(np.array([0.1, 0.2]), 0.005) == 0.5


def test_the_line_rises_and_follows_the_data():
    rng = np.random.default_rng(1)
    x = rng.uniform(0, 1, 400)
    line = fit_line(np.stack([x, (x**2 + rng.normal(0, 0.05, 400)).clip(0, 1)], axis=1))
    assert line["y"] == sorted(line["y"])
    assert np.interp(0.7, line["x"], line["y"]) == pytest.approx(0.49, abs=0.06)
