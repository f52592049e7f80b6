"""The gate's decision, on outcomes without models."""

from __future__ import annotations

import numpy as np
import pytest
from gate_samples import alarmed, changed, outcomes

from sonoloop_training.gate.decision import Margins, decide


def noisy(count: int, shift: float, *, seed: int = 0, spread: float = 0.1) -> list[float]:
    return list(0.7 + shift + np.random.default_rng(seed).normal(0, spread, count))


def test_a_candidate_that_is_clearly_better_is_promoted():
    found = decide(outcomes(60, dice=noisy(60, 0.1), normals=20), outcomes(60, normals=20))
    assert found.verdict == "promote"
    assert found.interval[0] > 0
    assert (found.groups, found.frames, found.judged) == (60, 60, 80)
    assert found.groups_needed is None
    assert found.reason.startswith(f"Better: mean Dice {found.difference:+.3f} [")
    assert "on 60 frames with a lesion from 60 groups" in found.reason


def test_a_candidate_that_is_clearly_worse_is_refused():
    found = decide(outcomes(60), outcomes(60, dice=noisy(60, 0.1)))
    assert found.verdict == "refuse"
    assert found.interval[1] < 0
    assert found.reason.startswith("Worse: mean Dice -0.")


def test_a_difference_within_its_interval_is_inconclusive_and_says_how_many_more_would_tell():
    found = decide(outcomes(40, dice=noisy(40, 0.02)), outcomes(40))
    assert found.verdict == "inconclusive"
    assert found.interval[0] < 0 < found.interval[1]
    assert 100 < found.groups_needed < 1000
    rounded = round(found.groups_needed, -1)
    assert f"About {rounded} more test groups with a lesion would tell" in found.reason


def test_the_groups_that_are_asked_for_do_tell():
    shares = np.array(noisy(40, 0.0, spread=0.2)) - 0.7
    shares += 0.04 - shares.mean()
    found = decide(outcomes(40, dice=0.7 + shares), outcomes(40))
    assert found.verdict == "inconclusive"
    more = found.groups_needed
    assert 50 < more < 300
    rng, told = np.random.default_rng(1), 0
    for _ in range(100):
        drawn = 0.7 + rng.choice(shares, 40 + more)
        told += decide(outcomes(40 + more, dice=drawn), outcomes(40 + more)).verdict == "promote"
    assert 65 <= told <= 95  # four in five


def test_a_difference_that_nobody_could_find_is_called_so():
    found = decide(outcomes(40, dice=noisy(40, 0.0, seed=3)), outcomes(40, dice=noisy(40, 0.0005, seed=4)))
    assert found.verdict == "inconclusive"
    assert found.groups_needed > 1000
    assert "No difference to be found: it would take" in found.reason


def test_two_models_that_do_the_same_are_inconclusive():
    found = decide(outcomes(40, normals=5), outcomes(40, normals=5))
    assert found.verdict == "inconclusive"
    assert found.difference == 0
    assert found.groups_needed is None
    assert "The two do the same." in found.reason


@pytest.mark.parametrize("count", [2, 9])
def test_few_groups_promote_nothing(count):
    found = decide(outcomes(count, dice=0.95), outcomes(count, dice=0.05))
    assert found.verdict == "inconclusive"
    assert found.groups_needed >= 10 - count
    assert "At least 10 groups with a lesion have to judge" in found.reason


def test_groups_count_and_not_frames():
    # the same 120 differences: of 60 patients they are proof, of 6 they are not
    new, old = noisy(120, 0.05, spread=0.05), 0.7
    assert decide(outcomes(120, dice=new, members=2), outcomes(120, dice=old, members=2)).verdict == "promote"
    few = decide(outcomes(120, dice=new, members=20), outcomes(120, dice=old, members=20))
    assert (few.verdict, few.groups) == ("inconclusive", 6)


def test_a_patient_with_many_frames_does_not_carry_the_rest():
    # one patient gains much on 80 frames, eleven others lose a little
    new = outcomes(91, dice=[0.9] * 80 + [0.65] * 11, members=1)
    old = outcomes(91, dice=[0.5] * 80 + [0.7] * 11)
    one = [f"g{max(number - 79, 0)}" for number in range(91)]
    new, old = (
        [changed([frame], [0], group=group)[0] for frame, group in zip(frames, one, strict=True)]
        for frames in (new, old)
    )
    found = decide(new, old)
    assert found.groups == 12
    assert found.difference > 0.3
    assert found.verdict == "inconclusive"


