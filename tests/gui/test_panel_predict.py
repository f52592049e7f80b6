"""Predict on a viewer model: what appears, where it lies, and what is dropped."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from desk import box, picture
from napari.layers import Image, Labels

from sonoloop.errors import DeviceError
from sonoloop.project import Project


def test_predict_adds_lesions_above_a_hidden_uncertainty_above_the_image(desk):
    image = desk.open(Image(picture(), name="case", scale=(0.1, 0.2), translate=(3, 4), units=("mm", "mm")))
    desk.predict()
    assert [layer.name for layer in desk.viewer.layers] == ["case", "case uncertainty", "case lesions"]
    np.testing.assert_array_equal(desk.lesions.data, box())
    assert isinstance(desk.lesions, Labels)
    assert desk.lesions.contour == 2
    uncertainty = desk.viewer.layers["case uncertainty"]
    assert not uncertainty.visible
    assert tuple(uncertainty.contrast_limits) == (0, 1)
    for layer in (desk.lesions, uncertainty):
        np.testing.assert_array_equal(layer.scale, image.scale)
        np.testing.assert_array_equal(layer.translate, image.translate)
        assert layer.units == image.units
    assert desk.viewer.layers.selection.active == desk.lesions


def test_the_mask_says_where_it_came_from(desk, predictor):
    desk.open(Image(picture(), name="case"))
    desk.predict()
    (made,) = desk.predictions
    assert made["model"] == "fake-1"
    assert made["frame_id"] == predictor.frames[0].id
    assert made["expected_dice"] == 0.8
    assert made["threshold"] == 0.5
    assert set(made["classes"]) == {"normal", "benign", "malignant"}


def test_the_panel_shows_probabilities_lesions_and_area(desk):
    desk.open(Image(picture(), name="case", scale=(0.1, 0.2), units=("mm", "mm")))
    assert desk.view.probabilities is None
    assert desk.view.status == "new"
    desk.predict()
    view = desk.view
    assert round(view.probabilities["benign"], 3) == 0.7
    assert (view.lesions, view.area_px) == (1, 50)
    assert round(view.area_mm2, 6) == 1.0
    assert view.expected_dice == 0.8
    assert view.status == "in progress"
    assert view.label is None, "a class is never chosen for the annotator"
    assert desk.panel.predicting.model_line == "Model fake-1 · CPU, ONNX"


def test_pixels_without_calibration_are_not_millimetres(desk):
    desk.open(Image(picture(), name="case"))
    desk.predict()
    assert desk.view.area_mm2 is None


def test_colour_images_are_predicted_on_their_grey(desk, predictor):
    colour = np.stack([picture()] * 3, axis=-1)
    desk.open(Image(colour, name="case", rgb=True))
    desk.predict()
    assert predictor.frames[0].pixels.shape == (40, 60)
    np.testing.assert_array_equal(desk.lesions.data, box())


def test_the_current_frame_of_a_stack_is_predicted_and_only_its_plane_written(desk, predictor):
    stack = np.stack([picture(row, seed=row) for row in (0, 10, 20)])
    desk.open(Image(stack, name="cine"))
    desk.viewer.dims.set_current_step(0, 2)
    desk.ready()
    desk.predict()
    np.testing.assert_array_equal(predictor.frames[0].pixels, stack[2])
    np.testing.assert_array_equal(desk.lesions.data, [0 * box(), 0 * box(), box(20)])
    desk.viewer.dims.set_current_step(0, 0)
    desk.ready()
    assert desk.view.probabilities is None, "every frame has its own state"
    desk.predict()
    np.testing.assert_array_equal(desk.lesions.data, [box(0), 0 * box(), box(20)])
    assert [layer.name for layer in desk.viewer.layers] == ["cine", "cine uncertainty", "cine lesions"]
    assert len(desk.predictions) == 2


def test_the_image_of_the_active_lesions_is_predicted(desk, predictor):
    first = Image(picture(0), name="first")
    desk.open(first)
    desk.predict()
    desk.open(Image(picture(20), name="second"))
    desk.viewer.layers.selection.active = desk.lesions
    desk.predict()
    np.testing.assert_array_equal(predictor.frames[-1].pixels, first.data)


def test_predicting_again_over_an_untouched_mask_asks_nothing(desk, notices):
    desk.open(Image(picture(), name="case"))
    desk.predict()
    desk.predict()
    assert notices == []
    assert desk.panel.unfinished.buttons() == []


def test_a_newer_request_drops_the_older_answer(desk, predictor):
    desk.open(Image(picture(0), name="first"))
    desk.open(Image(picture(20), name="second"))
    predictor.gate.clear()
    desk.viewer.layers.selection.active = desk.viewer.layers["first"]
    desk.panel.run("predict")
    desk.qtbot.waitUntil(lambda: len(predictor.frames) == 1)
    desk.viewer.layers.selection.active = desk.viewer.layers["second"]
    desk.panel.run("predict")
    predictor.gate.set()
    desk.qtbot.waitUntil(lambda: len(desk.predictions) > 0)
    desk.idle()
    assert [layer.name for layer in desk.viewer.layers if isinstance(layer, Labels)] == ["second lesions"]


def test_cancelled_prediction_is_dropped(desk, predictor):
    desk.open(Image(picture(), name="case"))
    predictor.gate.clear()
    desk.panel.run("predict")
    desk.panel.predicting.cancel()
    predictor.gate.set()
    desk.idle()
    assert len(desk.viewer.layers) == 1
    desk.predict()
    assert len(desk.predictions) == 1, "the next one works"


def test_prediction_for_a_removed_layer_is_dropped(desk, predictor):
    image = desk.open(Image(picture(), name="case"))
    predictor.gate.clear()
    desk.panel.run("predict")
    desk.viewer.layers.remove(image)
    predictor.gate.set()
    desk.idle()
    assert len(desk.viewer.layers) == 0


def test_answer_goes_to_its_own_image_when_the_user_moved_on(desk, predictor):
    first = desk.open(Image(picture(0), name="first"))
    predictor.gate.clear()
    desk.panel.run("predict")
    second = desk.open(Image(picture(20), name="second"), wait=False)
    predictor.gate.set()
    desk.qtbot.waitUntil(lambda: len(desk.predictions) == 1)
    assert desk.lesions.metadata["sonoloop"]["image"] == str(first.unique_id)
    assert desk.viewer.layers.selection.active == second


def test_a_constant_image_is_refused_with_its_reason(desk, notices):
    desk.open(Image(np.zeros((40, 60), np.uint8), name="black"))
    desk.predict()
    assert len(desk.viewer.layers) == 1
    assert notices[-1].startswith("every pixel of black has the value 0")


def test_what_the_model_says_is_shown_and_the_panel_goes_on(make_desk, predictor, notices):
    missing = ["cuda"]

    def load(*_):
        if missing:
            raise DeviceError("this machine has no usable cuda; use auto")
        return predictor

    desk = make_desk(load_predictor=load)
    desk.open(Image(picture(), name="case"))
    desk.predict()
    # once: what is loaded before it is asked for tells nothing
    assert notices == ["this machine has no usable cuda; use auto"]
    missing.clear()
    desk.predict()
    assert len(desk.predictions) == 1


def test_an_unexpected_error_is_shown_and_logged(make_desk, notices, caplog):
    def load(*_):
        raise RuntimeError("weights have holes")

    desk = make_desk(load_predictor=load)
    desk.open(Image(picture(), name="case"))
    desk.predict()
    assert any("weights have holes" in notice for notice in notices)
    assert "Traceback" in caplog.text


def test_without_an_image_the_panel_says_what_to_do(desk, notices):
    assert desk.view.why_no_predict.startswith("Open an image")
    desk.panel.run("predict")
    assert notices == [desk.view.why_no_predict]


def test_the_model_is_loaded_before_it_is_asked_for(make_desk, predictor, qtbot):
    loaded = []
    desk = make_desk(load_predictor=lambda *place: loaded.append(place) or predictor)
    desk.open(Image(picture(), name="case"))
    qtbot.waitUntil(lambda: loaded == [("auto", None, "auto")])
    desk.predict()
    assert loaded == [("auto", None, "auto")]


def test_the_engines_are_compared_once_after_the_first_prediction_was_shown(
    make_desk, predictor, monkeypatch, notices
):
    asked = []

    def compare(project, device, *, is_cancelled):
        asked.append((device, len(predictor.frames), is_cancelled))
        return "openvino (onnx 61 ms, openvino 30 ms an image)"

    monkeypatch.setattr(Project, "compare_engines", compare)
    desk = make_desk()
    desk.preferences = replace(desk.preferences, engine="onnx")
    desk.open(Image(picture(), name="case"))
    desk.predict()
    assert not asked, "another engine than the quickest is wanted"
    desk.preferences = replace(desk.preferences, engine="auto")
    desk.predict()
    desk.predict()
    ((device, predicted, is_cancelled),) = asked
    assert (device, predicted) == ("auto", 2)
    assert notices[-1] == "Engines compared: openvino (onnx 61 ms, openvino 30 ms an image)"
    assert not is_cancelled()
    desk.panel.close_session()
    assert is_cancelled()
