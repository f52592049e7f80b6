from __future__ import annotations

from dataclasses import FrozenInstanceError
from datetime import UTC, datetime, timedelta, timezone

import numpy as np
import pytest
from sqlalchemy import text
from store_writers import make_correction, make_mask, make_prediction, sha256

import sonoloop
from sonoloop.errors import ConflictError, StoreError
from sonoloop.store import CorrectionStore, HeadMovedError
from sonoloop.store.corrections import HEAD
from sonoloop.store.settings import change_settings
from sonoloop.values import Effort


def test_every_field_comes_back(url):
    prediction = make_prediction(seed=3)
    effort = Effort(
        started=datetime(2026, 5, 4, 9, 30, 1, 5, tzinfo=timezone(timedelta(hours=2))),
        active_seconds=11.25,
        strokes=3,
        clicks=2,
        undos=1,
        mode="drawn first",
        shown=(("prediction", 4.5), ("heat map", 6.0)),
    )
    given = make_correction(
        seed=4,
        label="unsure",
        prediction=prediction,
        prediction_seen=True,
        seconds=12.5,
        lesions={2: "malignant", 1: "benign"},
        effort=effort,
    )
    before = datetime.now(UTC)
    with CorrectionStore(url) as store:
        change_settings(store, record_time=True)
        accepted = store.accept(given, parent=None)
    with CorrectionStore(url) as store:
        found = store.head(given.frame_id, "reader-1")

    assert (found.id, found.parent, found.created) == (accepted.id, None, accepted.created)
    assert before <= found.created <= datetime.now(UTC)
    assert found.created.utcoffset() == timedelta(0)
    assert (found.model, found.software) == ("unet-0123abcd", sonoloop.__version__)
    assert found.mask_sha256 == accepted.mask_sha256
    for name in (
        "frame_id",
        "pixels_hash",
        "label",
        "annotator",
        "prediction_seen",
        "seconds",
        "lesions",
        "effort",
    ):
        assert getattr(found.correction, name) == getattr(given, name), name
    assert np.array_equal(found.correction.mask, given.mask)
    assert found.correction.mask_decision == given.mask_decision == "edited"
    assert found.correction.class_decision == "unsure"

    again = found.correction.prediction
    assert np.array_equal(again.mask, prediction.mask)
    assert np.array_equal(again.classes, prediction.classes)
    assert again.classes.dtype == again.lesion.dtype == np.float32
    assert (again.expected_dice, again.threshold) == (prediction.expected_dice, prediction.threshold)
    assert (again.frame_id, again.model) == (prediction.frame_id, prediction.model)
    assert np.abs(again.lesion - prediction.lesion).max() <= 1 / 510 + 1e-6
    p = again.lesion.astype(float).clip(1e-12, 1 - 1e-12)
    assert np.allclose(again.uncertainty, -(p * np.log2(p) + (1 - p) * np.log2(1 - p)), atol=1e-6)


def test_times_are_kept_only_where_the_project_records_them(store):
    start = datetime(2026, 5, 4, tzinfo=UTC)
    effort = Effort(
        started=start, active_seconds=np.float32(9.5), strokes=4, mode="scratch", shown=(("prediction", 2.0),)
    )
    given = make_correction(seconds=9.5, effort=effort)
    for one in (store.accept(given, parent=None), store.history(given.frame_id)[0]):
        assert one.correction.seconds is None
        assert one.correction.effort == Effort(strokes=4, mode="scratch", shown=(("prediction", None),))
    change_settings(store, record_time=True)
    kept = store.accept(make_correction(seed=1, effort=effort), parent=HEAD).correction.effort
    assert (kept, kept.active_seconds) == (effort, 9.5)


def test_a_class_is_given_only_to_a_lesion_that_is_there():
    for lesions, said in (
        ({7: "benign"}, "no lesion 7"),
        ({0: "benign"}, "no lesion 0"),
        ({1: "x"}, "got 'x'"),
    ):
        with pytest.raises(ValueError, match=said):
            make_correction(lesions=lesions)


@pytest.mark.parametrize(
    "wrong",
    [
        {"strokes": -1},
        {"clicks": 1.5},
        {"mode": "guessed"},
        {"active_seconds": float("nan")},
        {"started": datetime(2026, 5, 4)},
        {"shown": (("prediction", -1.0),)},
    ],
)
def test_an_effort_that_cannot_be_is_refused(wrong):
    with pytest.raises(ValueError, match="an effort's"):
        Effort(**wrong)


def test_another_class_of_one_lesion_is_a_change(store):
    first = store.accept(make_correction(lesions={1: "benign", 2: "benign"}), parent=None)
    same = store.accept(make_correction(lesions={2: "benign", 1: "benign"}), parent=first.id)
    other = store.accept(make_correction(lesions={1: "benign", 2: "malignant"}), parent=first.id)
    assert (same.id, store.count(), other.correction.lesions[2]) == (first.id, 2, "malignant")
    assert other.mask_sha256 == first.mask_sha256


