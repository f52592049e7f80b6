"""A queue in the viewer: one frame at a time, whose layers are used again, and nothing lost on leaving it."""

from __future__ import annotations

import numpy as np
import pytest
import tifffile
from desk import box, picture
from napari.layers import Image
from PIL import Image as Pillow

from sonoloop.errors import StoreError
from sonoloop.gui.annotate import queue as queue_module
from sonoloop.gui.annotate import queue_frames
from sonoloop.project import Project
from sonoloop.store.groups import placement
from sonoloop.store.settings import change_settings


@pytest.fixture
def study(tmp_path):
    """Four pictures; the lesion of each lies elsewhere."""
    folder = tmp_path / "study"
    folder.mkdir()
    for number in range(4):
        Pillow.fromarray(picture(number * 5, seed=number)).save(folder / f"case {number}.png")
    return folder


@pytest.fixture
def queue(desk, study):
    """A desk on that folder, its first frame shown and predicted."""
    return enter(desk, study)


def enter(desk, *paths):
    desk.panel.queue.open(list(paths))
    settle(desk)
    return desk


def settle(desk) -> None:
    """Wait until the frame that was gone to is shown, and what comes next is ready."""
    queue = desk.panel.queue

    def is_settled() -> bool:
        timers = queue._arrived.isActive() or queue._begin_next.isActive()
        return not (queue.busy or timers or queue._preparing)

    desk.qtbot.waitUntil(is_settled, timeout=20_000)
    desk.idle()
    desk.ready()
    desk.idle()
    desk.qtbot.waitUntil(is_settled, timeout=20_000)
    desk.idle()


def press(desk, action: str) -> None:
    desk.panel.run(action)
    settle(desk)


def names(desk) -> list[str]:
    return [layer.name for layer in desk.viewer.layers]


def statuses(desk) -> list[str]:
    return [entry.status for entry in desk.panel.queue.list]


def test_the_viewer_holds_one_frame_and_uses_its_layers_again(queue):
    assert queue.view.name == "case 0.png"
    assert names(queue) == ["case 0", "case 0 uncertainty", "case 0 lesions"]
    layers = list(queue.viewer.layers)
    press(queue, "next")
    assert names(queue) == ["case 1", "case 1 uncertainty", "case 1 lesions"]
    assert list(queue.viewer.layers) == layers
    np.testing.assert_array_equal(layers[0].data, picture(5, seed=1))
    np.testing.assert_array_equal(queue.lesions.data, box(5))
    assert queue.view.probabilities is not None


def test_each_frame_is_predicted_once(queue, predictor):
    for _ in range(3):
        press(queue, "next")
    press(queue, "previous")
    assert len(predictor.frames) == len({frame.id for frame in predictor.frames}) == 4


def test_undo_never_writes_pixels_of_the_last_frame(queue):
    queue.lesions.paint((35, 5), 1)
    press(queue, "next")
    queue.lesions.undo()
    queue.lesions.redo()
    np.testing.assert_array_equal(queue.lesions.data, box(5))
    queue.lesions.paint((30, 50), 1)
    queue.lesions.undo()
    np.testing.assert_array_equal(queue.lesions.data, box(5))


def test_what_was_drawn_and_chosen_comes_back(queue):
    queue.lesions.paint((35, 5), 1)
    queue.panel.run("choose_malignant")
    drawn = queue.lesions.data.copy()
    press(queue, "next")
    assert statuses(queue) == ["draft", "to do", "to do", "to do"]
    assert queue.view.label is None
    press(queue, "previous")
    np.testing.assert_array_equal(queue.lesions.data, drawn)
    assert queue.view.label == "malignant"
    assert queue.view.probabilities is not None
    queue.lesions.undo()
    np.testing.assert_array_equal(queue.lesions.data, drawn)


def test_accept_stores_and_goes_on(queue, store):
    queue.panel.run("choose_benign")
    press(queue, "accept")
    assert queue.view.name == "case 1.png"
    assert statuses(queue)[0] == "accepted"
    assert store.count() == 1
    press(queue, "previous")
    assert queue.view.accepted
    np.testing.assert_array_equal(queue.lesions.data, box(0))
    press(queue, "next")
    assert queue.view.name == "case 1.png", "next is what is to do"


def test_an_accepted_frame_of_an_earlier_session_comes_up_as_it_was(queue, make_desk, study, store):
    queue.lesions.paint((35, 5), 2)
    queue.panel.run("choose_malignant")
    drawn = queue.lesions.data.copy()
    press(queue, "accept")
    queue.panel.close_session()
    later = enter(make_desk(), study)
    np.testing.assert_array_equal(later.lesions.data, drawn)
    assert later.view.accepted
    assert later.view.label == "malignant"


