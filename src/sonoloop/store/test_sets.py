"""What models are judged on: the frames that judge, frozen as a numbered test set."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from typing import TYPE_CHECKING, Any, ClassVar, Literal, get_args

from sqlalchemy import Connection, func, insert, select, update

from sonoloop.errors import StoreError
from sonoloop.store.database import check_who, hold, now
from sonoloop.store.model_registry import PASSED, REFUSED, add_mark, known_model
from sonoloop.store.references import references_in
from sonoloop.store.revisions import select_judging
from sonoloop.store.tables import LOOKS, MEMBERS, REVISIONS, SCORES, TEST_SET_MEMBERS, TEST_SETS, TOMBSTONES
from sonoloop.values import ClassName

if TYPE_CHECKING:
    from sonoloop.store.corrections import CorrectionStore


# SQLite takes 999 parameters a statement in its older versions
_BATCH = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class Judge:
    """A frame that judges, as it was corrected when the set was frozen.

    Parameters
    ----------
    frame_id : str
        See `sonoloop.values.Frame`.
    revision_id : str
        The correction that counts as true.
    group_id : str
        Frames of one group are drawn together when intervals are computed.
    reference : str, optional
        The class known from elsewhere, such as histology.
    """

    frame_id: str
    revision_id: str
    group_id: str
    reference: ClassName | None


@dataclass(frozen=True, slots=True, kw_only=True)
class TestSet:
    """The frames that judge, frozen; it never changes.

    Parameters
    ----------
    number : int
        Its version: sets are numbered as they are made.
    sha256 : str
        Of its members; 64 hex digits.
    created : datetime.datetime
        When it was frozen, in UTC.
    members : tuple of Judge
        By their frame's id.
    """

    # pytest would take the name for tests
    __test__: ClassVar[bool] = False

    number: int
    sha256: str
    created: datetime
    members: tuple[Judge, ...]

    @property
    def groups(self) -> int:
        """How many groups judge."""
        return len({judge.group_id for judge in self.members})


def freeze_test_set(store: CorrectionStore) -> TestSet:
    """Freeze the frames that can judge today; the same frames with the same corrections are the same set.

    These are the frames of test groups that somebody drew without having seen a prediction: by their first
    correction of it, since what a model says is shown after that. One that has near copies on the training
    side does not judge, nor does one that was withdrawn.
    """
    with store.writing() as connection:
        hold(connection, TEST_SETS)
        members = _select_judges(connection)
        sha256 = _hash(members)
        number = connection.scalar(select(TEST_SETS.c.number).where(TEST_SETS.c.sha256 == sha256))
        if number is None:
            row = {"sha256": sha256, "created": now()}
            number = connection.scalars(insert(TEST_SETS).values(row).returning(TEST_SETS.c.number)).one()
            if members:
                rows = [{"test_set": number, **asdict(judge)} for judge in members]
                connection.execute(insert(TEST_SET_MEMBERS), rows)
        return _read_set(connection, number)


def read_test_set(store: CorrectionStore, number: int) -> TestSet:
    """Read a test set."""
    with store.reading() as connection:
        return _read_set(connection, number)


def newest_test_set(store: CorrectionStore) -> TestSet | None:
    """Read the test set that models are compared on today; None before the first.

    It is the set of the frames that can judge today, where that was frozen, else the one that was looked at
    or frozen last.
    """
    with store.reading() as connection:
        today = _hash(_select_judges(connection))
        number = connection.scalar(select(TEST_SETS.c.number).where(TEST_SETS.c.sha256 == today))
        if number is None:
            last = select(LOOKS.c.test_set).order_by(LOOKS.c.number.desc()).limit(1)
            newest = select(func.max(TEST_SETS.c.number))
            number = connection.scalar(last) or connection.scalar(newest)
        if number is None:
            return None
        found = _read_set(connection, number)
        gone = set(connection.scalars(select(TOMBSTONES.c.frame_id)))
        return replace(found, members=tuple(one for one in found.members if one.frame_id not in gone))


def true_labels(store: CorrectionStore, test_set: TestSet) -> dict[str, str]:
    """Give the class of every frame of a test set: the reference standard, else the reader's."""
    wanted = [judge.revision_id for judge in test_set.members]
    labels: dict[str, str] = {}
    with store.reading() as connection:
        for start in range(0, len(wanted), _BATCH):
            some = REVISIONS.c.id.in_(wanted[start : start + _BATCH])
            rows = connection.execute(select(REVISIONS.c.id, REVISIONS.c.label).where(some))
            labels.update({row.id: row.label for row in rows})
    return {judge.frame_id: judge.reference or labels[judge.revision_id] for judge in test_set.members}


def _hash(members: tuple[Judge, ...]) -> str:
    # sorted here: databases differ in how they order text
    by_frame = sorted(members, key=lambda judge: judge.frame_id)
    content = json.dumps([asdict(judge) for judge in by_frame], sort_keys=True)
    return hashlib.sha256(content.encode()).hexdigest()


def _select_judges(connection: Connection) -> tuple[Judge, ...]:
    query = (
        select_judging(REVISIONS.c.frame_id, REVISIONS.c.id, MEMBERS.c.group_id)
        .order_by(None)
        .order_by(REVISIONS.c.frame_id)
    )
    rows = connection.execute(query).all()
    references = references_in(connection, [row.frame_id for row in rows])
    return tuple(
        Judge(
            frame_id=row.frame_id,
            revision_id=row.id,
            group_id=row.group_id,
            reference=references.get(row.frame_id),
        )
        for row in rows
    )


def _read_set(connection: Connection, number: int) -> TestSet:
    row = connection.execute(select(TEST_SETS).where(TEST_SETS.c.number == number)).one_or_none()
    if row is None:
        raise StoreError(f"there is no test set {number}: freeze one by judging a model")
    members = connection.execute(
        select(TEST_SET_MEMBERS)
        .where(TEST_SET_MEMBERS.c.test_set == number)
        .order_by(TEST_SET_MEMBERS.c.frame_id)
    )
    judges = tuple(
        Judge(
            frame_id=member.frame_id,
            revision_id=member.revision_id,
            group_id=member.group_id,
            reference=member.reference,
        )
        for member in members
    )
    if _hash(judges) != row.sha256:
        raise StoreError(f"test set {number} is not what it was when it was frozen: restore a backup")
    return TestSet(
        number=row.number,
        sha256=row.sha256,
        created=datetime.fromisoformat(row.created),
        members=judges,
    )


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
    """List the looks, at one test set or at all, in their order."""
    query = select(LOOKS).order_by(LOOKS.c.number)
    if test_set is not None:
        query = query.where(LOOKS.c.test_set == test_set)
    with store.reading() as connection:
        return tuple(_read_look(row) for row in connection.execute(query))


def read_scores(store: CorrectionStore, version: str) -> dict[str, dict[str, Any]]:
    """Read how a model did."""
    query = select(SCORES.c.revision_id, SCORES.c.score).where(SCORES.c.version == version)
    with store.reading() as connection:
        return {row.revision_id: json.loads(row.score) for row in connection.execute(query)}


def write_scores(store: CorrectionStore, version: str, scores: Mapping[str, Mapping[str, Any]]) -> None:
    """Keep how a model did. What was computed before stays: all looks are at the same figures."""
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
    """Note beside a model's scores which frames it knows; a patient's number that came later may tell."""
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
