"""What a correction took: counted on the frame that it was spent on, without the pauses."""

from __future__ import annotations

import pytest
from desk import picture
from napari.layers import Image

from sonoloop.store.settings import change_settings


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def case(desk, clock):
    desk.panel.effort._clock = clock
    desk.open(Image(picture(), name="case"))
    return desk


def effort(desk):
    return desk.panel.effort.effort(desk.panel.session.target)


def test_strokes_undos_clicks_and_what_was_shown_are_counted(case, clock):
    clock.now += 5
    case.predict()
    case.lesions.paint((30, 40), 1)
    case.lesions.paint((31, 40), 1)
    case.panel.run("choose_benign")
    case.lesions.undo()
    case.lesions.undo()
    case.lesions.redo()
    case.panel.effort.click()
    told = effort(case)
    assert (told.strokes, told.undos, told.clicks, told.mode) == (2, 2, 1, "proposal")
    assert told.shown == (("prediction", 5.0),)


def test_pauses_are_taken_off_and_so_is_time_on_other_frames(case, clock):
    begin = effort(case).active_seconds
    for wait in (10, 10, 300, 4):
        clock.now += wait
        case.panel.effort.act()
    assert effort(case).active_seconds - begin == 24
    first = case.panel.session.target
    case.open(Image(picture(20), name="other"))
    clock.now += 15
    case.panel.effort.act()
    assert case.panel.effort.effort(first).active_seconds - begin == 24
    assert effort(case).active_seconds >= 15


def test_it_is_stored_with_the_correction_and_begins_anew(case, store, clock):
    change_settings(store, record_time=True)
    case.panel.run("choose_malignant")
    case.lesions.paint((30, 40), 1)
    clock.now += 7
    case.accept()
    frame_id = case.panel.session.target.capture().frame().id
    told = store.newest(frame_id).correction.effort
    assert (told.strokes, told.mode, told.active_seconds) == (1, "scratch", 7)
    assert told.started is not None
    assert effort(case).strokes == 0


def test_a_draft_keeps_the_counts_and_no_times(case, make_desk, clock):
    case.panel.run("choose_malignant")
    case.lesions.paint((30, 40), 1)
    case.panel.close_session()
    again = make_desk()
    again.open(Image(picture(), name="case"))
    again.qtbot.waitUntil(lambda: again.view.label == "malignant")
    again.lesions.paint((30, 41), 1)
    told = effort(again)
    assert (told.strokes, told.mode) == (2, "scratch")
    assert (told.started, told.active_seconds) == (None, None)
    assert told.shown == (("draft", None),)
