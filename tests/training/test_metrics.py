"""Figures and what is fitted on validation frames."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from sonoloop_training.calibrate import fit_line, fit_temperature, lowest_gate
from sonoloop_training.metrics import Score, dice, summarise


def a_score(**changes: object) -> Score:
    values = {
        "group": "g",
        "dataset": "busi",
        "label": "benign",
        "lesion": True,
        "dice": 0.8,
        "claimed": True,
        "predicted": "benign",
        "malignant": 0.2,
        "expected_dice": 0.7,
    }
    return Score(**(values | changes))


def test_dice_of_empty_masks():
    empty, full = np.zeros((4, 4), bool), np.ones((4, 4), bool)
    assert dice(empty, empty) == 1
    assert dice(empty, full) == dice(full, empty) == 0
    half = full.copy()
    half[:2] = False
    assert dice(half, full) == pytest.approx(2 / 3)


def test_normals_count_as_false_alarms_and_never_in_the_lesion_dice():
    scores = [
        a_score(group="a", dice=0.9),
        a_score(group="b", dice=0.0, label="malignant", malignant=0.9, predicted="malignant"),
        a_score(group="c", label="normal", lesion=False, dice=0.0, claimed=True),
        a_score(group="d", label="normal", lesion=False, dice=1.0, claimed=False, predicted="normal"),
    ]
    summary = summarise(scores)
    assert summary["lesion_dice"]["value"] == pytest.approx(0.45)
    assert summary["missed"]["value"] == 0.5
    assert summary["false_alarms"] == {"value": 0.5, "ci95": [0.0, 1.0], "n": 2}
    assert summary["auc"]["value"] == 1.0
    assert summary["accuracy"]["value"] == 0.75


def test_the_interval_is_over_groups():
    rng = np.random.default_rng(0)
    values = rng.uniform(0, 1, 40)
    apart = [a_score(group=str(i), dice=v) for i, v in enumerate(values)]
    twins = [a_score(group=str(i), dice=v) for i, v in enumerate(values) for _ in range(10)]
    # ten copies of each patient tell no more than one
    one, ten = summarise(apart)["lesion_dice"]["ci95"], summarise(twins)["lesion_dice"]["ci95"]
    assert ten == pytest.approx(one, abs=0.01)


def test_what_cannot_be_said_is_none():
    assert summarise([a_score()])["auc"] is None
    assert summarise([a_score()])["false_alarms"] is None


def test_the_temperature_of_overconfident_logits_is_found():
    torch.manual_seed(0)
    calm = torch.randn(1, 4000, 3)
    truths = torch.distributions.Categorical(logits=calm[0]).sample().numpy()
    assert fit_temperature(calm * 3, truths) == pytest.approx(3, rel=0.15)


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
