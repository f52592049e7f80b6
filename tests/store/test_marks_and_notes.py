"""What an annotator sets a frame to and writes on it, and the overview of many frames."""

from __future__ import annotations

import numpy as np
import pytest
from scenes import correct, make_frame
from sqlalchemy import event, insert, text
from store_writers import make_correction, make_prediction, sha256

from sonoloop.errors import StoreError
from sonoloop.store.groups import place_frame
from sonoloop.store.marks import mark_frame
from sonoloop.store.notes import add_note, list_notes
from sonoloop.store.overview import FrameOverview, read_overview
from sonoloop.store.tables import ASSIGNMENTS, FRAMES
from sonoloop.store.withdrawal import withdraw

FRAME = sha256("frame")


def look(store, frame_id: str = FRAME, annotator: str = "reader-1") -> FrameOverview:
    return read_overview(store, [frame_id], annotator=annotator)[frame_id]


def count(store, table: str) -> int:
    with store.reading() as connection:
        return connection.scalar(text(f"SELECT count(*) FROM {table}"))


def test_the_last_mark_holds_for_its_annotator_alone(store):
    assert look(store) == FrameOverview()
    store.accept(make_correction(annotator="reader-2"), parent=None)
    mark_frame(store, FRAME, "flagged", " too dark ", annotator="reader-1")
    mark_frame(store, FRAME, "flagged", "too dark", annotator="reader-1")
    assert count(store, "frame_marks") == 1
    assert (look(store).status, look(store).reason, look(store).others) == ("flagged", "too dark", 1)
    assert look(store, annotator="reader-2").status == "accepted"
    mark_frame(store, FRAME, "excluded", "no breast", annotator="reader-1")
    assert look(store).status == "excluded"
    mark_frame(store, FRAME, "open", "", annotator="reader-1")
    assert (look(store).status, look(store).reason) == ("to do", "")


def test_accepting_takes_a_mark_back_and_marking_does_not_take_back_a_correction(store):
    store.accept(make_correction(annotator="reader-2"), parent=None)
    mark_frame(store, FRAME, "skipped", "", annotator="reader-1")
    first = store.accept(make_correction(), parent=None)
    assert (look(store).status, look(store).label) == ("accepted", "benign")
    mark_frame(store, FRAME, "flagged", "ask", annotator="reader-1")
    assert (look(store).status, look(store).label) == ("flagged", "benign")
    assert store.accept(make_correction(), parent=first.id).id == first.id
    assert look(store).status == "accepted"


@pytest.mark.parametrize(
    ("status", "reason", "said"),
    [
        ("done", "", "a frame cannot be 'done': choose one of flagged"),
        ("flagged", "x" * 10_001, "10001 characters"),
        ("flagged", "a\0b", "no text"),
        ("flagged", "\ud800", "no text"),
    ],
)
def test_what_cannot_be_a_mark_is_said(store, status, reason, said):
    store.accept(make_correction(), parent=None)
    with pytest.raises(StoreError, match=said):
        mark_frame(store, FRAME, status, reason, annotator="reader-1")
    assert count(store, "frame_marks") == 0


def test_notes_add_up(store):
    with pytest.raises(StoreError, match="has no image"):
        add_note(store, FRAME, "a scar", annotator="reader-1")
    store.accept(make_correction(), parent=None)
    with pytest.raises(StoreError, match="the note is empty"):
        add_note(store, FRAME, " \n ", annotator="reader-1")
    add_note(store, FRAME, "a scar\nat 3 o'clock; «é»", annotator="reader-1")
    add_note(store, FRAME, "agreed", annotator="reader-2")
    assert [(one.annotator, one.text) for one in list_notes(store, FRAME)] == [
        ("reader-1", "a scar\nat 3 o'clock; «é»"),
        ("reader-2", "agreed"),
    ]


def test_a_withdrawal_erases_what_was_written_and_keeps_the_fact(store, shell):
    frame = make_frame(1)
    place_frame(store, frame, patient="4711")
    store.accept(correct(frame, lesions={1: "benign"}), parent=None)
    mark_frame(store, frame.id, "flagged", "Muster, Anna", annotator="reader-1")
    add_note(store, frame.id, "Muster, Anna", annotator="reader-1")
    withdraw(store, "4711", why="asked to", who="reader-1")
    assert store.verify() == []
    assert [(note.annotator, note.text) for note in list_notes(store, frame.id)] == [("reader-1", "")]
    (revision,) = store.history(frame.id)
    assert (revision.withdrawn, revision.correction.lesions) == (True, {})
    assert look(store, frame.id).reason == "withdrawn"
    kept = shell.execute(text("SELECT status, reason FROM frame_marks")).all()
    assert [tuple(row) for row in kept] == [("flagged", "")]
    for write in (
        lambda: mark_frame(store, frame.id, "open", "", annotator="reader-1"),
        lambda: add_note(store, frame.id, "again", annotator="reader-1"),
    ):
        with pytest.raises(StoreError, match="was withdrawn"):
            write()


def test_what_a_withdrawal_left_behind_is_found(store, shell):
    frame = make_frame(1)
    place_frame(store, frame, patient="4711")
    add_note(store, frame.id, "a scar", annotator="reader-1")
    tombstone = "INSERT INTO tombstones (frame_id, why, who, created) VALUES (:id, 'x', 'r', '2026')"
    shell.execute(text(tombstone), {"id": frame.id})
    shell.commit()
    assert any("a note on it is still there" in problem for problem in store.verify())


def test_an_overview_tells_what_is_drawn_first_and_expects_nothing_of_it(store):
    judged, taught = make_frame(1), make_frame(2)
    place_frame(store, judged, role="test")
    place_frame(store, taught, role="train")
    for frame in (judged, taught):
        prediction = make_prediction(shape=frame.shape)
        prediction = type(prediction)(
            **{name: getattr(prediction, name) for name in prediction.__slots__} | {"frame_id": frame.id}
        )
        store.accept(correct(frame, annotator="reader-2", prediction=prediction), parent=None)
    seen = look(store, judged.id)
    assert (seen.draw_first, seen.expected_dice, seen.others) == (True, None, 1)
    assert look(store, judged.id, "reader-2").expected_dice == pytest.approx(prediction.expected_dice)
    if not look(store, taught.id).draw_first:
        assert look(store, taught.id).expected_dice == pytest.approx(prediction.expected_dice)


def test_ten_thousand_frames_take_few_statements(store):
    ids = [f"{number:064x}" for number in range(10_000)]
    rows = [{"id": one, "pixels_hash": one[::-1], "height": 2, "width": 2} for one in ids]
    with store.writing() as connection:
        connection.execute(insert(FRAMES), rows)
        reader = {"reader": "reader-1", "round": 1, "created": "2026"}
        connection.execute(insert(ASSIGNMENTS), [{"frame_id": one, **reader} for one in ids[:40]])
    store.accept(
        make_correction(frame_id=ids[7], pixels_hash=ids[7][::-1], mask=np.zeros((2, 2), np.uint8)),
        parent=None,
    )
    statements = []
    event.listen(store._engine, "before_cursor_execute", lambda *given: statements.append(given[2]))
    found = read_overview(store, [*ids, "f" * 64], annotator="reader-1")
    assert len([one for one in statements if one.startswith("SELECT")]) < 30
    assert (len(found), found["f" * 64]) == (10_001, FrameOverview())
    assert [one for one in ids if found[one].status == "accepted"] == [ids[7]]
    assert sum(one.assigned for one in found.values()) == 40
