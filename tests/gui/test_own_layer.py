"""A Labels layer that the annotator made by hand is drawn in as if Sonoloop had made it."""

from __future__ import annotations

import numpy as np
import pytest
from desk import SHAPE, box, picture
from napari.layers import Image, Labels

from sonoloop.imaging.grey import hash_pixels


def test_what_is_drawn_in_it_is_stored(desk, store):
    desk.open(Image(picture(), name="case"))
    layer = Labels(np.zeros(SHAPE, np.int32), name="mine")
    desk.viewer.layers.append(layer)
    desk.panel.session.follow()
    layer.data_setitem(np.nonzero(box()), 1)
    desk.panel.run("choose_benign")
    desk.accept()
    np.testing.assert_array_equal(store.newest(hash_pixels(picture())).correction.mask, box())
    assert [each.name for each in desk.viewer.layers] == ["case", "mine"]


@pytest.mark.parametrize(
    "layer",
    [
        Labels(np.ones(SHAPE, np.uint8), name="an organ"),
        Labels(np.zeros((20, 30), np.uint8), name="smaller"),
        Labels(np.zeros(SHAPE, np.uint8), scale=(2, 2), name="elsewhere"),
    ],
    ids=lambda layer: layer.name,
)
def test_a_layer_for_something_else_is_left_alone(desk, layer):
    desk.open(Image(picture(), name="case"))
    before = layer.data.copy()
    desk.viewer.layers.append(layer)
    desk.panel.session.follow()
    desk.predict()
    np.testing.assert_array_equal(layer.data, before)
    assert "sonoloop" not in layer.metadata
    np.testing.assert_array_equal(desk.viewer.layers["case lesions"].data, box())


def test_beside_a_lesions_layer_it_is_left_alone(desk):
    desk.open(Image(picture(), name="case"))
    desk.predict()
    desk.viewer.layers.append(Labels(np.zeros(SHAPE, np.uint8), name="mine"))
    desk.panel.session.follow()
    assert "sonoloop" not in desk.viewer.layers["mine"].metadata
