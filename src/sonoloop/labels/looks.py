"""Every look that was taken at a test set, and how each model did on it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, Literal, get_args

from sqlalchemy import insert, select

from sonoloop.errors import StoreError
from sonoloop.labels.model_rows import check_who, known_model, now
from sonoloop.labels.tables import LOOKS, SCORES, TEST_SETS

if TYPE_CHECKING:
    from sonoloop.labels.store import CorrectionStore

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
) -> Look:
    """Put a comparison on record; whatever came out of it, it counts as a look at the set.

    Parameters
    ----------
    store : CorrectionStore
        Where.
    test_set, candidate, incumbent, verdict, reason, figures, who
        See `Look`.

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
        for version in (candidate, incumbent):
            known_model(connection, version)
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
        By the revision that counted as true; see `sonoloop.labels.figures` for what a score holds.

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
        By the revision that counts as true; see `sonoloop.labels.figures` for what a score holds.

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
        query = select(SCORES.c.revision_id).where(SCORES.c.version == version)
        there = set(connection.scalars(query))
        rows = [
            {"version": version, "revision_id": key, "score": text}
            for key, text in texts.items()
            if key not in there
        ]
        if rows:
            connection.execute(insert(SCORES), rows)


def _read_look(row: Any) -> Look:  # noqa: ANN401 - a database's row
    values = dict(row._mapping)
    return Look(
        **{
            **values,
            "created": datetime.fromisoformat(values["created"]),
            "figures": json.loads(values["figures"]),
        }
    )
