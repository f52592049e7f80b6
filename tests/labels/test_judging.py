from __future__ import annotations

import pytest
from model_samples import add, begin
from sqlalchemy import insert
from store_writers import make_correction, make_prediction, sha256

from sonoloop.errors import StoreError
from sonoloop.labels.judging import (
    freeze_test_set,
    looks,
    newest_test_set,
    read_scores,
    read_test_set,
    record_look,
    write_scores,
)
from sonoloop.labels.news import count_news
from sonoloop.labels.overview import compare_models
from sonoloop.labels.tables import GROUPS, MEMBERS, REFERENCES, TOMBSTONES

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


def test_a_frame_seen_again_with_the_prediction_judges_no_more(store):
    draw(store, "one")
    assert len(freeze_test_set(store).members) == 1
    draw(store, "one", seen=True, seed=1)
    assert freeze_test_set(store).members == ()


def test_a_mask_drawn_again_by_the_same_person_judges_no_more(store):
    # after the first Accept the proposal is shown, and whether it was looked at is on no record
    draw(store, "one")
    draw(store, "one", seed=1)
    assert freeze_test_set(store).members == ()
    assert count_news(store).judge == 0
    newer = draw(store, "one", seed=2, annotator="reader-2")
    assert judges(freeze_test_set(store)) == {newer}
    assert count_news(store).judge == 1


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
    look = record_look(store, test_set=first, **values)
    again = record_look(store, test_set=first, **values)
    draw(store, "two")
    other = record_look(store, test_set=freeze_test_set(store).number, **values)
    assert looks(store) == (look, again, other)
    assert looks(store, first) == (look, again)
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
        record_look(store, **(values | changes))
    assert looks(store) == ()


def test_scores_are_computed_once(store):
    version, revision = add(store, "tuned"), draw(store, "one")
    other = draw(store, "two")
    write_scores(store, version, {revision: {"dice": 0.7}})
    write_scores(store, version, {revision: {"dice": 0.1}, other: {"dice": 0.5}})
    assert read_scores(store, version) == {revision: {"dice": 0.7}, other: {"dice": 0.5}}
    assert read_scores(store, begin(store)) == {}


def test_scores_of_unknown_models_or_revisions_are_not_kept(store):
    version, revision = add(store, "tuned"), draw(store, "one")
    with pytest.raises(StoreError, match="knows no model"):
        write_scores(store, sha256("nowhere"), {revision: {"dice": 0.7}})
    with pytest.raises(StoreError):
        write_scores(store, version, {revision: {"dice": 0.7}, "0" * 32: {"dice": 0.7}})
    with pytest.raises(ValueError, match="JSON"):
        write_scores(store, version, {revision: {"dice": float("inf")}})
    assert read_scores(store, version) == {}


def test_all_models_are_compared_on_the_newest_set(store):
    shipped = begin(store)
    tuned = add(store, "tuned", parent=shipped)
    orphan = add(store, "orphan", parent=sha256("elsewhere"), origin="imported")
    one, two = draw(store, "one"), draw(store, "two")
    freeze_test_set(store)

    def score(frame, dice):
        values = {"label": "benign", "lesion": True, "claimed": True, "malignant": 0.1}
        return {"frame": sha256(frame), "group": frame, "dice": dice, **values}

    write_scores(store, shipped, {one: score("one", 0.6), two: score("two", 0.8)})
    write_scores(store, tuned, {one: score("one", 0.9)})
    found = compare_models(store)
    assert [line.row.version for line in found.lines] == [orphan, tuned, shipped]
    assert [line.in_use for line in found.lines] == [False, False, True]
    assert [line.parent for line in found.lines] == [
        sha256("elsewhere")[:8],
        f"default-{shipped[:8]}",
        None,
    ]
    unscored, partly, whole = (line.figures for line in found.lines)
    assert unscored is None
    assert (partly.frames, partly.dice.value) == (1, pytest.approx(0.9))
    assert (whole.frames, whole.dice.value) == (2, pytest.approx(0.7))
    # the set has moved on: old scores of frames that judge no more do not count
    draw(store, "two", seed=3, annotator="reader-2")
    freeze_test_set(store)
    assert compare_models(store).lines[2].figures.frames == 1


def test_frames_that_a_model_knows_are_in_none_of_its_figures(store):
    shipped = begin(store)
    tuned = add(store, "tuned", parent=shipped)
    one, two = draw(store, "one"), draw(store, "two")
    freeze_test_set(store)
    values = {"label": "benign", "lesion": True, "claimed": True, "malignant": 0.1}
    own = {"frame": sha256("one"), "group": "one", "dice": 1.0, "known": True, **values}
    other = {"frame": sha256("two"), "group": "two", "dice": 0.5, "known": False, **values}
    write_scores(store, tuned, {one: own, two: other})
    write_scores(store, shipped, {one: own})
    tuned_line, shipped_line = compare_models(store).lines
    assert (tuned_line.figures.frames, tuned_line.figures.dice.value) == (1, pytest.approx(0.5))
    assert shipped_line.figures is None
