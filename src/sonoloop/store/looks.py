"""Every look that was taken at a test set, and how each model did on it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, Literal, get_args

from sqlalchemy import Connection, insert, select, update

from sonoloop.errors import StoreError
from sonoloop.store.model_rows import PASSED, REFUSED, add_mark, check_who, hold, known_model, now
from sonoloop.store.tables import LOOKS, SCORES, TEST_SETS

if TYPE_CHECKING:
    from sonoloop.store.corrections import CorrectionStore

VerdictName = Literal["promote", "refuse", "inconclusive"]
VERDICTS: tuple[VerdictName, ...] = get_args(VerdictName)


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """One comparison of two models on a test set. Looks are counted: whoever looks often will find something.

    Parameters
    ----------
    number : int
        Their order.
    test_set : int
        Number of the set.
    candidate, incumbent : str
        Versions of the two models.
    verdict : str
        One of `VERDICTS`.
    reason : str
        In words.
    figures : mapping
        What was measured, as JSON holds it.
    who : str
        Pseudonym of the person.
    created : datetime.datetime
        When, in UTC.
    """

    number: int
    test_set: int
    candidate: str
    incumbent: str
    verdict: VerdictName
    reason: str
    figures: Mapping[str, Any]
    who: str
    created: datetime


def record_look(
    store: CorrectionStore,
    *,
    test_set: int,
    candidate: str,
    incumbent: str,
    verdict: VerdictName,
    reason: str,
    figures: Mapping[str, Any],
    who: str,
    resumed: bool = False,
) -> Look:
    """Put a comparison on record; whatever came out of it, it counts as a look at the set.

    A candidate that was refused is marked in the same transaction, and one that is found better after it was
    refused is not refused any longer.

    Parameters
    ----------
    store : CorrectionStore
        Where.
    test_set, candidate, incumbent, verdict, reason, figures, who
        See `Look`.
    resumed : bool
        Whether this goes on where the same work was interrupted: where the last look at the set was of these
        two and said the very same, it is that look, and is not counted twice.

    Returns
    -------
    Look
        As it is stored.

    Raises
    ------
    StoreError
        If a model or the set is unknown, or the store cannot be written to.
    ValueError
        If the verdict is unknown, a figure is not finite or nothing that JSON holds, or nobody is named.
    """
    if verdict not in VERDICTS:
        raise ValueError(f"verdict must be one of {', '.join(VERDICTS)}, got {verdict!r}")
    check_who(who)
    row = {
        "test_set": test_set,
        "candidate": candidate,
        "incumbent": incumbent,
        "verdict": verdict,
        "reason": reason,
        "figures": json.dumps(figures, allow_nan=False),
        "who": who,
        "created": now(),
    }
    with store.writing() as connection:
        if connection.scalar(select(TEST_SETS.c.number).where(TEST_SETS.c.number == test_set)) is None:
            raise StoreError(f"there is no test set {test_set}: freeze one first")
        known_model(connection, incumbent)
        judged = known_model(connection, candidate)
        hold(connection, LOOKS)
        if resumed and (same := _find_same(connection, row)) is not None:
            return same
        if verdict == "refuse":
            add_mark(connection, candidate, REFUSED, why=reason, who=who)
        elif verdict == "promote" and REFUSED in judged.standing:
            add_mark(connection, candidate, PASSED, why=reason, who=who)
        return _read_look(connection.execute(insert(LOOKS).values(row).returning(*LOOKS.c)).one())


def looks(store: CorrectionStore, test_set: int | None = None) -> tuple[Look, ...]:
    """List the looks, at one test set or at all, in their order.

    Raises
    ------
    StoreError
        If the store cannot be read.
    """
    query = select(LOOKS).order_by(LOOKS.c.number)
    if test_set is not None:
        query = query.where(LOOKS.c.test_set == test_set)
    with store.reading() as connection:
        return tuple(_read_look(row) for row in connection.execute(query))


def read_scores(store: CorrectionStore, version: str) -> dict[str, dict[str, Any]]:
    """Read how a model did.

    Returns
    -------
    dict
        By the revision that counted as true; see `sonoloop.store.metrics` for what a score holds.

    Raises
    ------
    StoreError
        If the store cannot be read.
    """
    query = select(SCORES.c.revision_id, SCORES.c.score).where(SCORES.c.version == version)
    with store.reading() as connection:
        return {row.revision_id: json.loads(row.score) for row in connection.execute(query)}


def write_scores(store: CorrectionStore, version: str, scores: Mapping[str, Mapping[str, Any]]) -> None:
    """Keep how a model did. What was computed before stays: all looks are at the same figures.

    Parameters
    ----------
    store : CorrectionStore
        Where.
    version : str
        Of a registered model.
    scores : mapping
        By the revision that counts as true; see `sonoloop.store.metrics` for what a score holds.

    Raises
    ------
    StoreError
        If the model or a revision is unknown, or the store cannot be written to; nothing was kept.
    ValueError
        If a score is not finite or nothing that JSON holds.
    """
    texts = {key: json.dumps(dict(score), allow_nan=False) for key, score in scores.items()}
    with store.writing() as connection:
        known_model(connection, version)
        hold(connection, SCORES)
        query = select(SCORES.c.revision_id).where(SCORES.c.version == version)
        there = set(connection.scalars(query))
        rows = [
            {"version": version, "revision_id": key, "score": text}
            for key, text in texts.items()
            if key not in there
        ]
        if rows:
            connection.execute(insert(SCORES), rows)


def note_known(store: CorrectionStore, version: str, known: Mapping[str, bool]) -> None:
    """Note beside a model's scores which frames it knows; a patient's number that came later may tell.

    Parameters
    ----------
    store : CorrectionStore
        Where.
    version : str
        Of a registered model.
    known : mapping
        By the revision that counts as true; those without a score are passed over.

    Raises
    ------
    StoreError
        If the store cannot be written to.
    """
    stale = {
        key: {**score, "known": known[key]}
        for key, score in read_scores(store, version).items()
        if key in known and bool(score.get("known")) != known[key]
    }
    if not stale:
        return
    with store.writing() as connection:
        for key, score in stale.items():
            own = (SCORES.c.version == version, SCORES.c.revision_id == key)
            connection.execute(update(SCORES).where(*own).values(score=json.dumps(score)))


def _find_same(connection: Connection, row: Mapping[str, Any]) -> Look | None:
    last = select(LOOKS).where(LOOKS.c.test_set == row["test_set"]).order_by(LOOKS.c.number.desc()).limit(1)
    found = connection.execute(last).one_or_none()
    same = ("candidate", "incumbent", "verdict", "reason", "figures")
    if found is None or any(found._mapping[key] != row[key] for key in same):
        return None
    return _read_look(found)


def _read_look(row: Any) -> Look:  # noqa: ANN401 - a database's row
    values = dict(row._mapping)
    return Look(
        **{
            **values,
            "created": datetime.fromisoformat(values["created"]),
            "figures": json.loads(values["figures"]),
        }
    )
