"""A store with something in every table, and what a table holds."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from model_samples import add, begin, use
from scenes import SHAPE, correct, make_frame
from sqlalchemy import insert, select
from store_writers import make_prediction

from sonoloop.store import CorrectionStore
from sonoloop.store.database import now
from sonoloop.store.groups import place_frame
from sonoloop.store.leases import take_lease
from sonoloop.store.marks import mark_frame
from sonoloop.store.metrics import FrameScore
from sonoloop.store.model_registry import mark
from sonoloop.store.notes import add_note
from sonoloop.store.references import set_reference
from sonoloop.store.settings import SETTING_NAMES, change_settings
from sonoloop.store.snapshots import take_snapshot
from sonoloop.store.tables import ADJUDICATIONS, ASSIGNMENTS, METADATA, SETTINGS
from sonoloop.store.test_sets import freeze_test_set, record_evaluation, write_scores
from sonoloop.store.withdrawal import withdraw
from sonoloop.values import Frame

PATIENTS = ("CANARY-PATIENT-4711", "CANARY-PATIENT-4712")


def fill(store: CorrectionStore) -> list[Frame]:
    """Place four frames, say something of each, withdraw the last, and use every other table too."""
    frames = [make_frame(seed) for seed in (1, 2, 3, 4)]
    for frame, patient, role in zip(
        frames, (PATIENTS[0], PATIENTS[0], PATIENTS[1], None), ("train", None, "test", "train"), strict=True
    ):
        place_frame(store, frame, patient=patient, role=role)
    prediction = replace(make_prediction(seed=1, shape=SHAPE), frame_id=frames[0].id)
    mask = np.random.default_rng(5).integers(0, 3, SHAPE, dtype=np.uint8)
    given = replace(correct(frames[0]), mask=mask, prediction=prediction, prediction_seen=True)
    first = store.accept(replace(given, lesions={1: "benign", 2: "malignant"}), parent=None)
    store.accept(correct(frames[0], label="malignant"), parent=first.id)
    other = store.accept(correct(frames[0], annotator="reader-2"), parent=None)
    judged = store.accept(correct(frames[2]), parent=None)
    for frame in (frames[1], frames[3]):
        store.accept(correct(frame), parent=None)
    mark_frame(store, frames[1].id, "flagged", "blurred, µ\u2028new line", annotator="reader-1")
    add_note(store, frames[1].id, "look again", annotator="reader-1")
    add_note(store, frames[3].id, "CANARY of a note that is erased", annotator="reader-1")
    set_reference(store, frames[2].id, "malignant", source="histology")
    change_settings(store, test_cap=7)
    take_snapshot(store, "first", who="reader-1")
    begin(store)
    tuned = add(store, "tuned", snapshot="first")
    members = freeze_test_set(store).members
    score = FrameScore(
        frame=frames[2].id, group="g", label="benign", lesion=True, dice=0.5, claimed=True, malignant=0.25
    )
    write_scores(store, tuned, {members[0].revision_id: score})
    look = record_evaluation(
        store,
        test_set=1,
        candidate=tuned,
        incumbent=begin(store),
        verdict="promote",
        reason="better",
        figures={},
        who="reader-1",
    )
    use(store, tuned, kind="gate", look=look.number, expected=begin(store))
    mark(store, add(store, "worse"), "deleted", why="too large", who="reader-1")
    with store.writing() as connection:
        row = {"frame_id": frames[1].id, "reader": "reader-2", "round": 1, "created": now()}
        connection.execute(insert(ASSIGNMENTS).values(row))
        row = {"revision_id": judged.id, "original": other.id, "who": "reader-3", "created": now()}
        connection.execute(insert(ADJUDICATIONS).values(row))
    take_lease(store, "training", what="a training")
    withdraw(store, frames[3].id, why="asked to", who="reader-1")
    return frames


def rows_of(store: CorrectionStore, table: str, *, without: tuple[str, ...] = ()) -> list[dict[str, Any]]:
    """Give all rows of a table; of the settings those that people chose."""
    of = METADATA.tables[table]
    query = select(*(column for column in of.c if column.name not in without)).order_by(*of.primary_key)
    if of is SETTINGS:
        query = query.where(SETTINGS.c.key.in_(SETTING_NAMES))
    with store.reading() as connection:
        return [dict(row._mapping) for row in connection.execute(query)]


def content_of(store: CorrectionStore) -> dict[str, list[dict[str, Any]]]:
    """Give all that an export holds."""
    from sonoloop.store.export import LEFT_OUT  # what is compared is what is exported

    return {
        name: rows_of(
            store,
            name,
            without=tuple(what.partition(".")[2] for what in LEFT_OUT if what.startswith(f"{name}.")),
        )
        for name in METADATA.tables
        if name not in LEFT_OUT
    }
