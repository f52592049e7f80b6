"""What a snapshot teaches: roles, weights of each head, contradictions, and what validates."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime

import numpy as np
import pytest

from sonoloop.errors import TrainingError
from sonoloop.store.revisions import Revision
from sonoloop.store.snapshots import Entry
from sonoloop.values import Correction, Prediction
from sonoloop_training.finetune.learn import count_to_calibrate
from sonoloop_training.finetune.samples import GROUPS_TO_VALIDATE, check_classes, check_enough, select
from sonoloop_training.fit.recipe import FitConfig
from sonoloop_training.splits import SplitConfig

CONFIG = FitConfig(accepted_weight=0.5)
SPLIT = SplitConfig(validation=0.15)
LESION = np.zeros((8, 8), np.uint8)
LESION[2:5, 2:5] = 1
EMPTY = np.zeros((8, 8), np.uint8)


def sha(name: object) -> str:
    return hashlib.sha256(str(name).encode()).hexdigest()


def proposed(mask, label, frame_id) -> Prediction:
    classes = np.array([label == name for name in ("normal", "benign", "malignant")], np.float32)
    return Prediction(
        frame_id=frame_id,
        lesion=mask.astype(np.float32),
        mask=mask,
        classes=classes,
        expected_dice=0.9,
        threshold=0.5,
        model="base-00000000",
    )


def said(
    name,
    *,
    mask=LESION,
    label="benign",
    before=None,
    seen=True,
    role="train",
    group=None,
    reference=None,
    withdrawn=False,
):
    """A snapshot's entry with its revision; `before` is the mask and class that were proposed."""
    frame_id = sha(name)
    prediction = None if before is None else proposed(*before, frame_id)
    correction = Correction(
        frame_id=frame_id,
        pixels_hash=sha(f"pixels {name}"),
        mask=mask,
        label=label,
        annotator="anna",
        prediction=prediction,
        prediction_seen=seen and prediction is not None,
    )
    revision = Revision(
        id=sha(name)[:32],
        parent=None,
        created=datetime.now(UTC),
        correction=correction,
        model=None,
        mask_sha256=sha(name),
        software="",
        withdrawn=withdrawn,
    )
    entry = Entry(
        revision_id=revision.id, frame_id=frame_id, role=role, group_id=group or sha(f"g{name}"),
        reference=reference,
    )  # fmt: skip
    return entry, revision


def weights_of(*given, config=CONFIG, **options):
    selection = select([said(0, **options), *given], config, SPLIT)
    sample = selection.train[0]
    return sample.mask_weight, sample.class_weight, sample.label


OTHER = np.roll(LESION, 2, axis=1)


@pytest.mark.parametrize(
    ("case", "expected"),
    [
        ({"before": None}, (1, 1, "benign")),
        ({"before": (LESION, "benign")}, (0.5, 0.5, "benign")),
        ({"before": (LESION, "malignant")}, (0.5, 1, "benign")),
        ({"before": (OTHER, "benign")}, (1, 0.5, "benign")),
        ({"before": (EMPTY, "normal")}, (1, 1, "benign")),
        # an empty mask that stayed one was accepted too, one that was emptied was edited
        ({"mask": EMPTY, "label": "normal", "before": (EMPTY, "normal")}, (0.5, 0.5, "normal")),
        ({"mask": EMPTY, "label": "normal", "before": (LESION, "normal")}, (1, 0.5, "normal")),
        # drawn before the prediction was shown: the same mask is a statement of its own
        ({"before": (LESION, "benign"), "seen": False}, (1, 1, "benign")),
        ({"label": "unsure", "before": (LESION, "benign")}, (0.5, 0, None)),
        # what is known from elsewhere is no opinion
        ({"label": "unsure", "reference": "malignant"}, (1, 1, "malignant")),
        ({"before": (LESION, "benign"), "reference": "malignant"}, (0.5, 1, "malignant")),
    ],
)
def test_each_head_learns_from_what_was_decided_about_it(case, expected):
    assert weights_of(**case) == expected


def test_the_masks_of_all_lesions_are_one():
    two = LESION.copy()
    two[6:, 6:] = 2
    selection = select([said(0, mask=two)], CONFIG, SPLIT)
    assert np.array_equal(selection.train[0].mask, two > 0)


@pytest.mark.parametrize(
    ("case", "why"),
    [
        ({"label": "normal"}, "a lesion is drawn, and its class is normal"),
        ({"mask": EMPTY}, "no lesion is drawn, and its class is benign"),
        (
            {"mask": EMPTY, "label": "normal", "reference": "malignant"},
            "no lesion is drawn, and its reference is ",
        ),
        ({"reference": "normal"}, "a lesion is drawn, and its reference is normal"),
        ({"role": "neither"}, "near copies of it, or its patient, are among the images that judge"),
        ({"withdrawn": True}, "it was withdrawn"),
    ],
)
def test_what_contradicts_itself_or_may_not_train_is_listed_and_not_learned(case, why):
    selection = select([said(0, **case), said(1)], CONFIG, SPLIT)
    assert [sample.frame_id for sample in selection.train] == [sha(1)]
    assert [frame for frame, _ in selection.left_out] == [sha(0)]
    assert selection.left_out[0][1].startswith(why)


def test_a_reference_that_agrees_with_the_mask_settles_a_readers_contradiction():
    assert weights_of(label="normal", reference="malignant") == (1, 1, "malignant")