def test_without_prediction_or_time_nothing_is_made_up(store):
    found = store.accept(make_correction(mask=np.zeros((24, 32), np.uint8), label="normal"), parent=None)
    assert found.correction.prediction is None
    assert found.correction.seconds is None
    assert found.model is None
    assert found.correction.prediction_seen is False
    assert found.correction.mask_decision == "none"


def test_certain_pixels_have_no_uncertainty(store):
    prediction = make_prediction()
    prediction.lesion[:] = 0
    prediction.lesion[0, 0] = 1
    found = store.accept(make_correction(prediction=prediction), parent=None)
    assert not found.correction.prediction.uncertainty.any()


def test_stored_mask_does_not_follow_the_layer_it_came_from(store):
    mask = make_mask()
    accepted = store.accept(make_correction(mask=mask), parent=None)
    mask[:] = 9
    assert np.array_equal(accepted.correction.mask, make_mask())
    with pytest.raises(FrozenInstanceError):
        accepted.id = "another"


def test_next_revision_replaces_the_head(store):
    first = store.accept(make_correction(seed=1), parent=None)
    second = store.accept(make_correction(seed=2), parent=first.id)
    assert second.parent == first.id
    assert store.head(sha256("frame"), "reader-1").id == second.id
    assert [revision.id for revision in store.history(sha256("frame"))] == [first.id, second.id]
    assert store.count() == 2


def test_same_prediction_is_stored_once(store, shell):
    first = store.accept(make_correction(prediction=make_prediction()), parent=None)
    # Read back and given again: rounding its probabilities a second time changes nothing.
    store.accept(make_correction(seed=1, prediction=first.correction.prediction), parent=first.id)
    store.accept(make_correction(annotator="reader-2", prediction=make_prediction(seed=1)), parent=None)
    assert shell.scalar(text("SELECT count(*) FROM predictions")) == 2


def test_accepting_again_without_a_change_writes_nothing(store):
    given = make_correction(seed=1)
    first = store.accept(given, parent=None)
    # by now the prediction was shown; and an answer that was lost on its way is asked for again
    seen = make_correction(seed=1, prediction=make_prediction(), prediction_seen=True, seconds=3.0)
    for correction, parent in ((given, first.id), (seen, first.id), (given, None)):
        assert store.accept(correction, parent=parent).id == first.id
    assert store.count() == 1
    assert store.head(given.frame_id, "reader-1").correction.prediction_seen is False
    label = store.accept(make_correction(seed=1, label="malignant"), parent=first.id)
    mask = store.accept(make_correction(seed=2, label="malignant"), parent=label.id)
    again = store.accept(make_correction(seed=1), parent=mask.id)
    other = store.accept(make_correction(seed=1, annotator="reader-2"), parent=None)
    assert len({first.id, label.id, mask.id, again.id, other.id}) == store.count() == 5


@pytest.mark.parametrize(
    "between",
    [
        {"annotator": "reader-2"},
        {"frame_id": sha256("saved anew")},
        {"annotator": "reader-2", "frame_id": sha256("saved anew")},
    ],
)
@pytest.mark.parametrize("answered", [True, False])
def test_the_same_said_again_after_another_is_newest_again(store, between, answered):
    given = make_correction(seed=1, label="malignant")
    first = store.accept(given, parent=None)
    store.accept(make_correction(seed=2, label="normal", **between), parent=None)
    again = store.accept(given, parent=first.id if answered else None)
    assert again.parent == first.id
    assert store.newest(given.frame_id, pixels_hash=given.pixels_hash).id == again.id
    assert store.head(given.frame_id, "reader-1").id == again.id
    assert store.accept(given, parent=again.id).id == again.id
    assert store.count() == 3


@pytest.mark.parametrize("stale", ["none", "older"])
def test_moved_head_is_a_conflict_with_both_sides_kept(store, stale):
    first = store.accept(make_correction(seed=1), parent=None)
    second = store.accept(make_correction(seed=2), parent=first.id)
    parent = None if stale == "none" else first.id
    with pytest.raises(ConflictError, match="both are kept") as caught:
        store.accept(make_correction(seed=3), parent=parent)

    assert isinstance(caught.value, HeadMovedError)
    assert caught.value.theirs.id == second.id
    assert np.array_equal(caught.value.theirs.correction.mask, make_mask(2))
    mine = caught.value.mine
    assert mine.parent == parent
    history = store.history(sha256("frame"))
    assert [revision.id for revision in history] == [first.id, second.id, mine.id]
    assert np.array_equal(history[2].correction.mask, make_mask(3))
    assert store.head(sha256("frame"), "reader-1").id == second.id
    assert store.newest(sha256("frame")).id == second.id

    chosen = store.accept(mine.correction, parent=second.id)
    assert store.head(sha256("frame"), "reader-1").id == chosen.id
    assert store.verify() == []


