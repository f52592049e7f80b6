from __future__ import annotations

from dataclasses import replace

import pytest
from scenes import correct, make_frame
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from sonoloop.errors import StoreError
from sonoloop.store import CorrectionStore
from sonoloop.store.groups import place_frame, placement
from sonoloop.store.references import set_reference
from sonoloop.store.snapshots import list_snapshots, read_snapshot, revisions_of, take_snapshot
from sonoloop.store.withdrawal import withdraw


@pytest.fixture
def taught(store):
    """Three corrected frames: one trains, one judges, one is between both sides."""
    frames = [make_frame(seed) for seed in (1, 2, 3)]
    place_frame(store, frames[0], role="train", patient="1")
    place_frame(store, frames[1], role="test", patient="2")
    place_frame(store, frames[2], role="train")
    place_frame(store, frames[2], patient="2")
    for frame in frames:
        store.accept(correct(frame), parent=None)
    return frames


def test_it_holds_the_newest_head_of_each_frame(store, taught):
    first = store.head(taught[0].id, "reader-1")
    store.accept(correct(taught[0], label="malignant", annotator="reader-2"), parent=None)
    third = store.accept(correct(taught[0], label="unsure"), parent=first.id)
    with pytest.raises(StoreError, match="both are kept"):
        store.accept(correct(taught[0], label="normal"), parent=first.id)
    snapshot = take_snapshot(store, "first", who="reader-1")
    assert [entry.frame_id for entry in snapshot.entries] == [taught[1].id, taught[2].id, taught[0].id]
    assert snapshot.entries[-1].revision_id == third.id
    assert [entry.role for entry in snapshot.entries] == ["test", "neither", "train"]
    assert (snapshot.name, snapshot.who, len(snapshot.sha256)) == ("first", "reader-1", 64)


def test_it_never_changes(store, url, taught):
    before = take_snapshot(store, "first", who="reader-1")
    head = store.head(taught[0].id, "reader-1")
    store.accept(correct(taught[0], label="malignant"), parent=head.id)
    set_reference(store, taught[1].id, "malignant", source="histology")
    with CorrectionStore(url) as again:
        assert read_snapshot(again, "first") == before
        pairs = list(revisions_of(again, before))
    assert [entry.revision_id for entry, _ in pairs] == [entry.revision_id for entry in before.entries]
    assert pairs[0][1].correction.label == "benign"
    after = take_snapshot(store, "second", who="reader-1")
    assert after.sha256 != before.sha256
    assert after.entries[0].reference == "malignant"


def test_the_same_content_has_the_same_hash_under_any_name(store, taught):
    one, two = (take_snapshot(store, name, who="reader-1") for name in (None, "study"))
    assert (one.name, two.name) == ("snapshot-1", "study")
    assert one.sha256 == two.sha256
    set_reference(store, taught[0].id, "malignant", source="histology")
    assert take_snapshot(store, who="reader-1").sha256 != one.sha256


def test_a_name_is_used_once(store, taught):
    take_snapshot(store, "snapshot-2", who="reader-1")
    with pytest.raises(StoreError, match="snapshot-2 already"):
        take_snapshot(store, "snapshot-2", who="reader-1")
    set_reference(store, taught[0].id, "malignant", source="histology")
    assert take_snapshot(store, who="reader-1").name == "snapshot-3"
    assert [row.name for row in list_snapshots(store)] == ["snapshot-2", "snapshot-3"]


def test_without_a_name_the_same_content_is_not_named_again(store, taught):
    first = take_snapshot(store, who="reader-1")
    again = take_snapshot(store, who="reader-2")
    assert (again.name, again.who) == (first.name, "reader-1")
    assert len(list_snapshots(store)) == 1


@pytest.mark.parametrize("name", ["", "two words", "../up", "x" * 65, "-option"])
def test_what_is_no_name_is_refused(store, taught, name):
    with pytest.raises(StoreError, match="cannot be called"):
        take_snapshot(store, name, who="reader-1")
    assert list_snapshots(store) == []


def test_an_empty_store_has_nothing_to_name(store):
    with pytest.raises(StoreError, match="accept one first"):
        take_snapshot(store, who="reader-1")


def test_an_unknown_name_lists_those_there_are(store, taught):
    with pytest.raises(StoreError, match="there is none yet"):
        read_snapshot(store, "first")
    take_snapshot(store, "second", who="reader-1")
    with pytest.raises(StoreError, match="no snapshot first; the newest are second"):
        read_snapshot(store, "first")


def test_it_cannot_be_changed_from_outside_and_that_would_be_found(store, shell, taught):
    take_snapshot(store, "first", who="reader-1")
    for statement in (
        "UPDATE snapshot_members SET role = 'train'",
        "DELETE FROM snapshot_members",
        "UPDATE snapshots SET sha256 = 'x'",
    ):
        with pytest.raises(DBAPIError, match="append-only"):
            shell.execute(text(statement))
        shell.rollback()
    if shell.dialect.name == "sqlite":
        shell.execute(text("DROP TRIGGER snapshot_members_no_update"))
        shell.execute(text("UPDATE snapshot_members SET role = 'train'"))
        shell.commit()
        with pytest.raises(StoreError, match="not what it was"):
            read_snapshot(store, "first")


def test_withdrawn_frames_leave_the_next_one_and_stay_named_in_the_last(store, taught):
    before = take_snapshot(store, "first", who="reader-1")
    withdraw(store, taught[0].id, why="asked to", who="reader-1")
    assert read_snapshot(store, "first") == before
    row = list_snapshots(store)[0]
    assert (row.train, row.test, row.neither, row.withdrawn) == (1, 1, 1, 1)
    found = {entry.frame_id: revision for entry, revision in revisions_of(store, before)}
    assert found[taught[0].id].withdrawn and not found[taught[0].id].correction.mask.any()
    assert not found[taught[1].id].withdrawn and found[taught[1].id].correction.mask.any()
    after = take_snapshot(store, "second", who="reader-1")
    assert [entry.frame_id for entry in after.entries] == [frame.id for frame in taught[1:]]


def test_frames_of_the_same_pixels_from_an_old_store_share_a_group(store):
    frame = make_frame(1)
    twin = replace(frame, id="b" * 64)
    for one in (frame, twin, make_frame(2)):
        store.accept(correct(one), parent=None)
    # one image, which trains once
    assert len(take_snapshot(store, who="reader-1").entries) == 2
    groups = [placement(store, one.id).group_id for one in (frame, twin, make_frame(2))]
    assert groups[0] == groups[1] != groups[2]
