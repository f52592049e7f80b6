"""Why?: a heat map of the class that the model names, and when it goes again."""

from __future__ import annotations

import numpy as np
from desk import box, picture
from napari.layers import Image


def explain(desk) -> None:
    desk.panel._why.click()
    desk.idle()


def test_why_shows_a_heat_map_directly_above_the_image(desk):
    image = desk.open(Image(picture(), name="case", scale=(0.1, 0.2), units=("mm", "mm")))
    assert not desk.panel._why.isEnabled()
    desk.predict()
    explain(desk)
    names = ["case", "case heat map", "case uncertainty", "case lesions"]
    assert [layer.name for layer in desk.viewer.layers] == names
    heat = desk.viewer.layers["case heat map"]
    assert heat.visible
    assert (heat.data > 1).sum() == box().sum()
    np.testing.assert_array_equal(heat.scale, image.scale)
    assert heat.metadata["sonoloop"]["explains"] == {
        (): {"model": "fake-1", "frame_id": desk.predictions[0]["frame_id"], "class": "benign"}
    }
    assert desk.viewer.layers.selection.active == desk.lesions, "one goes on painting"


def test_why_again_hides_it_and_shows_it(desk):
    desk.open(Image(picture(), name="case"))
    desk.predict()
    explain(desk)
    heat = desk.viewer.layers["case heat map"]
    explain(desk)
    assert not heat.visible
    explain(desk)
    assert heat.visible
    assert [layer.name for layer in desk.viewer.layers].count("case heat map") == 1


def test_a_new_prediction_takes_the_old_heat_map_away(desk):
    desk.open(Image(picture(), name="case"))
    desk.predict()
    explain(desk)
    desk.predict()
    heat = desk.viewer.layers["case heat map"]
    assert not heat.data.any()
    explain(desk)
    assert heat.data.any()


def test_a_heat_map_for_an_image_that_is_gone_is_dropped(desk, predictor):
    image = desk.open(Image(picture(), name="case"))
    desk.predict()
    predictor.gate.clear()
    desk.panel._why.click()
    desk.viewer.layers.remove(image)
    predictor.gate.set()
    desk.idle()
    assert "case heat map" not in desk.viewer.layers


def test_another_model_than_the_one_in_use_is_not_explained(desk, predictor):
    desk.open(Image(picture(), name="case"))
    desk.predict()
    predictor.model = "fake-2"
    explain(desk)
    assert "case heat map" not in desk.viewer.layers


def test_pixels_that_were_changed_since_are_not_explained(desk, notices):
    image = desk.open(Image(picture(), name="case"))
    desk.predict()
    image.data[:] = picture(20)
    explain(desk)
    assert "case heat map" not in desk.viewer.layers
    assert "the pixels of case were changed since: press Predict first" in notices[-1]


def test_each_frame_of_a_stack_has_its_own(desk):
    desk.open(Image(np.stack([picture(0), picture(20)]), name="cine"))
    desk.predict()
    explain(desk)
    heat = desk.viewer.layers["cine heat map"]
    assert heat.data[0].any()
    assert not heat.data[1].any()
    desk.viewer.dims.set_current_step(0, 1)
    desk.ready()
    assert not desk.panel._why.isEnabled()
    desk.predict()
    explain(desk)
    assert heat.data[1].any()
    assert set(heat.metadata["sonoloop"]["explains"]) == {(0,), (1,)}


def test_a_prediction_under_way_is_not_dropped_for_it(desk, predictor):
    desk.open(Image(picture(), name="case"))
    desk.predict()
    predictor.gate.clear()
    desk.panel.predicting.predict()
    desk.panel._why.click()
    predictor.gate.set()
    desk.idle()
    assert len(predictor.frames) == 2
    assert "case heat map" not in desk.viewer.layers
    assert desk.panel._why.isEnabled()
