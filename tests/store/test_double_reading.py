"""Images that several annotators read: who gets which, what is kept from whom, agreement, adjudication."""

from __future__ import annotations

from collections import Counter
from itertools import combinations

import numpy as np
import pytest
from scenes import correct, make_frame
from sqlalchemy import text

from sonoloop.errors import StoreError
from sonoloop.models.library import Library
from sonoloop.project import Project
from sonoloop.store.agreement import read_agreement
from sonoloop.store.assignments import assign
from sonoloop.store.groups import place_frame
from sonoloop.store.metrics import kappa
from sonoloop.store.revisions import ADJUDICATION
from sonoloop.store.settings import change_settings
from sonoloop.store.snapshots import LearnableCounter, take_snapshot
from sonoloop.store.withdrawal import withdraw


@pytest.fixture
def project(store, tmp_path):
    """Six images that train, which nobody corrected yet."""
    change_settings(store, test_cap=0, draw_first_share=0.0)
    return Project(store, annotator="r1", library=Library(tmp_path / "models"))


@pytest.fixture
def frames(project):
    made = [make_frame(seed) for seed in range(1, 7)]
    for frame in made:
        place_frame(project.store, frame)
    return made


def box(frame, columns: int = 20) -> np.ndarray:
    mask = np.zeros(frame.shape, np.uint8)
    mask[20:40, 30 : 30 + columns] = 1
    return mask


def test_each_image_goes_to_so_many_readers_and_every_pair_as_often(project, frames):
    assigned = project.assign(["r1", " r2", "r3", "r1"], share=1, each=2)
    assert (assigned.images, assigned.before, list(assigned.frames)) == (6, 0, ["r1", "r2", "r3"])
    by_frame = {
        frame.id: [name for name, own in assigned.frames.items() if frame.id in own] for frame in frames
    }
    assert Counter(map(tuple, by_frame.values())) == Counter(
        dict.fromkeys(combinations(("r1", "r2", "r3"), 2), 2)
    )


def test_what_was_assigned_counts_towards_the_share(project, frames):
    first = assign(project.store, ["r1", "r2"], share=0.5)
    again = assign(project.store, ["r1", "r2"], share=0.5)
    more = assign(project.store, ["r1", "r2"], share=0.7)
    assert [len(one.frames["r1"]) for one in (first, again, more)] == [3, 0, 1]
    assert (again.before, more.before) == (3, 3)
    assert not set(first.frames["r1"]) & set(more.frames["r1"])


def test_who_corrected_an_image_already_is_one_of_its_readers_and_two_are_too_many(project, frames):
    for frame in frames[:5]:
        project.by("r3").accept(frame, box(frame), "benign", seen=False)
    project.by("r9").accept(frames[0], box(frames[0], 9), "benign", seen=False)
    assigned = project.assign(["r1", "r2", "r3"], share=1, each=2)
    assert assigned.images == 5
    assert {frame.id for frame in frames[1:5]} <= set(assigned.frames["r3"])
    assert frames[0].id not in {one for own in assigned.frames.values() for one in own}


@pytest.mark.parametrize(
    ("readers", "more", "said"),
    [
        (["r1"], {"share": 0.5}, "by 2 of the readers or more"),
        (["r1", "r1 "], {"share": 0.5}, "by 2 of the readers or more"),
        (["r1", "r2"], {"share": 0.5, "each": 3}, "not by 3"),
        (["r1", "r2"], {"share": 0.0}, "not 0"),
        (["r1", "r2"], {"share": float("nan")}, "not nan"),
        (["r1", "adjudication"], {"share": 0.5}, "nobody is called adjudication"),
        (["r1", "r2"], {"share": 0.5}, "the store has no image"),
    ],
)
def test_what_cannot_be_assigned_is_said(store, readers, more, said):
    with pytest.raises(StoreError, match=said):
        assign(store, readers, **more)


def test_others_work_is_kept_from_a_reader_until_they_accept(project, frames):
    frame, other = frames[0], project.by("r2")
    project.accept(frame, box(frame), "malignant", seen=False)
    project.note(frame, "a star")
    assert other.look_up(frame).newest is not None
    project.assign(["r1", "r2"], share=1)
    status = other.look_up(frame)
    assert (status.newest, status.prediction, status.own_head, status.others_hidden) == (
        None,
        None,
        None,
        True,
    )
    assert other.notes(frame.id) == []
    seen = other.overview([frame.id])[frame.id]
    assert (seen.assigned, seen.others, seen.status) == (True, 0, "to do")
    assert not project.by("r3").look_up(frame).others_hidden
    other.note(frame, "mine")
    assert [note.text for note in other.notes(frame.id)] == ["mine"]
    other.accept(frame, box(frame, 10), "benign", seen=False)
    assert other.look_up(frame).others_hidden is False
    assert [note.text for note in other.notes(frame.id)] == ["a star", "mine"]
    assert other.overview([frame.id])[frame.id].others == 1


