"""What models are judged on: the frames that judge, frozen as a numbered test set."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from typing import TYPE_CHECKING, ClassVar

from sqlalchemy import Connection, func, insert, select

from sonoloop.errors import StoreError
from sonoloop.store.heads import can_judge, select_newest
from sonoloop.store.looks import (
    VERDICTS,
    Look,
    VerdictName,
    looks,
    note_known,
    read_scores,
    record_look,
    write_scores,
)
from sonoloop.store.model_rows import hold, now
from sonoloop.store.references import references_in
from sonoloop.store.tables import LOOKS, MEMBERS, REVISIONS, TEST_SET_MEMBERS, TEST_SETS, TOMBSTONES
from sonoloop.values import ClassName

if TYPE_CHECKING:
    from sonoloop.store.corrections import CorrectionStore

__all__ = [
    "VERDICTS",
    "Judge",
    "Look",
    "TestSet",
    "VerdictName",
    "freeze_test_set",
    "looks",
    "newest_test_set",
    "note_known",
    "read_scores",
    "read_test_set",
    "record_look",
    "true_labels",
    "write_scores",
]

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

    These are the frames of test groups whose newest correction was made without having seen a prediction: it
    is its annotator's first on the frame, since what a model says is shown after that. One that has near
    copies on the training side does not judge, nor does one that was withdrawn.

    Returns
    -------
    TestSet
        Without members where no frame can judge yet.

    Raises
    ------
    StoreError
        If the store cannot be read or written to.
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
    """Read a test set.

    Raises
    ------
    StoreError
        If there is none of that number, or it was meddled with.
    """
    with store.reading() as connection:
        return _read_set(connection, number)


def newest_test_set(store: CorrectionStore) -> TestSet | None:
    """Read the test set that models are compared on today; None before the first.

    It is the set of the frames that can judge today, where that was frozen, else the one that was looked at
    or frozen last.

    Returns
    -------
    TestSet or None
        Without the frames that were withdrawn since it was frozen.

    Raises
    ------
    StoreError
        If the store cannot be read.
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
    """Give the class of every frame of a test set: the reference standard, else the reader's.

    Raises
    ------
    StoreError
        If the store cannot be read.
    """
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
        select_newest(REVISIONS.c.frame_id, REVISIONS.c.id, MEMBERS.c.group_id)
        .where(can_judge())
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
