"""What corrections took, and how the proposals they began from fared."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from store_writers import make_correction, make_prediction, sha256

from sonoloop.store.effort import ModelEffort, model_effort, read_stats
from sonoloop.store.settings import change_settings
from sonoloop.values import Effort


def propose(name: str, mask: np.ndarray, *, model: str = "unet-1", benign: float = 0.8):
    classes = np.array([0.1, benign, 0.9 - benign], np.float32)
    return replace(make_prediction(name), mask=mask, classes=classes, model=model)


def left(columns: int) -> np.ndarray:
    mask = np.zeros((24, 32), np.uint8)
    mask[:, :columns] = 1
    return mask


@pytest.fixture
def corrected(store):
    """Kept, edited twice, drawn first, an empty proposal that stayed empty; and one without a proposal."""
    change_settings(store, record_time=True)

    def accept(name: str, proposed: np.ndarray, mask: np.ndarray, **more):
        values = {"prediction_seen": True, "prediction": propose(name, proposed, **more.pop("by", {}))} | more
        head = store.head(sha256(name), values.get("annotator", "reader-1"))
        return store.accept(
            make_correction(name, mask=mask, **values), parent=None if head is None else head.id
        )

    accept("kept", left(8), left(8), effort=Effort(active_seconds=4.0))
    accept("edited", left(8), left(12), effort=Effort(active_seconds=10.0, strokes=4, undos=1))
    accept("edited", left(8), left(16), label="malignant", effort=Effort(active_seconds=6.0, strokes=2))
    accept("first", left(8), left(4), prediction_seen=False, annotator="reader-2", by={"model": "unet-2"})
    accept("empty", left(0), left(0), label="normal", by={"model": "unet-2"})
    store.accept(make_correction("alone", mask=left(3)), parent=None)
    return store


def test_a_model_is_told_by_what_was_shown_of_it_first(corrected):
    assert model_effort(corrected) == (
        ModelEffort(model="unet-2", images=1, unedited=1.0, seconds=None, timed=0),
        ModelEffort(model="unet-1", images=2, unedited=0.5, seconds=10.0, timed=2),
    )


def test_proposals_are_compared_with_what_became_of_them(corrected):
    told = []
    found = read_stats(corrected, on_progress=lambda *step: told.append(step))
    assert told == [(4, 4)]
    assert (found.all.images, found.all.unedited.frames, found.all.unedited.value) == (4, 3, 2 / 3)
    by_model = {row.name: row for row in found.by_model}
    assert by_model["unet-1"].dice.value == pytest.approx((1 + 2 / 3) / 2)
    assert by_model["unet-2"].dice.value == pytest.approx((2 / 3 + 1) / 2)
    assert by_model["unet-1"].seconds.value == pytest.approx(10.0)
    assert (by_model["unet-1"].strokes, by_model["unet-1"].undos) == (3.0, 0.5)
    assert by_model["unet-2"].strokes is None
    # over two images of two groups
    low, high = by_model["unet-1"].dice.low, by_model["unet-1"].dice.high
    assert (low, high) == (pytest.approx(2 / 3, abs=1e-4), 1.0)
    assert {row.name: row.images for row in found.by_class} == {"benign": 2, "malignant": 1, "normal": 1}
    assert {row.name: row.class_changed.value for row in found.by_class} == {
        "benign": 0.0,
        "malignant": 1.0,
        "normal": 1.0,
    }
    assert [row.name for row in found.by_annotator] == ["reader-1", "reader-2"]
    assert [(row.name, row.images) for row in found.by_proposal] == [("drawn first", 1), ("shown first", 3)]


def test_a_store_without_a_proposal_has_no_figures(store):
    store.accept(make_correction(), parent=None)
    assert model_effort(store) == ()
    found = read_stats(store)
    assert (found.all.images, found.all.dice, found.by_model) == (0, None, ())
