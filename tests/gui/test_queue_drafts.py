"""A queue's frames keep their unfinished work, from napari to napari."""

from __future__ import annotations

import numpy as np
import pytest
from desk import box, picture
from PIL import Image

from sonoloop.drafts import DraftFolder, draft_folder


@pytest.fixture
def folder(store_url) -> DraftFolder:
    return DraftFolder(draft_folder(store_url, "anna"))


@pytest.fixture
def images(tmp_path):
    (tmp_path / "images").mkdir()
    for number in range(3):
        Image.fromarray(picture(10, seed=number)).save(tmp_path / "images" / f"case {number}.png")
    return tmp_path / "images"


def go(desk, images, at: int):
    desk.panel.queue.open([images], at=images / f"case {at}.png")
    desk.qtbot.waitUntil(lambda: shows(desk, at), timeout=20_000)


def shows(desk, at: int) -> bool:
    queue = desk.panel.queue
    name = "" if queue.shown is None else queue.shown.name
    answered = not (desk.view.why_no_accept or "").startswith("Looking")
    read = all(frame.read for frame in desk.panel.journal._frames.values())
    return name == f"case {at}.png" and not queue._session.arriving and answered and read


def test_frames_that_were_left_at_once_come_back_in_the_next_napari(make_desk, images, folder):
    desk = make_desk()
    go(desk, images, 0)
    desk.predict()
    desk.lesions.data_setitem((np.array([30]), np.array([5])), 2)
    desk.panel.run("choose_malignant")
    desk.panel.queue.go_to(list(desk.panel.queue.list)[1])  # before anything was written
    desk.qtbot.waitUntil(lambda: shows(desk, 1))
    desk.panel.run("choose_normal")
    desk.lesions.undo()  # the history is this frame's alone
    desk.lesions.undo()
    desk.panel.journal.flush()
    assert len(folder.ids()) == 1
    desk.panel.close_session()
    again = make_desk()
    go(again, images, 1)
    again.qtbot.waitUntil(lambda: "draft" in [entry.status for entry in again.panel.queue.list])
    again.panel.queue.go_to(next(iter(again.panel.queue.list)))
    again.qtbot.waitUntil(lambda: shows(again, 0))
    mask = box()
    mask[30, 5] = 2
    np.testing.assert_array_equal(again.lesions.data, mask)
    assert again.view.label == "malignant"
    assert again.panel.unfinished.text()


def test_accept_and_next_drops_the_draft_of_the_frame_that_was_left(make_desk, images, folder):
    desk = make_desk()
    go(desk, images, 0)
    desk.predict()
    desk.panel.run("choose_benign")
    desk.panel.journal.flush()
    assert len(folder.ids()) == 1
    desk.panel.run("accept")
    desk.qtbot.waitUntil(lambda: not folder.ids(), timeout=20_000)
    desk.qtbot.waitUntil(lambda: shows(desk, 1), timeout=20_000)
