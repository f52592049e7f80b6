"""Files of the same pixels are one image: it trains once and judges once."""

from __future__ import annotations

from dataclasses import replace

import pytest
from scenes import correct, make_frame
from store_writers import make_prediction

from sonoloop.store.groups import place_frame
from sonoloop.store.references import reference_of, set_reference
from sonoloop.store.snapshots import LearnableCounter, take_snapshot
from sonoloop.store.test_sets import freeze_test_set

FRAME = make_frame(1)
ANEW = replace(FRAME, id="e" * 64)  # saved anew: other bytes, the same pixels


def say(store, frame, *, role, annotator="reader-1", seen=False, label="benign"):
    """Accept a correction of a frame, and return the revision's id."""
    place_frame(store, frame, role=role)
    head = store.head(frame.id, annotator)
    prediction = replace(make_prediction(shape=frame.shape), frame_id=frame.id) if seen else None
    given = correct(frame, label=label, annotator=annotator, prediction_seen=seen, prediction=prediction)
    return store.accept(given, parent=None if head is None else head.id).id


@pytest.mark.parametrize("order", [(FRAME, ANEW), (ANEW, FRAME)])
def test_an_image_that_was_saved_anew_trains_once_by_what_was_said_last(store, order):
    for frame in order:
        last = say(store, frame, role="train")
    assert [entry.revision_id for entry in take_snapshot(store, who="x").entries] == [last]
    assert LearnableCounter(store).count().new == 1
    other = say(store, order[0], role="train", annotator="reader-2")
    assert [entry.revision_id for entry in take_snapshot(store, who="x").entries] == [other]


def test_an_image_that_was_saved_anew_judges_once(store):
    say(store, FRAME, role="test")
    last = say(store, ANEW, role="test", annotator="reader-2")
    assert [judge.revision_id for judge in freeze_test_set(store).members] == [last]
    assert LearnableCounter(store).count().test_frames == 1


@pytest.mark.parametrize("seen", [False, True])
def test_who_drew_it_once_does_not_judge_with_the_same_image_in_another_file(store, seen):
    # after the first Accept, what a model says of the image was shown
    first = say(store, FRAME, role="test")
    assert len(freeze_test_set(store).members) == 1
    say(store, ANEW, role="test", seen=seen)
    assert [judge.revision_id for judge in freeze_test_set(store).members] == [first]
    assert LearnableCounter(store).count().test_frames == 1
    fresh = say(store, FRAME, role="test", annotator="reader-2")
    assert [judge.revision_id for judge in freeze_test_set(store).members] == [fresh]


def test_what_is_known_of_an_image_is_known_of_its_other_file(store):
    say(store, FRAME, role="train")
    set_reference(store, FRAME.id, "malignant", source="histology")
    say(store, ANEW, role="train")
    assert reference_of(store, ANEW.id) == "malignant"
    assert [entry.reference for entry in take_snapshot(store, who="x").entries] == ["malignant"]
