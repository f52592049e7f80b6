"""What is drawn and not accepted is on disk within two seconds, and comes back."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from desk import box, picture
from napari.layers import Image

from sonoloop.drafts import DraftFolder, draft_folder


@pytest.fixture
def folder(store_url) -> DraftFolder:
    return DraftFolder(draft_folder(store_url, "anna"))


def the_draft(desk, folder):
    """The only draft, once everything is written; None where there is none."""
    desk.panel.journal.flush()
    found = folder.ids()
    assert len(found) < 2
    return folder.read(next(iter(found))) if found else None


def press(desk, text):
    next(button for button in desk.panel.unfinished.buttons() if button.text() == text).click()
    desk.panel.session.follow()


def reopen(desk, make_desk, **options):
    """Close the panel as a crash or a plain end would leave it, and open the picture in another napari."""
    desk.panel.close_session()
    again = make_desk(**options)
    again.open(Image(picture(), name="case"))
    again.qtbot.waitUntil(lambda: all(frame.read for frame in again.panel.journal._frames.values()))
    return again


@pytest.fixture
def drawn(desk):
    """A picture with a proposal, a stroke and a class."""
    desk.open(Image(picture(), name="case"))
    desk.predict()
    desk.lesions.paint((30, 40), 2)
    desk.panel.run("choose_malignant")
    return desk


def test_a_stroke_is_on_disk_soon_without_anybody_asking(drawn, folder):
    assert drawn.panel.journal._timer.interval() <= 1000, "half of what is promised, the rest is for the disk"
    drawn.qtbot.waitUntil(lambda: bool(folder.ids()))
    drawn.qtbot.waitUntil(lambda: the_draft(drawn, folder).label == "malignant")
    draft = the_draft(drawn, folder)
    np.testing.assert_array_equal(draft.mask, drawn.lesions.data)
    assert (draft.annotator, draft.model, draft.seen) == ("anna", "fake-1", True)


def test_undo_and_redo_reach_it_though_they_emit_no_paint_event(drawn, folder):
    painted = drawn.lesions.data.copy()
    drawn.lesions.undo()  # the class
    drawn.lesions.undo()  # the stroke: nothing is left that a person did
    assert the_draft(drawn, folder) is None
    drawn.lesions.redo()
    np.testing.assert_array_equal(the_draft(drawn, folder).mask, painted)
    assert the_draft(drawn, folder).label is None
    drawn.lesions.redo()
    assert the_draft(drawn, folder).label == "malignant"


def test_a_mask_that_is_replaced_or_changed_in_place_reaches_it(drawn, folder):
    drawn.lesions.data = box(20)
    np.testing.assert_array_equal(the_draft(drawn, folder).mask, box(20))
    drawn.lesions.data[0] = 3
    drawn.lesions.refresh()
    assert (the_draft(drawn, folder).mask[0] == 3).all()


def test_neither_an_image_nor_a_proposal_is_a_draft(desk, folder):
    desk.open(Image(picture(), name="case"))
    assert the_draft(desk, folder) is None
    desk.predict()
    assert the_draft(desk, folder) is None


def test_after_the_end_of_napari_it_is_back_as_it_was(drawn, make_desk, folder, notices):
    mask = drawn.lesions.data.copy()
    again = reopen(drawn, make_desk)
    np.testing.assert_array_equal(again.lesions.data, mask)
    assert again.view.label == "malignant"
    assert again.panel.unfinished.text().startswith("Your unfinished work of ")
    assert notices == []
    # the same proposal once more changes nothing and asks nothing
    again.predict()
    np.testing.assert_array_equal(again.lesions.data, mask)
    again.accept()
    assert the_draft(again, folder) is None
    assert again.panel.unfinished.text() == ""


def test_a_proposal_that_was_seen_before_the_end_stays_seen(drawn, make_desk, store):
    again = reopen(drawn, make_desk)
    again.accept()
    assert store.newest(folder_id(drawn)).correction.prediction_seen


def folder_id(desk) -> str:
    return desk.panel.session.target.capture().frame().id


def test_discard_takes_it_off_and_undo_brings_it_back(drawn, make_desk, folder):
    mask = drawn.lesions.data.copy()
    again = reopen(drawn, make_desk)
    press(again, "Discard")
    assert not again.lesions.data.any()
    assert again.view.label is None
    assert again.panel.unfinished.buttons() == []
    assert the_draft(again, folder) is None
    again.lesions.undo()
    np.testing.assert_array_equal(again.lesions.data, mask)
    assert the_draft(again, folder).label == "malignant"


def test_accept_drops_it_only_after_the_store_said_yes(drawn, make_desk, folder, store, monkeypatch):
    the_draft(drawn, folder)
    monkeypatch.setattr(type(store), "accept", lambda *_, **__: (_ for _ in ()).throw(OSError(28, "full")))
    drawn.panel.run("accept")
    drawn.idle()
    assert the_draft(drawn, folder) is not None
    monkeypatch.undo()
    monkeypatch.setattr("sonoloop.drafts.drafts_root", lambda: folder.folder.parents[1])
    drawn.accept()
    assert the_draft(drawn, folder) is None


def test_strokes_after_accept_are_a_draft_again_and_undoing_them_is_not(drawn, folder):
    drawn.accept()
    drawn.lesions.paint((5, 5), 1)
    assert the_draft(drawn, folder) is not None
    drawn.lesions.undo()
    assert the_draft(drawn, folder) is None


@pytest.mark.parametrize("answer", ["My unfinished work", "What is on the canvas"])
def test_a_newer_correction_of_the_same_annotator_is_asked_about_and_both_are_kept(
    drawn, make_desk, folder, answer
):
    the_draft(drawn, folder)
    kept = folder.folder / f"{folder_id(drawn)}.png"
    data = kept.read_bytes()
    drawn.panel.run("choose_benign")
    drawn.accept()
    drawn.panel.close_session()
    kept.write_bytes(data)  # as another machine of the annotator's would have it
    again = make_desk()
    again.open(Image(picture(), name="case"))
    again.qtbot.waitUntil(lambda: len(again.panel.unfinished.buttons()) == 2)
    assert again.view.label == "benign"
    press(again, answer)
    again.panel.journal.flush()
    if answer == "My unfinished work":
        assert again.view.label == "malignant"
        assert the_draft(again, folder).label == "malignant"
    else:
        assert again.view.accepted
        assert folder.ids() == frozenset()
        assert [path.read_bytes() for path in folder.folder.glob("*.aside-1.png")] == [data]
    assert again.panel.unfinished.buttons() == [] or again.panel.unfinished.text()


def test_a_draft_that_the_store_has_all_of_goes_unasked(drawn, make_desk, folder):
    the_draft(drawn, folder)
    kept = folder.folder / f"{folder_id(drawn)}.png"
    data = kept.read_bytes()
    drawn.accept()
    drawn.panel.close_session()
    kept.write_bytes(data)  # as if the power had gone before it was dropped
    again = reopen(drawn, make_desk)
    assert again.view.accepted
    assert again.panel.unfinished.buttons() == []
    assert the_draft(again, folder) is None


def test_a_layer_removed_by_hand_can_be_brought_back(drawn, folder):
    mask = drawn.lesions.data.copy()
    drawn.viewer.layers.remove(drawn.lesions)
    drawn.panel.session.follow()
    np.testing.assert_array_equal(the_draft(drawn, folder).mask, mask)
    press(drawn, "My unfinished work")
    np.testing.assert_array_equal(drawn.lesions.data, mask)
    assert drawn.view.label == "malignant"
    np.testing.assert_array_equal(the_draft(drawn, folder).mask, mask)


def test_closing_the_viewer_or_removing_the_image_loses_nothing(drawn, folder):
    mask = drawn.lesions.data.copy()
    drawn.viewer.layers.clear()
    np.testing.assert_array_equal(the_draft(drawn, folder).mask, mask)


def test_a_disk_that_is_full_is_told_once_and_tried_again(drawn, folder, notices, monkeypatch):
    write = Path.write_bytes

    def fill(*_):
        raise OSError(28, "No space left on device", "draft.png")

    monkeypatch.setattr(Path, "write_bytes", fill)
    for row in (3, 6):
        drawn.lesions.paint((row, 3), 1)
        drawn.panel.journal.flush()
        drawn.idle()
    assert len([text for text in notices if "draft" in text]) == 1
    monkeypatch.setattr(Path, "write_bytes", write)
    drawn.panel.journal.capture()  # as its timer does
    np.testing.assert_array_equal(the_draft(drawn, folder).mask, drawn.lesions.data)


def test_a_draft_of_other_pixels_is_named_and_kept(drawn, make_desk, folder, notices):
    draft = the_draft(drawn, folder)
    drawn.panel.close_session()
    folder.write(type(draft)(**{**{n: getattr(draft, n) for n in draft.__slots__}, "pixels_hash": "0" * 64}))
    again = make_desk()
    again.open(Image(picture(), name="case"))
    again.qtbot.waitUntil(lambda: bool(notices))
    assert "case" in notices[0]
    assert "other pixels" in notices[0]
    assert list(folder.folder.glob("*.aside-1.png"))
    assert again.panel.unfinished.buttons() == []


def test_what_two_windows_draw_on_a_frame_is_all_kept(drawn, make_desk, folder):
    the_draft(drawn, folder)
    other = make_desk()
    other.open(Image(picture(), name="case"))
    other.qtbot.waitUntil(lambda: other.view.label == "malignant")
    other.panel.run("choose_benign")
    assert the_draft(other, folder).label == "benign"
    drawn.lesions.paint((3, 3), 1)
    assert the_draft(drawn, folder).label == "malignant"
    assert len(list(folder.folder.glob("*.aside-*.png"))) == 1


def test_a_stack_keeps_each_frame_and_undo_reaches_those_not_shown(desk, folder):
    desk.open(Image(np.stack([picture(row, seed=row) for row in (0, 10)]), name="cine"))
    desk.predict()
    desk.lesions.paint((desk.viewer.dims.current_step[0], 30, 40), 2)
    at = desk.viewer.dims.current_step[0]
    desk.viewer.dims.set_current_step(0, 1 - at)
    desk.ready()
    assert the_draft(desk, folder) is not None
    desk.lesions.undo()
    assert the_draft(desk, folder) is None


def test_pixels_that_are_replaced_are_another_frame_with_drafts_of_its_own(drawn, folder):
    first = the_draft(drawn, folder)
    drawn.viewer.layers["case"].data = picture(20)
    drawn.ready()
    drawn.panel.run("choose_benign")
    drawn.panel.journal.flush()
    np.testing.assert_array_equal(folder.read(first.frame_id).mask, first.mask)
    assert folder.read(first.frame_id).label == "malignant"
    assert folder.read(folder_id(drawn)).label == "benign"


def test_a_file_with_other_pixels_than_its_draft_is_named(make_desk, folder, tmp_path, notices):
    from PIL import Image as Picture

    from sonoloop.gui.reader import read

    path = tmp_path / "case.png"
    for row in (10, 20):
        Picture.fromarray(picture(row)).save(path)
        desk = make_desk()
        data, options, _ = read(str(path))[0]
        desk.open(Image(data, **options))
        desk.panel.run("choose_malignant")
        desk.panel.journal.flush()
        if row == 20:
            desk.qtbot.waitUntil(lambda: bool(notices))
        desk.panel.close_session()
    assert "case" in notices[0] and "other pixels" in notices[0]
    assert len(folder.ids()) == 2
