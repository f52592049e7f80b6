from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from model_samples import add, begin
from sqlalchemy import insert
from store_writers import make_correction, make_prediction, sha256

from sonoloop.errors import StoreError
from sonoloop.store import CorrectionStore
from sonoloop.store.metrics import FrameScore
from sonoloop.store.model_registry import find_model
from sonoloop.store.snapshots import LearnableCounter
from sonoloop.store.tables import GROUPS, MEMBERS, REFERENCES, TEST_SET_MEMBERS, TOMBSTONES
from sonoloop.store.test_sets import (
    compare_models,
    evaluations,
    freeze_test_set,
    newest_test_set,
    note_known,
    read_scores,
    read_test_set,
    record_evaluation,
    write_scores,
)

NOW = "2026-01-01T00:00:00.000000+00:00"


def draw(store, frame, *, role="test", group=None, bridges=False, seen=False, annotator="reader-1", seed=0):
    """Accept a correction of a frame that was placed in a group, and return the revision's id."""
    correction = make_correction(frame, seed, annotator=annotator, prediction_seen=seen)
    if seen:
        correction = make_correction(
            frame, seed, annotator=annotator, prediction_seen=True, prediction=make_prediction(frame)
        )
    parent = store.head(correction.frame_id, annotator)
    revision = store.accept(correction, parent=None if parent is None else parent.id)
    group_id = sha256(group or f"group of {frame}")
    with store.writing() as connection:
        if connection.execute(GROUPS.select().where(GROUPS.c.id == group_id)).first() is None:
            connection.execute(insert(GROUPS).values(id=group_id, role=role, created=NOW))
        frame_id = correction.frame_id
        if connection.execute(MEMBERS.select().where(MEMBERS.c.frame_id == frame_id)).first() is None:
            connection.execute(
                insert(MEMBERS).values(
                    frame_id=frame_id, group_id=group_id, bridges=bridges, thumbnail=b"", bits=b""
                )
            )
    return revision.id


def score(dice, *, frame="frame", group="group", label="benign", claimed=True, known=False):
    """How a model did on a frame with a lesion."""
    values = {"frame": frame, "group": group, "label": label, "claimed": claimed, "known": known}
    return FrameScore(**values, lesion=True, dice=dice, malignant=0.1)


def refer(store, frame, label):
    with store.writing() as connection:
        connection.execute(
            insert(REFERENCES).values(frame_id=sha256(frame), label=label, source="histology", created=NOW)
        )


def judges(test_set):
    return {judge.revision_id for judge in test_set.members}


def test_only_frames_that_can_judge_are_frozen(store):
    one = draw(store, "one")
    other = draw(store, "other", group="group of one")
    draw(store, "training", role="train")
    draw(store, "bridge", bridges=True)
    draw(store, "anchored", seen=True)
    draw(store, "withdrawn")
    with store.writing() as connection:
        connection.execute(
            insert(TOMBSTONES).values(frame_id=sha256("withdrawn"), why="asked", who="x", created=NOW)
        )
    found = freeze_test_set(store)
    assert judges(found) == {one, other}
    assert found.groups == 1
    assert read_test_set(store, found.number) == found


def test_the_first_unseen_revision_judges_whatever_is_accepted_after_seeing(store):
    first = draw(store, "one")
    frozen = freeze_test_set(store)
    assert judges(frozen) == {first}
    # pressed again, unchanged
    assert draw(store, "one", seen=True) == first
    # changed, having seen; by the same person and by another one
    draw(store, "one", seen=True, seed=1)
    draw(store, "one", seen=True, seed=2, annotator="reader-2")
    assert freeze_test_set(store) == frozen
    assert LearnableCounter(store).count().test_frames == 1


def test_who_saw_the_prediction_once_never_judges(store):
    draw(store, "one", seen=True)
    draw(store, "one", seed=1)
    assert freeze_test_set(store).members == ()
    assert LearnableCounter(store).count().test_frames == 0