def test_what_judges_by_now_does_not_train_whatever_the_snapshot_says():
    selection = select([said(0), said(1)], CONFIG, SPLIT, test_frames={sha(1)})
    assert [sample.frame_id for sample in selection.train] == [sha(0)]
    assert selection.left_out[0][0] == sha(1)


def test_what_was_set_aside_takes_no_part_and_is_no_copy_of_anything():
    given, aside = [said(0, role="neither"), said(1)], {sha(0)}
    selection = select(given, CONFIG, SPLIT, test_frames=aside, outsiders=aside)
    assert selection.left_out == ((sha(0), "it takes no part, as the samples do"),)


def test_only_lesions_of_a_known_class_are_calibrated_on():
    given = [said(0), said(1, label="unsure"), said(2, mask=EMPTY, label="normal")]
    assert count_to_calibrate(select(given, CONFIG, SPLIT).train) == 1


def test_an_empty_mask_of_an_unsure_reader_teaches_the_mask_alone():
    assert weights_of(mask=EMPTY, label="unsure") == (1, 0, None)


def test_with_no_weight_for_what_was_accepted_it_is_left_out():
    config = FitConfig(accepted_weight=0.0)
    selection = select([said(0, before=(LESION, "benign")), said(1)], config, SPLIT)
    assert [sample.frame_id for sample in selection.train] == [sha(1)]
    assert selection.left_out == ((sha(0), "it was accepted unchanged, and fit.accepted_weight is 0"),)


def test_test_frames_never_train_and_their_groups_are_counted():
    given = [said(n, role="test", group=sha(f"t{n % 2}")) for n in range(4)]
    selection = select([*given, said(9)], CONFIG, SPLIT)
    assert [sample.frame_id for sample in selection.train] == [sha(9)]
    assert selection.test_groups == 2
    # they judge, which is no fault of theirs
    assert selection.left_out == ()


def test_twenty_groups_validate_in_part_and_for_ever():
    given = [said(n) for n in range(GROUPS_TO_VALIDATE)]
    assert select(given[:-1], CONFIG, SPLIT).validation == ()
    grown = [said(n) for n in range(200)]
    few, many = select(given, CONFIG, SPLIT), select(grown, CONFIG, SPLIT)
    assert {sample.frame_id for sample in few.validation} == {
        sample.frame_id for sample in many.validation
    } & {sha(n) for n in range(GROUPS_TO_VALIDATE)}
    assert 0.1 <= len(many.validation) / 200 <= 0.2
    assert not {s.group_id for s in many.train} & {s.group_id for s in many.validation}


def test_a_group_stays_together_and_one_that_the_base_knows_does_not_validate():
    given = [said(n, group=sha(f"g{n // 2}")) for n in range(200)]
    selection = select(given, CONFIG, SPLIT)
    validating = {sample.group_id for sample in selection.validation}
    assert validating
    assert not validating & {sample.group_id for sample in selection.train}
    first = selection.validation[0]
    again = select(given, CONFIG, SPLIT, seen={first.pixels_hash})
    assert first.group_id in {sample.group_id for sample in again.train}
    assert {sample.group_id for sample in again.validation} == validating - {first.group_id}


def test_without_a_share_nobody_validates():
    given = [said(n) for n in range(60)]
    assert select(given, CONFIG, SplitConfig(validation=0.0)).validation == ()


def test_the_order_of_the_snapshot_does_not_matter():
    given = [said(n) for n in range(30)]
    one, other = select(given, CONFIG, SPLIT), select(given[::-1], CONFIG, SPLIT)
    assert [s.frame_id for s in one.train] == [s.frame_id for s in other.train]


def test_classes_are_counted_with_the_unsure():
    given = [said(0), said(1, label="unsure"), said(2, mask=EMPTY, label="normal"), said(3, role="test")]
    assert select(given, CONFIG, SPLIT).by_class == {"normal": 1, "benign": 1, "malignant": 0, "unsure": 1}


def test_fewer_than_five_corrections_are_refused_with_the_reason():
    check_enough(select([said(n) for n in range(5)], CONFIG, SPLIT))
    given = [*(said(n) for n in range(4)), said(8, label="normal"), said(9, role="test")]
    with pytest.raises(TrainingError) as refused:
        check_enough(select(given, CONFIG, SPLIT))
    assert str(refused.value) == (
        "4 of the corrections can teach, and at least 5 are needed; 1 are left out, such as "
        f"{sha(8)[:8]} (a lesion is drawn, and its class is normal); 1 groups of images only judge: correct "
        "more images, then fine-tune"
    )


def test_one_class_alone_mutes_the_class_head_unless_replay_supplies_others():
    one = select([said(n) for n in range(5)], CONFIG, SPLIT).train
    both = select([said(0), said(1, label="malignant")], CONFIG, SPLIT).train
    heads = ("lesion", "classes")
    assert check_classes(both, [], heads) == (True, None)
    learns, notice = check_classes(one, [], heads)
    assert not learns
    assert notice.startswith("all corrections are benign: the mask alone is learned")
    # what is replayed is of the same class
    assert check_classes(one, ["benign"], heads) == (False, notice)
    learns, notice = check_classes(one, ["normal", "benign"], heads)
    assert learns
    assert notice == "all corrections are benign; the other classes come from the replayed images"
    unsure = select([said(n, label="unsure") for n in range(5)], CONFIG, SPLIT).train
    assert check_classes(unsure, [], heads)[1].startswith("none of the corrections has a class: the mask")
    with pytest.raises(TrainingError, match="all corrections are benign, and this model only classifies"):
        check_classes(one, [], ("classes",))