def test_tool_and_contrast_and_zoom_stay(queue):
    queue.lesions.mode = "fill"
    queue.lesions.brush_size = 7
    queue.viewer.layers[0].contrast_limits = (20, 120)
    queue.viewer.scene.camera.zoom = 17
    press(queue, "next")
    assert (queue.lesions.mode, queue.lesions.brush_size) == ("fill", 7)
    assert tuple(queue.viewer.layers[0].contrast_limits) == (20, 120)
    assert queue.viewer.scene.camera.zoom == 17
    assert queue.viewer.layers.selection.active == queue.lesions


def test_frames_of_another_size_type_and_colour_in_the_middle(desk, tmp_path):
    folder = tmp_path / "mixed"
    folder.mkdir()
    Pillow.fromarray(picture()).save(folder / "a.png")
    deep = np.tile(picture(), (2, 3)).astype(np.uint16) * 200
    tifffile.imwrite(folder / "b.tif", np.stack([deep, deep // 2]), photometric="minisblack")
    colour = np.stack([picture(), picture(20), picture()], axis=-1)
    Pillow.fromarray(colour).save(folder / "c.png")
    Pillow.fromarray(picture(5)).save(folder / "d.png")
    enter(desk, folder)
    camera = desk.viewer.scene.camera
    camera.zoom = 17
    seen = []
    for _ in range(5):
        image = desk.viewer.layers[0]
        assert desk.lesions.data.shape == image.data.shape[:2]
        seen.append((desk.view.name, image.data.shape, image.contrast_limits[1] > 255))
        press(desk, "next")
    assert seen == [
        ("a.png", (40, 60), False),
        ("b.tif [1]", (80, 180), True),
        ("b.tif [2]", (80, 180), True),
        ("c.png", (40, 60, 3), False),
        ("d.png", (40, 60), False),
    ]
    assert camera.zoom == 17, "each size keeps its view"


def test_a_frame_that_is_drawn_first_shows_no_prediction_made_in_advance(store, desk, study, predictor):
    change_settings(store, draw_first_share=1.0)
    enter(desk, study)
    press(desk, "next")
    assert desk.view.probabilities is None
    assert not desk.lesions.data.any()
    assert desk.lesions.mode == "paint"
    assert len(predictor.frames) > 1, "it was made in advance"
    desk.lesions.paint((35, 5), 1)
    desk.panel.run("choose_benign")
    desk.panel.run("accept")
    settle(desk)
    kept = store.newest(desk.panel.queue._entries[str(study / "case 1.png") + "#0"].frame_id).correction
    assert (kept.prediction_seen, kept.prediction is not None) == (False, True)


def test_a_file_that_vanished_is_named_and_the_frame_before_it_stays(queue, study, notices):
    for number in (1, 2):
        queue.panel.queue._ready.take(f"{study / f'case {number}.png'}#0")
        (study / f"case {number}.png").unlink()
    queue.lesions.paint((35, 5), 1)
    press(queue, "next")
    assert "case 1.png" in notices[-1]
    assert queue.view.name == "case 0.png"
    press(queue, "next")
    press(queue, "next")
    assert queue.view.name == "case 3.png"


def test_a_lesions_layer_deleted_by_hand_comes_back_with_its_mask(queue, notices):
    drawn = queue.lesions.data.copy()
    queue.viewer.layers.remove(queue.lesions)
    settle(queue)
    np.testing.assert_array_equal(queue.lesions.data, drawn)
    assert "layer is back" in notices[-1]


def test_an_image_deleted_by_hand_loses_nothing(queue, notices):
    queue.lesions.paint((35, 5), 1)
    drawn = queue.lesions.data.copy()
    queue.viewer.layers.clear()
    settle(queue)
    assert names(queue) == []
    assert "case 0.png" in notices[-1]
    queue.panel.queue.go_to(next(iter(queue.panel.queue.list)))
    settle(queue)
    np.testing.assert_array_equal(queue.lesions.data, drawn)


def test_an_image_of_the_users_own_stays_beside_the_queue(queue):
    own = queue.open(Image(picture(20), name="own"))
    assert queue.view.name == "own"
    press(queue, "next")
    assert queue.view.name == "case 1.png"
    assert own in queue.viewer.layers
    assert not own.visible


def test_statuses_come_in_from_the_store_for_the_annotator(queue, make_desk, study):
    queue.panel.run("choose_benign")
    press(queue, "accept")
    queue.panel.queue.mark("excluded", "axilla")
    settle(queue)
    assert queue.view.name == "case 2.png"
    queue.panel.close_session()
    later = enter(make_desk(), study)
    later.qtbot.waitUntil(lambda: statuses(later) == ["accepted", "excluded", "to do", "to do"])
    accepted, excluded, *_ = later.panel.queue.list
    assert (accepted.decided, excluded.reason) == ("benign", "axilla")
    other = enter(make_desk(annotator="bela"), study)
    other.idle()
    assert statuses(other) == ["to do"] * 4, "what one annotator put aside is another's to do"


def test_flag_asks_why_and_goes_on_and_is_taken_back(queue):
    panel = queue.panel
    queue.lesions.paint((35, 5), 1)
    drawn = queue.lesions.data.copy()
    panel.run("flag")
    assert not panel._reason.isHidden()
    panel._reason._line.setText("ask Bela")
    panel._reason._line.returnPressed.emit()
    settle(queue)
    assert queue.view.name == "case 1.png"
    first = next(iter(panel.queue.list))
    assert (first.status, first.reason) == ("flagged", "ask Bela")
    press(queue, "previous")
    np.testing.assert_array_equal(queue.lesions.data, drawn)
    press(queue, "flag")
    assert (first.status, queue.view.name) == ("draft", "case 0.png")


def test_what_the_store_refuses_to_mark_is_told_and_stays_as_it_was(queue, monkeypatch, notices):
    def fail(*_):
        raise StoreError("the disk is full; make room")

    monkeypatch.setattr(Project, "mark", fail)
    queue.panel.queue.mark("skipped", "later")
    settle(queue)
    assert statuses(queue)[0] == "to do"
    assert "the disk is full" in notices[-1]


def test_a_correction_that_cannot_be_stored_is_a_draft_that_comes_back(queue, monkeypatch, notices):
    def fail(*_, **__):
        raise StoreError("the store is locked; try again")

    queue.lesions.paint((35, 5), 1)
    drawn = queue.lesions.data.copy()
    queue.panel.run("choose_benign")
    with monkeypatch.context() as patch:
        patch.setattr(Project, "accept", fail)
        press(queue, "accept")
    assert queue.view.name == "case 1.png"
    assert "the store is locked" in notices[-1]
    assert statuses(queue)[0] == "draft"
    press(queue, "previous")
    np.testing.assert_array_equal(queue.lesions.data, drawn)
    press(queue, "accept")
    assert statuses(queue)[0] == "accepted"


def test_the_panel_says_where_one_is_and_how_far(queue):
    panel = queue.panel
    queue.panel.run("choose_benign")
    press(queue, "accept")
    panel._render_list()
    assert panel._place.text() == "2 / 4"
    assert panel._progress._text.text() == "1 accepted · 3 to do"
    assert "accepted: benign" in panel._list.model.data(panel._list.model.index(0))
    assert panel._accept.text().startswith("Accept →")


def test_the_list_is_filtered_and_gone_through_as_filtered(queue):
    panel = queue.panel
    panel._list._search.setText("case 3")
    panel._list._filter()
    assert [entry.name for entry in panel._list.model.entries] == ["case 3.png"]
    press(queue, "next")
    assert queue.view.name == "case 3.png"
    panel._list._search.clear()
    panel._list._statuses.setCurrentText("to do")
    assert len(panel._list.model.entries) == 4
    panel._list.list.clicked.emit(panel._list.model.index(1))
    settle(queue)
    assert queue.view.name == "case 1.png"


def test_simple_shows_the_class_and_accept_alone(queue):
    panel = queue.panel
    panel._simple.setChecked(True)
    for widget in (panel._facts, panel._list, panel._bar, panel._why, panel._notice):
        assert widget.isHidden()
    for widget in (panel._classes, panel._accept, panel._predict, panel._progress):
        assert not widget.isHidden()
    panel._simple.setChecked(False)
    assert not panel._list.isHidden()
    assert not panel._facts.isHidden()


def test_a_folder_without_an_image_says_so_and_the_queue_stays(queue, tmp_path, notices):
    (tmp_path / "empty").mkdir()
    queue.panel.queue.open([tmp_path / "empty"])
    settle(queue)
    assert "empty holds no PNG" in notices[-1]
    assert queue.view.name == "case 0.png"


def test_a_folder_that_may_only_be_read_is_gone_through(desk, study, store):
    for path in (*study.iterdir(), study):
        path.chmod(0o555 if path.is_dir() else 0o444)
    try:
        enter(desk, study)
        desk.panel.run("choose_benign")
        press(desk, "accept")
    finally:
        study.chmod(0o755)
    assert store.count() == 1


def test_an_image_as_large_as_is_read_is_neither_predicted_nor_kept_in_advance(monkeypatch, queue, study):
    monkeypatch.setattr(queue_frames, "_MOST_PIXELS_AHEAD", 40 * 60 - 1)
    monkeypatch.setattr(queue.panel.queue._ready, "_most", 2 * 40 * 60)
    queue.panel.queue._ready.keep_only(())
    press(queue, "next")
    assert queue.panel.queue._ready.nbytes <= 2 * 40 * 60
    press(queue, "next")
    assert queue.view.name == "case 2.png"
    assert queue.view.probabilities is not None, "it is predicted once it is there"


def test_frames_left_long_ago_keep_their_work_and_not_the_rest(queue, monkeypatch):
    monkeypatch.setattr(queue_module, "_MOST_KEPT_BYTES", 1)
    queue.lesions.paint((35, 5), 1)
    drawn = queue.lesions.data.copy()
    press(queue, "next")
    press(queue, "next")
    known = queue.panel.session.known_states()
    assert [key[0].rpartition("/")[2] for key in known] == ["case 0.png#0", "case 2.png#0"]
    press(queue, "previous")
    assert queue.view.probabilities is not None, "it is found out again"
    press(queue, "previous")
    np.testing.assert_array_equal(queue.lesions.data, drawn)
    assert statuses(queue)[0] == "draft"


def test_the_last_frame_says_that_nothing_is_left(queue, notices):
    for _ in range(4):
        queue.panel.run("choose_benign")
        press(queue, "accept")
    assert notices[-1].startswith("Nothing is left")
    assert statuses(queue) == ["accepted"] * 4
    assert queue.view.accepted


def test_a_patient_of_a_table_makes_a_group(desk, study, store):
    table = study / "list.csv"
    table.write_text("path,patient\ncase 0.png,p1\ncase 1.png,p1\ncase 2.png,p2\n")
    enter(desk, table)
    press(desk, "next")
    press(desk, "next")
    groups = [placement(store, entry.frame_id).group_id for entry in desk.panel.queue.list]
    assert groups[0] == groups[1] != groups[2]


def test_a_file_that_was_written_anew_is_another_frame(queue, study, notices):
    queue.lesions.paint((35, 5), 1)
    queue.panel.run("choose_malignant")
    press(queue, "next")
    queue.panel.queue._ready.keep_only(())
    Pillow.fromarray(picture(20, seed=9)).save(study / "case 0.png")
    press(queue, "previous")
    np.testing.assert_array_equal(queue.lesions.data, box(20))
    assert queue.view.label is None
    assert "was written anew" in notices[-1]
    assert statuses(queue)[0] == "to do"


def test_closing_the_panel_while_frames_are_prepared_ends_well(desk, study, predictor):
    predictor.gate.clear()
    desk.panel.queue.open([study])
    desk.qtbot.waitUntil(lambda: bool(predictor.frames))
    desk.panel.close_session()
    predictor.gate.set()
    desk.idle()
    assert len(predictor.frames) <= 2, "nothing new was begun"


def test_a_prediction_for_a_frame_that_was_jumped_over_is_dropped(queue, predictor):
    first, *_, last = queue.panel.queue.list
    queue.panel.queue._ready.keep_only(())
    predictor.gate.clear()
    queue.panel.queue._read_ahead()
    queue.panel.queue.go_to(last)
    predictor.gate.set()
    settle(queue)
    assert queue.view.name == last.name
    queue.panel.queue.go_to(first)
    settle(queue)
    np.testing.assert_array_equal(queue.lesions.data, box(0))


def test_notes_stay_with_their_frame(queue):
    notes = queue.panel._notes
    notes.fold.setChecked(True)
    notes._line.setText("calipers in the image")
    notes._line.returnPressed.emit()
    queue.idle()
    assert "anna: calipers in the image" in notes._text.text()
    press(queue, "next")
    assert notes._text.text() == ""
    press(queue, "previous")
    queue.qtbot.waitUntil(lambda: "anna: calipers in the image" in notes._text.text())
    assert notes.fold.text() == "Notes (1)"
