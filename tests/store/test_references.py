from __future__ import annotations

import pytest
from scenes import make_frame
from sqlalchemy import text

from sonoloop.errors import StoreError
from sonoloop.store.groups import place_frame
from sonoloop.store.references import offer_reference, reference_of, set_reference
from sonoloop.store.withdrawal import withdraw


@pytest.fixture
def placed(store):
    return place_frame(store, make_frame(1)).frame_id


def test_the_last_reference_holds_and_none_is_lost(store, shell, placed):
    assert reference_of(store, placed) is None
    for label, source in (("benign", "follow-up"), ("malignant", "histology"), ("malignant", "histology")):
        set_reference(store, placed, label, source=source)
    assert reference_of(store, placed) == "malignant"
    kept = shell.execute(text("SELECT label, source FROM reference_labels ORDER BY number")).all()
    assert kept == [("benign", "follow-up"), ("malignant", "histology")]


def test_what_a_dataset_says_takes_the_place_of_its_own_word_alone(store, placed):
    assert offer_reference(store, placed, "benign", source="busbra")
    assert offer_reference(store, placed, "malignant", source="busbra")
    assert reference_of(store, placed) == "malignant"
    set_reference(store, placed, "normal", source="histology")
    assert not offer_reference(store, placed, "malignant", source="busbra")
    assert reference_of(store, placed) == "normal"
    with pytest.raises(StoreError, match="no image ffffffffffff"):
        offer_reference(store, "f" * 64, "benign", source="busbra")


def test_what_is_no_reference_is_refused(store, placed):
    with pytest.raises(ValueError, match="got 'unsure'"):
        set_reference(store, placed, "unsure", source="histology")
    with pytest.raises(ValueError, match="source"):
        set_reference(store, placed, "benign", source=" ")
    with pytest.raises(StoreError, match="no image ffffffffffff"):
        set_reference(store, "f" * 64, "benign", source="histology")
    withdraw(store, placed, why="asked to", who="reader-1")
    with pytest.raises(StoreError, match="was withdrawn"):
        set_reference(store, placed, "benign", source="histology")
