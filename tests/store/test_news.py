"""What is new since the model in use, counted on a real store."""

from __future__ import annotations

import numpy as np
import pytest
from store_writers import sha256

from sonoloop.imaging.grey import frame_from_array
from sonoloop.store import CorrectionStore
from sonoloop.store.groups import place_frame
from sonoloop.store.model_registry import register
from sonoloop.store.promotions import ensure_incumbent, promote
from sonoloop.store.settings import change_settings
from sonoloop.store.snapshots import count_news
from sonoloop.values import Correction

SHIPPED, TUNED = sha256("default"), sha256("tuned")


@pytest.fixture
def store(tmp_path):
    with CorrectionStore(tmp_path / "corrections.sqlite") as opened:
        yield opened


def accept(store, number: int, label: str, annotator: str = "anna", *, role="train", seen=True) -> None:
    pixels = np.random.default_rng(number).integers(0, 255, (64, 64)).astype(np.uint8)
    frame = frame_from_array(pixels, name="")
    change_settings(store, test_cap=300)
    placed = place_frame(store, frame, role=role)
    assert placed.role == role
    mask = np.zeros((64, 64), np.uint8)
    if label != "normal":
        mask[10:20, 10:20] = 1
    head = store.head(frame.id, annotator)
    store.accept(
        Correction(
            frame_id=frame.id,
            pixels_hash=frame.pixels_hash,
            mask=mask,
            label=label,
            annotator=annotator,
            prediction_seen=seen,
        ),
        parent=None if head is None else head.id,
    )


def test_everything_is_new_to_the_shipped_model(store):
    accept(store, 1, "benign")
    accept(store, 2, "benign", "bela")
    accept(store, 3, "normal")
    news = count_news(store)
    assert (news.version, news.learn) == (None, 3)
    assert news.by_class == {"benign": 2, "normal": 1}
    assert news.by_annotator == {"anna": 2, "bela": 1}


def test_the_newest_word_on_a_frame_counts_once(store):
    accept(store, 1, "benign")
    accept(store, 1, "malignant", "bela")
    assert count_news(store).by_class == {"malignant": 1}


def test_frames_kept_for_testing_judge_only_where_the_prediction_was_not_seen(store):
    accept(store, 1, "benign")
    accept(store, 2, "benign", role="test", seen=False)
    accept(store, 3, "malignant", role="test", seen=True)
    news = count_news(store)
    assert (news.learn, news.judge) == (1, 1)


def test_what_the_model_in_use_learned_from_is_not_new(store):
    from sonoloop.store.snapshots import take_snapshot

    accept(store, 1, "benign")
    accept(store, 2, "malignant")
    take_snapshot(store, "first", who="anna")
    ensure_incumbent(store, version=SHIPPED, model="default-1", who="anna")
    register(store, version=TUNED, model="ft-1", origin="tuned", who="anna", parent=SHIPPED, snapshot="first")
    assert count_news(store).learn == 2, "the model in use did not learn from it"
    promote(store, TUNED, kind="use", who="anna", why="a test", expected=SHIPPED)
    accept(store, 1, "normal")
    accept(store, 3, "benign")
    news = count_news(store)
    assert (news.model, news.by_class) == ("ft-1", {"normal": 1, "benign": 1})


def test_a_frame_that_was_never_placed_is_there_to_learn_from(store):
    mask = np.zeros((8, 8), np.uint8)
    correction = Correction(
        frame_id=sha256("old"), pixels_hash=sha256("old"), mask=mask, label="normal", annotator="anna"
    )
    store.accept(correction, parent=None)
    assert count_news(store).learn == 1