def test_a_mask_drawn_again_by_the_same_person_does_not_judge(store):
    # after the first Accept the proposal is shown, and whether it was looked at is on no record
    first = draw(store, "one")
    draw(store, "one", seed=1)
    assert judges(freeze_test_set(store)) == {first}
    newer = draw(store, "one", seed=2, annotator="reader-2")
    assert judges(freeze_test_set(store)) == {newer}
    assert LearnableCounter(store).count().test_frames == 1


def test_the_newest_head_judges(store):
    draw(store, "one", annotator="reader-1")
    newer = draw(store, "one", annotator="reader-2", seed=1)
    assert judges(freeze_test_set(store)) == {newer}


def test_the_same_content_is_the_same_set_and_anything_else_a_new_one(store):
    draw(store, "one")
    first = freeze_test_set(store)
    assert freeze_test_set(store) == first
    draw(store, "two")
    second = freeze_test_set(store)
    refer(store, "two", "benign")
    refer(store, "two", "malignant")
    third = freeze_test_set(store)
    draw(store, "two", seed=5, annotator="reader-2")
    fourth = freeze_test_set(store)
    assert [s.number for s in (first, second, third, fourth)] == [1, 2, 3, 4]
    assert {judge.reference for judge in third.members} == {None, "malignant"}
    assert len({s.sha256 for s in (first, second, third, fourth)}) == 4
    # frozen: what came later is not in it
    assert read_test_set(store, 1) == first
    assert newest_test_set(store) == fourth


def test_the_newest_set_is_the_one_of_today_whatever_its_number(store):
    draw(store, "one")
    first = freeze_test_set(store)
    draw(store, "two")
    freeze_test_set(store)
    with store.writing() as connection:
        connection.execute(
            insert(TOMBSTONES).values(frame_id=sha256("two"), why="asked", who="x", created=NOW)
        )
    assert freeze_test_set(store) == first
    assert newest_test_set(store) == first


def test_frames_that_were_withdrawn_leave_the_newest_set_at_once(store):
    draw(store, "one")
    kept = draw(store, "two")
    frozen = freeze_test_set(store)
    with store.writing() as connection:
        connection.execute(
            insert(TOMBSTONES).values(frame_id=sha256("one"), why="asked", who="x", created=NOW)
        )
    assert newest_test_set(store).number == frozen.number
    assert judges(newest_test_set(store)) == {kept}
    assert compare_models(store).test_set.groups == 1


def test_a_store_in_which_no_frame_can_judge_has_an_empty_set(store):
    assert newest_test_set(store) is None
    found = freeze_test_set(store)
    assert (found.number, found.members, found.groups) == (1, (), 0)


def test_a_set_that_is_not_there_is_named(store):
    with pytest.raises(StoreError, match="no test set 7"):
        read_test_set(store, 7)


def test_a_set_that_was_meddled_with_is_not_read(store, shell):
    draw(store, "one")
    frozen = freeze_test_set(store)
    other = draw(store, "other", role="train")
    row = {
        "test_set": frozen.number,
        "frame_id": sha256("other"),
        "revision_id": other,
        "group_id": sha256("group of other"),
    }
    shell.execute(insert(TEST_SET_MEMBERS).values(row))
    shell.commit()
    for read in (lambda: read_test_set(store, frozen.number), lambda: newest_test_set(store)):
        with pytest.raises(StoreError, match="test set 1 is not what it was when it was frozen"):
            read()


def test_a_refused_candidate_is_marked_with_the_look_and_cleared_by_a_better_one(store):
    shipped, tuned = begin(store), add(store, "tuned")
    values = {"candidate": tuned, "incumbent": shipped, "figures": {}, "who": "reader-1"}
    test_set = freeze_test_set(store).number

    def look(verdict):
        record_evaluation(store, test_set=test_set, verdict=verdict, reason=f"it is {verdict}", **values)
        return find_model(store, tuned).standing

    assert [look(verdict) for verdict in ("promote", "refuse", "inconclusive", "promote", "refuse")] == [
        (),
        ("refused",),
        ("refused",),
        (),
        ("refused",),
    ]
    marks = find_model(store, tuned).marks
    assert [(mark.mark, mark.why) for mark in marks] == [
        ("refused", "it is refuse"),
        ("passed", "it is promote"),
        ("refused", "it is refuse"),
    ]


