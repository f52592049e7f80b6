"""The predictor is that of the model in use, and follows the store's pointer."""

from __future__ import annotations

import pytest
from desk import FakePredictor, picture
from napari.layers import Image

from sonoloop.store.model_registry import register
from sonoloop.store.promotions import ensure_incumbent, incumbent, promote

SHIPPED, TUNED = "a" * 64, "b" * 64


@pytest.fixture
def loaded() -> list[tuple[str, str | None]]:
    """What was loaded: devices and versions."""
    return []


@pytest.fixture
def desk(make_desk, loaded):
    def load(device, version, engine):
        loaded.append((device, version))
        predictor = FakePredictor()
        predictor.model = "shipped" if version is None else f"model-{version[:8]}"
        return predictor

    made = make_desk(load_predictor=load)
    made.open(Image(picture(), name="case"))
    return made


def use_tuned(store) -> None:
    ensure_incumbent(store, version=SHIPPED, model="default-aaaaaaaa", who="anna")
    register(store, version=TUNED, model="ft-bbbbbbbb", origin="tuned", who="anna", parent=SHIPPED)
    promote(store, TUNED, kind="use", who="anna", why="a test", expected=incumbent(store).version)


def test_without_a_pointer_the_shipped_model_predicts(desk, loaded):
    desk.predict()
    assert loaded == [("auto", None)]
    assert desk.panel.predicting.model_line == "Model shipped · CPU, ONNX"


def test_a_promotion_elsewhere_changes_the_model_of_the_next_prediction(desk, loaded, store):
    desk.predict()
    use_tuned(store)
    desk.predict()
    desk.predict()
    assert loaded == [("auto", None), ("auto", TUNED)]
    assert desk.predictions[-1]["model"] == "model-bbbbbbbb"


def test_the_header_shows_the_model_in_use_as_soon_as_it_is_known(desk, store):
    desk.predict()
    use_tuned(store)
    desk.open(Image(picture(20), name="next"))
    assert desk.panel.predicting.model_line == "Model ft-bbbbbbbb"
    desk.predict()
    assert desk.panel.predicting.model_line == "Model model-bbbbbbbb · CPU, ONNX"


def test_a_promotion_by_another_program_is_seen_within_seconds(desk, store, qtbot):
    use_tuned(store)
    qtbot.waitUntil(lambda: "ft-bbbbbbbb" in desk.panel.predicting.model_line, timeout=6_000)
