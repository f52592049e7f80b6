"""Which numbers are fitted anew on a project's own frames, on answers that are known."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from sonoloop.errors import TrainingError
from sonoloop_training.fit.calibration import MIN_AREAS, THRESHOLDS, Answers, Numbers, fit_temperature
from sonoloop_training.recalibration.refit import deal, refit

BEFORE = Numbers(threshold=0.5, min_area=0.001, normal_gate=0.9, temperature=1.0)
NORMAL, BENIGN, MALIGNANT = 0, 1, 2
NAMES = ("temperature", "normal_gate", "threshold", "min_area")


def answers(lesions: int = 40, normals: int = 12, *, sure: float = 6.0, best: float = 0.3) -> Answers:
    """A model that is too sure of its class, wrong of every fifth frame, and draws best at one threshold."""
    count = lesions + normals
    truth = np.array([BENIGN + n % 2 for n in range(lesions)] + [NORMAL] * normals)
    said = np.where(np.arange(count) % 5 == 0, np.where(truth == BENIGN, MALIGNANT, BENIGN), truth)
    lesion = truth != NORMAL
    by_threshold = 0.8 - np.abs(np.array(THRESHOLDS) - best)
    dice = np.broadcast_to(by_threshold[None, :, None], (count, len(THRESHOLDS), len(MIN_AREAS))).copy()
    dice[~lesion] = 0.0  # a mask in every normal
    return Answers(
        # surer of normals
        logits=(np.eye(3)[said] * sure * np.where(lesion, 1.0, 1.5)[:, None])[None].repeat(2, 0),
        dice=dice,
        claimed=np.ones(dice.shape, np.bool_),
        thresholds=THRESHOLDS,
        min_areas=MIN_AREAS,
        truth=truth,
        lesion=lesion,
        groups=np.array([f"g{n}" for n in range(count)]),
    )


def left(found) -> dict[str, str]:
    return {one.name: one.left for one in found.told if one.left}


def test_what_does_better_out_of_fold_is_fitted_anew():
    found = refit(answers(), BEFORE)
    # right of four in five, whatever it says
    assert found.numbers.temperature > 1.2
    assert found.numbers.threshold == 0.3
    figures = {one.name: one for one in found.figures}
    assert figures["lesion_dice"].difference == pytest.approx(0.2)
    assert figures["ece"].after < figures["ece"].before
    assert figures["lesion_dice"].frames == 40
    # the gate goes with the temperature: normals that are less sure now are cleared all the same
    assert found.numbers.normal_gate < BEFORE.normal_gate
    assert figures["false_alarms"].after == figures["false_alarms"].before
    assert figures["missed"].after == 0
    assert found.changes


def test_a_temperature_goes_by_the_classes_that_a_model_knows():
    known = answers(normals=0)
    logits = np.concatenate([known.logits, np.zeros((2, 12, 3))], axis=1)
    # one of a user's own that knows no normals
    logits[..., NORMAL] = -100
    both = replace(answers(), logits=logits)
    assert fit_temperature([both]) == fit_temperature([both.select(both.truth != NORMAL)])


def test_a_temperature_that_costs_normals_a_mask_is_left_by_name():
    some = answers()
    some.logits[:, ~some.lesion] /= 1.5  # no surer than of the others: the gate would not clear them any more
    found = refit(some, BEFORE)
    assert found.numbers.temperature == 1.0
    assert left(found)["temperature"].startswith("it would draw a mask in")


def test_groups_are_dealt_whole_and_every_kind_into_every_fold():
    some = answers()
    pairs = np.repeat([f"g{n}" for n in range(26)], 2)
    folds = deal(Answers(**{name: getattr(some, name) for name in some.__slots__} | {"groups": pairs}))
    assert all(len(set(folds[pairs == group])) == 1 for group in pairs)
    kinds = {place: set(folds[some.truth == place]) for place in (NORMAL, BENIGN, MALIGNANT)}
    assert all(len(found) == 5 for found in kinds.values())
    assert (deal(some) == deal(some)).all()


def test_a_fit_that_would_miss_a_lesion_more_is_left_by_name():
    some = answers(best=0.6)
    # one malignant lesion is drawn below the old threshold alone
    some.dice[1, 5:] = 0
    found = refit(some, BEFORE)
    assert found.numbers.threshold == BEFORE.threshold
    assert left(found)["threshold"] == "it would miss 1 more malignant lesion"


def test_a_gate_that_a_found_lesion_would_reach_is_not_lowered():
    some = answers()
    some.logits[:, 4] = (2.0, 0.0, 0.0)  # a lesion that is called normal, and found
    assert refit(some, BEFORE).figures[1].after == 0
    some.logits[:, 4] = (9.0, 0.0, 0.0)  # the old gate loses it: that cannot become worse
    found = refit(some, BEFORE)
    missed = {one.name: one for one in found.figures}["missed"]
    assert missed.after <= missed.before == pytest.approx(1 / 40)


@pytest.mark.parametrize(
    ("some", "names", "why"),
    [
        (answers(normals=0), {"normal_gate"}, "0 groups without a lesion, it takes 5"),
        (
            answers(lesions=12, normals=30),
            {"normal_gate", "threshold", "min_area"},
            "12 groups with a lesion",
        ),
        (answers(lesions=0, normals=30), None, "no two classes"),
        (answers(lesions=8, normals=4), None, "12 groups whose class is known, it takes 20"),
        (answers(sure=0.0), {"temperature", "normal_gate"}, "the model says the same of all frames"),
    ],
    ids=["no normals", "few lesions", "one class", "few frames", "constant classes"],
)
def test_what_too_little_is_there_for_is_left_or_refused_by_name(some, names, why):
    if names is None:
        with pytest.raises(TrainingError, match=why):
            refit(some, BEFORE)
        return
    found = refit(some, BEFORE)
    assert names <= left(found).keys()
    assert any(why in text for text in left(found).values())
    for name in names:
        assert getattr(found.numbers, name) == getattr(BEFORE, name)


def test_a_model_that_draws_nothing_keeps_its_threshold():
    some = answers()
    some.dice[some.lesion] = 0
    some.claimed[:] = False
    found = refit(some, BEFORE)
    assert left(found)["threshold"] == "every threshold gives the same masks"


def test_a_frame_whose_class_nobody_knows_fits_no_temperature():
    some = answers()
    some.truth[:] = -1
    assert left(refit(some, BEFORE))["temperature"] == "0 groups whose class is known, it takes 20"


def test_what_is_right_already_stays():
    found = refit(answers(), refit(answers(), BEFORE).numbers)
    assert not found.changes
    assert {one.left for one in found.told} == {"no better out of fold"}