def test_a_look_and_its_mark_are_there_both_or_not_at_all(store, monkeypatch):
    shipped, tuned = begin(store), add(store, "tuned")
    values = {"candidate": tuned, "incumbent": shipped, "verdict": "refuse", "reason": "worse"}
    test_set = freeze_test_set(store).number

    def fail(*_values, **_more):
        raise OSError("the power is gone")

    for step in ("add_mark", "_read_evaluation"):
        with monkeypatch.context() as patch:
            patch.setattr(f"sonoloop.store.test_sets.{step}", fail)
            with pytest.raises(OSError, match="power"):
                record_evaluation(store, test_set=test_set, figures={}, who="x", **values)
        assert (evaluations(store), find_model(store, tuned).marks) == ((), ())


def test_a_look_that_was_taken_before_an_interruption_is_not_counted_twice(store):
    shipped, tuned = begin(store), add(store, "tuned")
    draw(store, "one")
    values = {
        "test_set": freeze_test_set(store).number,
        "candidate": tuned,
        "incumbent": shipped,
        "verdict": "refuse",
        "reason": "worse",
        "figures": {"difference": -0.2, "interval": [-0.3, -0.1]},
        "who": "reader-1",
    }
    first = record_evaluation(store, resumed=True, **values)
    assert record_evaluation(store, resumed=True, **values) == first
    assert len(find_model(store, tuned).marks) == 1
    # who asks again looks again, and so does who finds something else
    record_evaluation(store, **values)
    record_evaluation(store, resumed=True, **(values | {"figures": {"difference": -0.1}}))
    assert len(evaluations(store)) == 3


def test_every_look_is_counted(store):
    shipped, tuned = begin(store), add(store, "tuned")
    draw(store, "one")
    first = freeze_test_set(store).number
    values = {
        "candidate": tuned,
        "incumbent": shipped,
        "verdict": "inconclusive",
        "reason": "few frames",
        "figures": {"difference": 0.01, "interval": [-0.01, 0.03]},
        "who": "reader-1",
    }
    look = record_evaluation(store, test_set=first, **values)
    again = record_evaluation(store, test_set=first, **values)
    draw(store, "two")
    other = record_evaluation(store, test_set=freeze_test_set(store).number, **values)
    assert evaluations(store) == (look, again, other)
    assert evaluations(store, first) == (look, again)
    assert look.figures == {"difference": 0.01, "interval": [-0.01, 0.03]}
    assert (look.candidate, look.incumbent, look.reason) == (tuned, shipped, "few frames")


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"verdict": "maybe"}, ValueError, "verdict"),
        ({"who": ""}, ValueError, "say who"),
        ({"figures": {"x": float("nan")}}, ValueError, "JSON"),
        ({"test_set": 9}, StoreError, "no test set 9"),
        ({"candidate": sha256("nowhere")}, StoreError, "knows no model"),
    ],
)
def test_a_wrong_look_is_not_recorded(store, changes, error, message):
    values = {
        "test_set": freeze_test_set(store).number,
        "candidate": add(store, "tuned"),
        "incumbent": begin(store),
        "verdict": "promote",
        "reason": "better",
        "figures": {},
        "who": "reader-1",
    }
    with pytest.raises(error, match=message):
        record_evaluation(store, **(values | changes))
    assert evaluations(store) == ()


def test_scores_are_computed_once(store):
    version, revision = add(store, "tuned"), draw(store, "one")
    other = draw(store, "two")
    write_scores(store, version, {revision: score(0.7)})
    write_scores(store, version, {revision: score(0.1), other: score(0.5)})
    assert read_scores(store, version) == {revision: score(0.7), other: score(0.5)}
    assert read_scores(store, begin(store)) == {}