def test_two_annotators_do_not_conflict(store):
    one = store.accept(make_correction(seed=1), parent=None)
    two = store.accept(make_correction(seed=2, annotator="reader-2"), parent=None)
    assert store.head(sha256("frame"), "reader-1").id == one.id
    assert store.head(sha256("frame"), "reader-2").id == two.id
    assert store.newest(sha256("frame")).id == two.id


def test_newest_goes_by_acceptance_not_by_clock(store, monkeypatch):
    class Yesterday(datetime):
        @classmethod
        def now(cls, tz=None):
            return datetime(2001, 1, 1, tzinfo=tz)

    store.accept(make_correction(seed=1), parent=None)
    monkeypatch.setattr("sonoloop.store.revisions.datetime", Yesterday)
    late = store.accept(make_correction(seed=2, annotator="reader-2"), parent=None)
    monkeypatch.undo()
    assert store.newest(sha256("frame")).id == late.id


def test_saved_anew_frame_is_found_by_its_pixels(store):
    pixels = sha256("pixels of frame")
    accepted = store.accept(make_correction(), parent=None)
    store.accept(make_correction("another"), parent=None)
    assert store.newest(sha256("saved anew")) is None
    assert store.newest(sha256("saved anew"), pixels_hash=sha256("other pixels")) is None
    assert store.newest(sha256("saved anew"), pixels_hash=pixels).id == accepted.id


def test_unknown_frame_has_no_past(store):
    assert store.head(sha256("never seen"), "reader-1") is None
    assert store.newest(sha256("never seen")) is None
    assert store.history(sha256("never seen")) == []
    assert store.count() == 0


def test_mask_of_another_size_is_refused(store):
    first = store.accept(make_correction(), parent=None)
    with pytest.raises(StoreError, match=r"12 x 16 pixels.*24 x 32"):
        store.accept(make_correction(shape=(12, 16)), parent=first.id)
    assert store.count() == 1


@pytest.mark.parametrize("whose", ["nobody's", "another annotator's", "another frame's"])
def test_parent_that_was_never_the_head_is_refused(store, whose):
    parents = {
        "nobody's": "0" * 32,
        "another annotator's": store.accept(make_correction(annotator="reader-2"), parent=None).id,
        "another frame's": store.accept(make_correction("another"), parent=None).id,
    }
    with pytest.raises(StoreError, match="open the image again"):
        store.accept(make_correction(), parent=parents[whose])
    assert store.count() == 2


@pytest.mark.parametrize(
    "change",
    [
        {"frame_id": "Anna Muster.png"},
        {"pixels_hash": ""},
        {"annotator": " "},
        {"annotator": "a\0b"},
        {"annotator": "r1\u200b"},
        {"mask": np.zeros((0, 4), np.uint8)},
    ],
)
def test_what_cannot_be_stored_is_named(store, change):
    with pytest.raises(ValueError, match=r"frame_id|pixels_hash|pseudonym|mask") as caught:
        store.accept(make_correction(**change), parent=None)
    assert "Muster" not in str(caught.value)
    assert store.count() == 0


@pytest.mark.parametrize("value", [1.5, -0.1, np.nan])
def test_probability_out_of_range_is_refused(store, value):
    prediction = make_prediction()
    prediction.lesion[0, 0] = value
    with pytest.raises(ValueError, match="lesion probabilities"):
        store.accept(make_correction(prediction=prediction), parent=None)


def test_closed_store_says_so(url):
    store = CorrectionStore(url)
    store.close()
    store.close()
    for use in (store.count, store.verify, lambda: store.accept(make_correction(), parent=None)):
        with pytest.raises(StoreError, match="was closed: open it again"):
            use()


def test_a_person_has_one_name_however_it_was_typed(store):
    first = store.accept(make_correction(annotator=" Jose\u0301  K "), parent=None)
    assert first.correction.annotator == "Jos\u00e9 K"
    store.accept(make_correction(seed=1, annotator="Jos\u00e9 K"), parent=first.id)
    assert store.head(first.correction.frame_id, "Jos\u00e9 K\t").parent == first.id


def test_what_was_said_first_is_not_said_again(store):
    mine, stored = store.accept_first(make_correction(annotator="dataset"))
    assert stored
    assert store.head(mine.correction.frame_id, "dataset").id == mine.id
    again, stored = store.accept_first(make_correction(seed=1, annotator="dataset"))
    assert (again.id, stored) == (mine.id, False)
    person = store.accept(make_correction(seed=2, annotator="anna"), parent=None)
    # of the same pixels in another file too
    copy = make_correction("copy", seed=3, annotator="other", pixels_hash=person.correction.pixels_hash)
    assert store.accept_first(copy)[0].id == person.id
    assert store.count() == 2
