"""What there is to learn from, counted on a real store."""

from __future__ import annotations

import numpy as np
import pytest
from sqlalchemy import event
from store_writers import sha256

from sonoloop.imaging.grey import frame_from_array
from sonoloop.store import CorrectionStore
from sonoloop.store.groups import place_frame, set_aside
from sonoloop.store.model_registry import register
from sonoloop.store.promotions import ensure_incumbent, promote
from sonoloop.store.snapshots import LearnableCounter, take_snapshot
from sonoloop.store.withdrawal import withdraw
from sonoloop.values import Correction, Frame

SHIPPED, TUNED = sha256("default"), sha256("tuned")


@pytest.fixture
def store(tmp_path):
    with CorrectionStore(tmp_path / "corrections.sqlite") as opened:
        yield opened


def make_image(number: int) -> Frame:
    pixels = np.random.default_rng(number).integers(0, 255, (64, 64)).astype(np.uint8)
    return frame_from_array(pixels, name="")


def correct(frame: Frame, label: str, annotator: str = "anna", *, seen: bool = False) -> Correction:
    mask = np.zeros(frame.shape, np.uint8)
    if label != "normal":
        mask[10:20, 10:20] = 1
    return Correction(
        frame_id=frame.id,
        pixels_hash=frame.pixels_hash,
        mask=mask,
        label=label,
        annotator=annotator,
        prediction_seen=seen,
    )


def accept(store, number: int, label: str, annotator: str = "anna", *, role="train", seen=True) -> None:
    frame = make_image(number)
    placed = place_frame(store, frame, role=role)
    assert placed.role == role
    head = store.head(frame.id, annotator)
    correction = correct(frame, label, annotator, seen=seen)
    store.accept(correction, parent=None if head is None else head.id)


def test_everything_is_new_to_the_shipped_model(store):
    accept(store, 1, "benign")
    accept(store, 2, "benign", "bela")
    accept(store, 3, "normal")
    news = LearnableCounter(store).count()
    assert (news.version, news.new) == (None, 3)
    assert news.by_class == {"benign": 2, "normal": 1}
    assert news.by_annotator == {"anna": 2, "bela": 1}


def test_the_newest_word_on_a_frame_counts_once(store):
    accept(store, 1, "benign")
    accept(store, 1, "malignant", "bela")
    assert LearnableCounter(store).count().by_class == {"malignant": 1}


def test_frames_kept_for_testing_judge_only_where_the_prediction_was_not_seen(store):
    accept(store, 1, "benign")
    accept(store, 2, "benign", role="test", seen=False)
    accept(store, 3, "malignant", role="test", seen=True)
    news = LearnableCounter(store).count()
    assert (news.new, news.test_frames) == (1, 1)


def test_what_the_model_in_use_learned_from_is_not_new(store):
    accept(store, 1, "benign")
    accept(store, 2, "malignant")
    take_snapshot(store, "first", who="anna")
    ensure_incumbent(store, version=SHIPPED, model="default-1", who="anna")
    register(store, version=TUNED, model="ft-1", origin="tuned", who="anna", parent=SHIPPED, snapshot="first")
    assert LearnableCounter(store).count().new == 2, "the model in use did not learn from it"
    promote(store, TUNED, kind="use", who="anna", why="a test", expected=SHIPPED)
    accept(store, 1, "normal")
    accept(store, 3, "benign")
    news = LearnableCounter(store).count()
    assert (news.model, news.by_class) == ("ft-1", {"normal": 1, "benign": 1})


def test_a_frame_that_was_never_placed_is_there_to_learn_from(store):
    mask = np.zeros((8, 8), np.uint8)
    correction = Correction(
        frame_id=sha256("old"), pixels_hash=sha256("old"), mask=mask, label="normal", annotator="anna"
    )
    store.accept(correction, parent=None)
    assert LearnableCounter(store).count().new == 1


def test_a_second_count_reads_what_was_accepted_since_and_says_what_a_first_one_would(store):
    counter = LearnableCounter(store)
    for number in range(8):
        accept(store, number, "benign", role="test" if number == 7 else "train", seen=False)
    assert counter.count().by_class == {"benign": 7}
    accept(store, 0, "malignant", "bela")
    accept(store, 8, "normal")
    accept(store, 7, "malignant", "anna", role="test", seen=True)
    told: list[str] = []
    event.listen(store._engine, "before_cursor_execute", lambda *given: told.append(given[2]))
    found = counter.count()
    reads = [one for one in told if "revisions AS said" in one]
    assert reads and all("pixels_hash IN" in one for one in reads)
    assert found == LearnableCounter(store).count()
    assert (found.by_class, found.test_frames) == ({"benign": 6, "malignant": 1, "normal": 1}, 1)


def test_withdrawals_moves_of_the_pointer_and_frames_that_change_sides_are_counted(store):
    counter = LearnableCounter(store)

    def check(**expected: int) -> None:
        found = counter.count()
        assert found == LearnableCounter(store).count()
        assert {name: getattr(found, name) for name in expected} == expected

    for number in range(6):
        accept(store, number, "benign")
    check(new=6, samples=6)
    withdraw(store, make_image(0).id, why="asked", who="anna")
    check(new=5, samples=5)
    # its patient turns out to test
    place_frame(store, make_image(10), patient="4711", role="test")
    place_frame(store, make_image(1), patient="4711")
    check(new=4, samples=4)
    take_snapshot(store, "first", who="anna")
    ensure_incumbent(store, version=SHIPPED, model="default-1", who="anna")
    register(store, version=TUNED, model="ft-1", origin="tuned", who="anna", parent=SHIPPED, snapshot="first")
    promote(store, TUNED, kind="use", who="anna", why="a test", expected=SHIPPED)
    check(new=0, samples=4)
    accept(store, 2, "normal")
    check(new=1, samples=4)
    # corrected before it was placed, and set aside then
    frame = make_image(11)
    store.accept(correct(frame, "benign"), parent=None)
    check(new=2, samples=5)
    set_aside(store, frame)
    check(new=1, samples=4)