def test_scores_that_two_programs_computed_at_once_are_kept_once(url, store):
    versions = [add(store, f"tuned {number}") for number in range(8)]
    revisions = [draw(store, f"frame {number}") for number in range(5)]
    start = threading.Barrier(4)

    def keep(number: int) -> None:
        with CorrectionStore(url) as own:
            for version in versions:
                start.wait(60)
                write_scores(own, version, {revision: score(number / 10) for revision in revisions})

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(keep, range(4)))
    for version in versions:
        scores = read_scores(store, version)
        assert sorted(scores) == sorted(revisions)
        assert len({score.dice for score in scores.values()}) == 1


def test_scores_of_unknown_models_or_revisions_are_not_kept(store):
    version, revision = add(store, "tuned"), draw(store, "one")
    with pytest.raises(StoreError, match="knows no model"):
        write_scores(store, sha256("nowhere"), {revision: score(0.7)})
    with pytest.raises(StoreError):
        write_scores(store, version, {revision: score(0.7), "0" * 32: score(0.7)})
    with pytest.raises(ValueError, match="JSON"):
        write_scores(store, version, {revision: score(float("inf"))})
    assert read_scores(store, version) == {}


def test_all_models_are_compared_on_the_newest_set(store):
    shipped = begin(store)
    tuned = add(store, "tuned", parent=shipped)
    orphan = add(store, "orphan", parent=sha256("elsewhere"), origin="imported")
    one, two = draw(store, "one"), draw(store, "two")
    freeze_test_set(store)

    write_scores(
        store,
        shipped,
        {
            one: score(0.6, frame=sha256("one"), group="one"),
            two: score(0.8, frame=sha256("two"), group="two"),
        },
    )
    write_scores(store, tuned, {one: score(0.9, frame=sha256("one"), group="one")})
    found = compare_models(store)
    assert [line.row.version for line in found.models] == [orphan, tuned, shipped]
    assert [line.in_use for line in found.models] == [False, False, True]
    assert [line.parent for line in found.models] == [
        sha256("elsewhere")[:8],
        f"default-{shipped[:8]}",
        None,
    ]
    unscored, partly, whole = (line.figures for line in found.models)
    assert unscored is None
    assert (partly.frames, partly.dice.value) == (1, pytest.approx(0.9))
    assert (whole.frames, whole.dice.value) == (2, pytest.approx(0.7))
    # the set has moved on: old scores of frames that judge no more do not count
    draw(store, "two", seed=3, annotator="reader-2")
    freeze_test_set(store)
    assert compare_models(store).models[2].figures.frames == 1


def test_the_truth_of_today_counts_whatever_it_was_when_a_model_was_scored(store):
    shipped = begin(store)
    one, two = draw(store, "one"), draw(store, "two")
    then = {"group": "then", "label": "malignant", "claimed": False}
    write_scores(store, shipped, {one: score(0.0, frame="one", **then), two: score(0.5, frame="two", **then)})

    def figures():
        freeze_test_set(store)
        return compare_models(store).models[0].figures

    # the reader called both benign
    assert (figures().missed_malignant, figures().groups) == (None, 2)
    refer(store, "one", "malignant")
    assert figures().missed_malignant.value == 1
    refer(store, "two", "malignant")
    assert figures().missed_malignant.value == pytest.approx(0.5)


def test_what_a_model_knows_is_noted_again(store):
    version, revision = add(store, "tuned"), draw(store, "one")
    other = draw(store, "two")
    write_scores(store, version, {revision: score(0.7), other: score(0.5)})
    note_known(store, version, {revision: True, other: False, "0" * 32: True})
    assert read_scores(store, version) == {revision: score(0.7, known=True), other: score(0.5)}


def test_frames_that_a_model_knows_are_in_none_of_its_figures(store):
    shipped = begin(store)
    tuned = add(store, "tuned", parent=shipped)
    one, two = draw(store, "one"), draw(store, "two")
    freeze_test_set(store)
    own = score(1.0, frame=sha256("one"), known=True)
    other = score(0.5, frame=sha256("two"))
    write_scores(store, tuned, {one: own, two: other})
    write_scores(store, shipped, {one: own})
    tuned_line, shipped_line = compare_models(store).models
    assert (tuned_line.figures.frames, tuned_line.figures.dice.value) == (1, pytest.approx(0.5))
    assert shipped_line.figures is None
