"""Which frames train and which judge."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from scenes import correct, make_copy, make_frame, place_scenes
from sqlalchemy import insert, select, text

from sonoloop.imaging.grey import frame_from_array
from sonoloop.store import CorrectionStore
from sonoloop.store.groups import count_groups, draw_role, place_frame, placement, set_aside
from sonoloop.store.model_registry import find_model, register
from sonoloop.store.settings import StoreSettings, change_settings, store_secret
from sonoloop.store.snapshots import take_snapshot
from sonoloop.store.tables import GROUPS, MEMBERS


def test_a_placement_is_decided_once(store, url):
    first = place_frame(store, make_frame(1))
    change_settings(store, test_share=1.0, first_test_share=1.0)
    assert place_frame(store, make_frame(1), role="test") == first
    with CorrectionStore(url) as again:
        assert placement(again, make_frame(1).id) == first
        assert placement(again, make_frame(2).id) is None


def test_what_is_set_aside_neither_trains_nor_judges(store):
    set_aside(store, make_frame(1))
    for seed in (1, 2):
        store.accept(correct(make_frame(seed)), parent=None)
    assert placement(store, make_frame(1).id).role == "neither"
    assert place_frame(store, make_frame(1), role="test").role == "neither"
    roles = {entry.frame_id: entry.role for entry in take_snapshot(store, who="anna").entries}
    assert roles == {make_frame(1).id: "neither", make_frame(2).id: "train"}


def test_setting_aside_changes_no_placement(store):
    placed = place_frame(store, make_frame(1), role="test")
    set_aside(store, make_frame(1))
    assert placement(store, make_frame(1).id) == placed


def test_near_copies_share_a_group_and_others_do_not(store):
    placed = place_frame(store, make_frame(1), role="test")
    assert place_frame(store, make_copy(1)).group_id == placed.group_id
    assert place_frame(store, make_copy(1, brighter=20)).role == "test"
    others = {place_frame(store, make_frame(seed)).group_id for seed in (2, 3, 4)}
    assert len(others | {placed.group_id}) == 4


def test_a_file_saved_anew_shares_the_group_even_if_nothing_can_be_seen(store):
    blank = frame_from_array(np.zeros((64, 64), np.uint8), name="blank")
    other = frame_from_array(np.full((64, 64), 9, np.uint8), name="other")
    first = place_frame(store, replace(blank, id="a" * 64), role="test")
    assert place_frame(store, replace(blank, id="b" * 64)).group_id == first.group_id
    assert place_frame(store, other).group_id != first.group_id


def test_a_patient_is_one_group_and_its_number_is_not_stored(store, path):
    one = place_frame(store, make_frame(1), patient="PAT-4711", role="test")
    two = place_frame(store, make_frame(2), patient=" PAT-4711 ")
    other = place_frame(store, make_frame(3), patient="PAT-4712", role="train")
    assert one.group_id == two.group_id == one.patient
    assert (two.role, other.role) == ("test", "train")
    assert other.group_id != one.group_id
    if path.exists():
        assert b"4711" not in path.read_bytes()


def test_the_same_patient_hashes_otherwise_in_another_store(store, tmp_path):
    mine = place_frame(store, make_frame(1), patient="4711")
    with CorrectionStore(tmp_path / "other.sqlite") as other:
        assert place_frame(other, make_frame(1), patient="4711").patient != mine.patient


def test_a_new_patient_inherits_from_its_near_copies(store):
    copy = place_frame(store, make_frame(1), role="test")
    patient = place_frame(store, make_copy(1), patient="4711")
    assert patient.group_id != copy.group_id
    assert patient.role == "test"
    assert place_frame(store, make_frame(2), patient="4711").role == "test"


def test_a_frame_between_both_sides_trains_nowhere(store):
    place_frame(store, make_frame(1), role="train")
    place_frame(store, make_frame(2), patient="4711", role="test")
    between = place_frame(store, make_copy(1), patient="4711")
    assert between.role == "neither"
    # and what looks like it neither
    assert place_frame(store, make_copy(1, brighter=20)).role == "neither"
    # the rest of the patient still judges
    assert place_frame(store, make_frame(3), patient="4711").role == "test"
    # nor the frame that began it, which is this patient's too
    assert placement(store, make_frame(1).id).role == "neither"
    assert count_groups(store).neither_frames == 3


def test_a_forced_role_does_not_hide_a_copy_on_the_other_side(store):
    place_frame(store, make_frame(1), role="train")
    assert place_frame(store, make_copy(1), patient="4711", role="test").role == "neither"


def test_a_patient_known_later_marks_models_that_trained(store):
    frame = make_frame(1)
    place_frame(store, frame, role="train")
    store.accept(correct(frame), parent=None)
    take_snapshot(store, "first", who="reader-1")
    parent, child, other = (letter * 64 for letter in "abc")
    register(store, version=parent, model="unet-a", origin="tuned", who="reader-1", snapshot="first")
    register(store, version=child, model="unet-b", origin="tuned", who="reader-1", parent=parent)
    register(store, version=other, model="unet-c", origin="imported", who="reader-1")
    place_frame(store, make_frame(2), patient="4711", role="test")

    assert place_frame(store, frame, patient="4711").role == "neither"
    assert [find_model(store, version).standing for version in (parent, child, other)] == [
        ("leaked",),
        ("leaked",),
        (),
    ]
    place_frame(store, frame, patient="4711")
    assert len(find_model(store, parent).marks) == 1


def test_near_copies_of_a_frame_between_both_sides_train_no_more_and_mark_their_models(store):
    first, copy, other = make_frame(1), make_copy(1), make_frame(3)
    for frame in (first, copy, other):
        place_frame(store, frame, role="train")
    # the copy alone trained
    for frame in (copy, other):
        store.accept(correct(frame), parent=None)
    take_snapshot(store, "first", who="reader-1")
    register(store, version="a" * 64, model="unet-a", origin="tuned", who="reader-1", snapshot="first")
    place_frame(store, make_frame(2), patient="4711", role="test")

    place_frame(store, first, patient="4711")
    assert [placement(store, frame.id).role for frame in (first, copy, other)] == [
        "neither",
        "neither",
        "train",
    ]
    (mark,) = find_model(store, "a" * 64).marks
    assert (mark.mark, copy.id[:12] in mark.why) == ("leaked", True)
    entries = take_snapshot(store, "second", who="reader-1").entries
    assert {entry.frame_id: entry.role for entry in entries} == {copy.id: "neither", other.id: "train"}


def test_a_frame_saved_anew_of_one_between_both_sides_takes_no_part_either(store):
    blank = frame_from_array(np.zeros((64, 64), np.uint8), name="blank")
    one, two = replace(blank, id="a" * 64), replace(blank, id="b" * 64)
    for frame in (one, two):
        place_frame(store, frame, role="train")
    place_frame(store, make_frame(2), patient="4711", role="test")
    place_frame(store, one, patient="4711")
    assert placement(store, two.id).role == "neither"


def test_a_frame_that_was_corrected_before_it_was_placed_never_judges(store):
    old, copy = make_frame(1), make_frame(2)
    change_settings(store, first_test_share=1.0)
    for frame in (old, copy):
        store.accept(correct(frame), parent=None)
    assert place_frame(store, old).role == "train"
    assert place_frame(store, make_frame(3), patient="4711").role == "test"
    # it may have trained: where its patient judges it does neither
    assert place_frame(store, copy, patient="4711").role == "neither"
    assert place_frame(store, make_frame(4), role="test").role == "test"


def test_a_patient_known_later_keeps_later_frames_together(store):
    first = place_frame(store, make_frame(1), role="test")
    assert place_frame(store, make_frame(1), patient="4711").group_id == first.group_id
    assert place_frame(store, make_frame(2), patient="4711").group_id == first.group_id


def test_shares_and_cap_of_the_draw(store):
    change_settings(
        store, test_share=0.2, first_test_share=0.5, first_lesion_groups=2, test_cap=300, draw_first_share=0
    )
    secret = store_secret(store)
    groups = [f"{number:064x}" for number in range(2000)]

    def share_of_tests() -> float:
        with store.reading() as connection:
            settings = StoreSettings(first_lesion_groups=2, test_cap=300)
            drawn = [draw_role(connection, settings, secret=secret, group_id=group) for group in groups]
        return Counter(drawn)["test"] / len(groups)

    assert share_of_tests() == pytest.approx(0.5, abs=0.05)
    for seed, lesion in ((1, True), (2, False), (3, True)):
        frame = make_frame(seed)
        place_frame(store, frame, role="test")
        store.accept(correct(frame, lesion=lesion, label="benign" if lesion else "normal"), parent=None)
        expected = 0.5 if seed < 3 else 0.2
        assert share_of_tests() == pytest.approx(expected, abs=0.05)
    with store.writing() as connection:
        for number in range(297):
            connection.execute(insert(GROUPS).values(id=f"full {number}", role="test", created="2026"))
    assert share_of_tests() == 0


def test_test_frames_cannot_be_told_by_being_drawn_first(store):
    change_settings(store, draw_first_share=0.5)
    placed = [place_frame(store, make_frame(seed), role="train") for seed in range(24)]
    tests = [place_frame(store, make_frame(seed), role="test") for seed in range(100, 104)]
    assert all(one.draw_first for one in tests)
    assert 4 <= sum(one.draw_first for one in placed) <= 20
    assert [placement(store, one.frame_id).draw_first for one in placed] == [one.draw_first for one in placed]


def test_two_processes_never_give_one_scene_two_roles(url):
    CorrectionStore(url).close()
    spawn = multiprocessing.get_context("spawn")
    seeds = range(12)
    processes = [spawn.Process(target=place_scenes, args=(url, copies, seeds)) for copies in (False, True)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(100)
    assert [process.exitcode for process in processes] == [0, 0]
    with CorrectionStore(url) as store:
        for seed in seeds:
            one, two = placement(store, make_frame(seed).id), placement(store, make_copy(seed).id)
            assert (one.group_id, one.role) == (two.group_id, two.role)
        assert count_groups(store).train_groups + count_groups(store).test_groups == len(seeds)
        assert store.verify() == []


def test_what_another_process_placed_is_seen_at_once(url):
    with CorrectionStore(url) as mine, CorrectionStore(url) as theirs:
        place_frame(mine, make_frame(9))
        first = place_frame(theirs, make_frame(1), role="test")
        assert place_frame(mine, make_copy(1)).group_id == first.group_id
        second = place_frame(mine, make_frame(2), role="test")
        assert place_frame(theirs, make_copy(2)).group_id == second.group_id


@pytest.mark.skipif(os.name != "posix", reason="sends SIGKILL")
def test_a_placing_that_was_killed_left_nothing(path):
    with CorrectionStore(path) as store:
        place_frame(store, make_frame(1))
    child = os.fork()
    if child == 0:
        with CorrectionStore(path) as store, store.writing() as connection:
            connection.execute(text("DELETE FROM members"))
            os.kill(os.getpid(), signal.SIGKILL)
    assert os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGKILL
    with CorrectionStore(path) as store:
        assert placement(store, make_frame(1).id) is not None


def test_an_old_stores_frames_train_and_are_known_once_seen(store):
    frame = make_frame(1)
    store.accept(correct(frame), parent=None)
    assert count_groups(store).unplaced_frames == 1
    take_snapshot(store, who="reader-1")
    assert placement(store, frame.id).role == "train"
    assert count_groups(store).unplaced_frames == 0
    with store.reading() as connection:
        assert connection.execute(select(MEMBERS.c.thumbnail, MEMBERS.c.bits)).all() == [(b"", b"")]
    # unseen, its copy cannot be told; seen, it can
    assert place_frame(store, make_frame(1)).role == "train"
    assert place_frame(store, make_copy(1)).group_id == placement(store, frame.id).group_id


def test_a_role_that_is_none_is_refused(store):
    with pytest.raises(ValueError, match="train or test, got 'validation'"):
        place_frame(store, make_frame(1), role="validation")
