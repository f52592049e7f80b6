"""The tools that repair a lesion: clicks that a model answers, and edits of the outline."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from desk import box, picture
from napari.layers import Image

from sonoloop.errors import ModelError
from sonoloop.models.prompts import Prompts


class FakeCorrector:
    """Makes a square of 7 pixels around the last point lesion, or none."""

    def __init__(self) -> None:
        self.asked: list[dict] = []

    def correct(self, frame, mask, prompts, *, lesion, kept=None):
        self.asked.append({"mask": mask, "prompts": prompts, "lesion": lesion, "kept": kept})
        made = mask.copy()
        if prompts.box is not None and not prompts.strokes:
            top, left, bottom, right = map(int, prompts.box)
            made[top : bottom + 1, left : right + 1] = lesion
            return made
        stroke = prompts.strokes[-1]
        row, column = map(int, stroke.points[-1])
        made[row - 3 : row + 4, column - 3 : column + 4] = lesion if stroke.inside else 0
        return made if kept is None else np.where(kept, mask, made)


@pytest.fixture
def corrector(desk) -> FakeCorrector:
    fake = FakeCorrector()
    desk.panel._repair._load = lambda device, engine: fake
    return fake


@pytest.fixture
def tools(desk, corrector):
    desk.open(Image(picture(), name="case"))
    desk.predict()
    return desk.panel._repair


def press(tools, *points, button: int = 1, modifiers=()) -> None:
    """Press, move and let go on the canvas."""
    layer = tools._layer
    events = [SimpleNamespace(type="mouse_press", position=points[0], button=button, modifiers=modifiers)]
    event = events[0]
    dragging = layer.mouse_drag_callbacks[-1](layer, event)
    next(dragging)
    for point in points[1:]:
        event.type, event.position = "mouse_move", point
        next(dragging)
    event.type = "mouse_release"
    with pytest.raises(StopIteration):
        next(dragging)


def test_a_click_repairs_the_mask_in_one_undo_step(desk, tools, corrector) -> None:
    tools._on_tool("click", True)
    press(tools, (30, 40))
    desk.idle()
    assert (desk.lesions.data[27:34, 37:44] == 1).all()
    assert np.array_equal(corrector.asked[0]["mask"], box())
    press(tools, (30, 40), button=2)
    desk.idle()
    assert corrector.asked[1]["prompts"] == Prompts().click(30, 40).click(30, 40, inside=False)
    assert np.array_equal(desk.lesions.data, box())
    desk.lesions.undo()
    assert (desk.lesions.data[27:34, 37:44] == 1).all()


def test_the_last_click_is_taken_back_and_what_was_painted_since_stays(desk, tools) -> None:
    tools._on_tool("click", True)
    press(tools, (30, 40))
    desk.idle()
    desk.lesions.data_setitem((np.array([2]), np.array([2])), 1)
    tools.undo()
    expected = box()
    expected[2, 2] = 1
    assert np.array_equal(desk.lesions.data, expected)
    assert not tools.prompts()


def test_a_box_and_a_line_are_drawn(desk, tools, corrector) -> None:
    tools._on_tool("box", True)
    press(tools, (2, 3), (5, 5), (8, 12))
    desk.idle()
    assert corrector.asked[-1]["prompts"].box == (2, 3, 8, 12)
    assert (desk.lesions.data[2:9, 3:13] == 1).all()
    press(tools, (2, 3))
    tools._on_tool("line", True)
    press(tools, (20, 20), (20, 22), (20, 99), modifiers=("Alt",))
    desk.idle()
    assert corrector.asked[-1]["prompts"].strokes[0].points == ((20, 20), (20, 22))
    assert not corrector.asked[-1]["prompts"].strokes[0].inside
    assert len(corrector.asked) == 2


def test_what_was_painted_is_kept_where_the_annotator_says_so(desk, tools, corrector) -> None:
    tools._keep.setChecked(True)
    desk.lesions.data_setitem((np.array([30]), np.array([40])), 1)
    tools._on_tool("click", True)
    press(tools, (30, 41), button=2)
    desk.idle()
    assert corrector.asked[0]["kept"].sum() == 1
    assert desk.lesions.data[30, 40] == 1


def test_an_answer_to_what_was_drawn_over_since_is_dropped(desk, tools) -> None:
    tools._on_tool("click", True)
    press(tools, (30, 40))
    desk.lesions.data_setitem((np.array([2]), np.array([2])), 1)
    desk.idle()
    expected = box()
    expected[2, 2] = 1
    assert np.array_equal(desk.lesions.data, expected)


def test_without_a_model_that_takes_clicks_it_says_what_to_do(desk, tools, notices) -> None:
    def load(device, engine):
        raise ModelError("no model on this machine takes clicks: import one")

    tools._load = load
    tools._on_tool("click", True)
    press(tools, (30, 40))
    desk.idle()
    assert any("takes clicks" in text for text in notices)
    assert np.array_equal(desk.lesions.data, box())
    assert not tools.prompts()


def test_a_frame_that_is_drawn_first_gets_no_answer(desk, tools, corrector, notices) -> None:
    desk.panel.session.state(desk.panel.session.target).draw_first = True
    tools._on_tool("click", True)
    press(tools, (30, 40))
    desk.idle()
    assert not corrector.asked
    assert any("drawn first" in text for text in notices)


def test_the_mouse_is_given_back(desk, tools) -> None:
    layer = desk.lesions
    tools._on_tool("click", True)
    assert not layer.mouse_pan
    layer.mode = "paint"
    assert tools._tool is None
    assert not tools._buttons["click"].isChecked()
    assert tools._on_drag not in layer.mouse_drag_callbacks
    tools._on_tool("click", True)
    desk.panel.close_session()
    assert layer.mouse_pan
    assert tools._on_drag not in layer.mouse_drag_callbacks


def test_edits_change_the_selected_lesion_and_are_undone(desk, tools, notices) -> None:
    edits = {button.text(): button for button in tools._tools.findChildren(type(tools._back))}
    edits["Grow"].click()
    assert (desk.lesions.data > 0).sum() == 50 + 30
    desk.lesions.undo()
    assert np.array_equal(desk.lesions.data, box())
    edits["Shrink"].click()
    assert (desk.lesions.data > 0).sum() == 3 * 8
    edits["Merge"].click()
    assert any("no other lesion" in text for text in notices)
    desk.lesions.selected_label = 4
    edits["Fill"].click()
    assert any("There is no lesion 4" in text for text in notices)


def test_the_slider_outlines_the_lesion_at_a_threshold(desk, tools) -> None:
    prediction = desk.panel.session.state(desk.panel.session.target).prediction
    prediction.lesion[15:18, 20:30] = 0.4
    tools._at.setValue(30)
    assert (desk.lesions.data[10:18, 20:30] == 1).all()
    tools._at.setValue(60)
    assert np.array_equal(desk.lesions.data, box())
    # one that went comes back while the slider is held
    prediction.lesion[10:15, 20:30] = 0.9
    tools._at.sliderPressed.emit()
    tools._at.setValue(95)
    assert not desk.lesions.data.any()
    tools._at.setValue(60)
    assert np.array_equal(desk.lesions.data, box())


def test_the_lesion_that_is_clicked_is_the_one_at_hand(desk, tools, corrector) -> None:
    desk.lesions.data_setitem((np.full(5, 30), np.arange(40, 45)), 3)
    tools._on_tool("click", True)
    press(tools, (30, 42))
    desk.idle()
    assert corrector.asked[0]["lesion"] == 3
    press(tools, (38, 50))
    desk.idle()
    assert corrector.asked[1]["lesion"] == 3