def test_no_frame_with_a_lesion_is_nothing_to_go_by():
    for frames in ([], outcomes(0, normals=5)):
        found = decide(frames, frames)
        assert (found.verdict, found.difference, found.interval) == ("inconclusive", None, None)
        assert found.groups_needed == 10
        assert found.reason.startswith("Nothing to go by")


def test_newly_missed_malignant_lesions_refuse_a_candidate_with_better_dice():
    better = outcomes(90, dice=noisy(90, 0.2, spread=0.05))
    found = decide(changed(better, range(7), dice=0.0, claimed=False), outcomes(90))
    assert found.interval[0] > 0
    assert found.missed_malignant.state == "worse"
    assert found.verdict == "refuse"
    assert "missed malignant lesions, 7 of 30, before 0 (+0.233, margin 0.05)" in found.reason


def test_missed_benign_lesions_are_no_missed_malignant_ones():
    better = outcomes(90, dice=noisy(90, 0.2, spread=0.05))
    found = decide(changed(better, range(60, 65), dice=0.0, claimed=False), outcomes(90))
    assert found.missed_malignant.difference == 0
    assert found.verdict == "promote"


def test_one_of_three_normals_stops_a_promotion_and_does_not_refuse():
    better, old = outcomes(60, dice=noisy(60, 0.1), normals=3), outcomes(60, normals=3)
    found = decide(alarmed(better, 1), old)
    assert found.verdict == "inconclusive"
    assert found.false_alarms.state == "open"
    assert "which may be chance: false alarms on normals, 1 of 3, before 0 (+0.333" in found.reason
    assert found.groups_needed == found.false_alarms.needed
    assert f"About {found.groups_needed} more test groups with a frame without a lesion" in found.reason
    assert "holds zero" not in found.reason


def test_many_false_alarms_refuse():
    better, old = outcomes(60, dice=noisy(60, 0.1), normals=30), outcomes(60, normals=30)
    found = decide(alarmed(better, 9), old)
    assert (found.verdict, found.false_alarms.state) == ("refuse", "worse")


def test_a_figure_may_be_worse_by_its_margin_and_no_more():
    better, old = outcomes(60, dice=noisy(60, 0.1), normals=40), outcomes(60, normals=40)
    assert decide(alarmed(better, 2), old).verdict == "promote"
    assert decide(alarmed(better, 3), old).verdict == "inconclusive"
    assert decide(alarmed(better, 3), old, Margins(false_alarms=0.08)).verdict == "promote"
    assert decide(alarmed(better, 1), old, Margins(false_alarms=0.0)).verdict == "inconclusive"


def test_exchanged_classes_refuse_whatever_the_dice():
    better = outcomes(60, dice=noisy(60, 0.2, spread=0.05))
    flipped = [changed([one], [0], malignant=1 - one.malignant)[0] for one in better]
    found = decide(flipped, outcomes(60))
    assert found.verdict == "refuse"
    assert "AUC 0.000, before 1.000 (-1.000, margin 0.02)" in found.reason


def test_a_better_auc_and_fewer_misses_are_no_fault():
    new, old = outcomes(60, dice=noisy(60, 0.1), normals=20), outcomes(60, normals=20)
    worse = changed(alarmed(old, 5), range(10), malignant=0.05)
    found = decide(new, worse)
    assert found.verdict == "promote"
    assert found.auc.difference > 0.1
    assert found.false_alarms.difference == -0.25


def test_what_cannot_be_compared_is_told_and_does_not_stop_a_promotion():
    found = decide(outcomes(60, dice=noisy(60, 0.1), malignant=0), outcomes(60, malignant=0))
    assert found.verdict == "promote"
    sides = (found.missed_malignant, found.false_alarms, found.auc)
    assert [side.state for side in sides] == ["unknown"] * 3
    assert "No frame without a lesion judges, so false alarms were not compared." in found.reason
    assert "No malignant lesion judges" in found.reason
    assert "AUC was not compared" in found.reason


def test_an_unsure_frame_judges_the_mask_and_no_class():
    new = changed(outcomes(60, dice=noisy(60, 0.1)), range(60), label="unsure")
    found = decide(new, changed(outcomes(60), range(60), label="unsure"))
    assert (found.verdict, found.frames) == ("promote", 60)
    assert found.auc.state == "unknown"


def test_other_frames_or_another_truth_are_no_pairs():
    frames = outcomes(12)
    for other in (frames[1:], frames[::-1], changed(frames, [0], lesion=False)):
        with pytest.raises(ValueError, match="not of the same frames"):
            decide(frames, other)