def test_agreement_goes_by_what_each_said_first(project, frames):
    project.assign(["r1", "r2"], share=1)
    labels = ["benign", "benign", "malignant", "malignant"]
    for frame, mine, theirs in zip(
        frames, labels, ["benign", "malignant", "malignant", "malignant"], strict=False
    ):
        project.accept(frame, box(frame), mine, seen=False)
        project.by("r2").accept(frame, box(frame, 10), theirs, seen=False)
        # by now they have seen the other's
        project.by("r2").accept(frame, box(frame), mine, seen=False)
    project.accept(frames[4], box(frames[4]), "benign", seen=False)
    found = project.agreement()
    (pair,) = found.pairs
    assert (found.assigned, len(found.readings), pair.readers, pair.images) == (6, 4, ("r1", "r2"), 4)
    assert pair.dice.value == pytest.approx(2 * 10 / 30)
    assert (pair.same_class.value, pair.kappa.value) == (0.75, pytest.approx(0.5))
    assert pair.kappa.low < 0.5 < pair.kappa.high
    assert [one.same_class for one in found.readings].count(False) == 1


def test_kappa_is_that_of_the_books():
    # Cohen's own table of 1960 as it is usually given: 20 yes-yes, 5, 10, 15 no-no
    one = np.array(["yes"] * 25 + ["no"] * 25)
    other = np.array(["yes"] * 20 + ["no"] * 5 + ["yes"] * 10 + ["no"] * 15)
    assert kappa(one, other, np.ones((1, 50)))[0] == pytest.approx(0.4)
    assert np.isnan(kappa(one[:25], one[:25], np.ones((1, 25)))[0])


def test_what_is_adjudicated_stands_and_both_originals_are_kept(project, frames, shell):
    frame = frames[0]
    project.assign(["r1", "r2"], share=1)
    mine = project.accept(frame, box(frame), "benign", seen=False)
    theirs = project.by("r2").accept(frame, box(frame, 10), "malignant", seen=False)
    chief = project.by("r3")
    decided = chief.adjudicate(frame, box(frame, 10), "malignant", of=(mine.id, theirs.id))
    assert (decided.correction.annotator, decided.parent) == (ADJUDICATION, None)
    assert chief.adjudicate(frame, box(frame, 10), "malignant", of=(mine.id, theirs.id)).id == decided.id
    newest = project.look_up(frame)
    assert (newest.newest.id, newest.own_head) == (decided.id, mine.id)
    assert project.store.head(frame.id, "r2").id == theirs.id
    assert [one.id for one in project.store.history(frame.id)] == [mine.id, theirs.id, decided.id]
    assert [one.adjudicated for one in read_agreement(project.store).readings] == [True]
    assert [entry.revision_id for entry in take_snapshot(project.store, who="r3").entries] == [decided.id]
    kept = shell.execute(text("SELECT revision_id, original, who FROM adjudications ORDER BY number")).all()
    assert [tuple(row) for row in kept] == [(decided.id, mine.id, "r3"), (decided.id, theirs.id, "r3")]
    assert project.store.verify() == []


def test_what_one_reader_had_seen_is_seen_by_what_is_adjudicated(store, tmp_path):
    change_settings(store, test_cap=300, first_test_share=1.0, test_share=1.0)
    project = Project(store, annotator="r1", library=Library(tmp_path / "models"))
    for seed, seen in ((1, False), (2, True)):
        frame = make_frame(seed)
        both = [
            project.by(name).accept(frame, box(frame, width), "benign", seen=seen)
            for name, width in (("r1", 9), ("r2", 12))
        ]
        decided = project.by("r3").adjudicate(frame, box(frame), "benign", of=[one.id for one in both])
        assert decided.correction.prediction_seen is seen
    assert LearnableCounter(store).count().test_frames == 1


def test_what_cannot_be_adjudicated_is_said(project, frames):
    frame, other = frames[:2]
    mine = project.accept(frame, box(frame), "benign", seen=False)
    again = project.accept(frame, box(frame, 9), "benign", seen=False)
    elsewhere = project.by("r2").accept(other, box(other), "benign", seen=False)
    for of, said in (
        ([mine.id], "two persons or more"),
        ([mine.id, again.id], "two persons or more"),
        ([], "two persons or more"),
        ([mine.id, "0" * 32], "no revision 0000"),
        ([mine.id, elsewhere.id], "of another image"),
    ):
        with pytest.raises(StoreError, match=said):
            project.adjudicate(frame, box(frame), "benign", of=of)
    with pytest.raises(StoreError, match="nobody is called adjudication"):
        project.by("adjudication")
    with pytest.raises(StoreError, match="nobody is called adjudication"):
        project.store.accept(correct(frame, annotator=" adjudication "), parent=None)
    assert project.store.count() == 3


def test_withdrawn_images_are_read_by_nobody(project, frames):
    project.assign(["r1", "r2"], share=1)
    for name in ("r1", "r2"):
        project.by(name).accept(frames[0], box(frames[0]), "benign", seen=False)
    withdraw(project.store, frames[0].id, why="asked to", who="r1")
    found = project.agreement()
    assert (found.assigned, found.readings, found.pairs) == (5, (), ())
    assert assign(project.store, ["r1", "r2"], share=1).images == 5
