"""Snapshots: named, hashed sets of revisions; they tell for ever what a training learned from."""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection, Row, Select, func, insert, select

from sonoloop.errors import StoreError
from sonoloop.store.database import check_who, hold, now
from sonoloop.store.groups import place_unseen
from sonoloop.store.references import references_in
from sonoloop.store.revisions import (
    Revision,
    is_withdrawn,
    read_revision,
    select_judging,
    select_newest,
    select_revisions,
)
from sonoloop.store.tables import (
    FRAMES,
    GROUPS,
    MEMBERS,
    MODELS,
    PROMOTIONS,
    REVISIONS,
    SNAPSHOT_MEMBERS,
    SNAPSHOTS,
    Role,
)
from sonoloop.values import ClassName

if TYPE_CHECKING:
    from sonoloop.store.corrections import CorrectionStore


_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_BATCH = 64
_HEAD = (
    REVISIONS.c.id,
    REVISIONS.c.frame_id,
    REVISIONS.c.mask_sha256,
    REVISIONS.c.label,
    MEMBERS.c.bridges,
    GROUPS.c.role,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One revision of a snapshot.

    Parameters
    ----------
    revision_id, frame_id : str
        The revision, and the frame it is about.
    role : str
        "train", "test" or "neither": what the frame was for when the snapshot was taken.
    group_id : str
        Its group.
    reference : str, optional
        The reference standard as it was known then.
    """

    revision_id: str
    frame_id: str
    role: Role
    group_id: str
    reference: ClassName | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """A set of revisions that never changes.

    Parameters
    ----------
    name : str
        What it is called.
    sha256 : str
        Hash of its content, 64 hex digits: the revisions with their masks, labels, roles and references.
    created : datetime.datetime
        When it was taken, in UTC.
    who : str
        Pseudonym of who took it.
    entries : tuple of Entry
        In the order of acceptance, one a frame.
    """

    name: str
    sha256: str
    created: datetime
    who: str
    entries: tuple[Entry, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class SnapshotRow:
    """A snapshot without its entries.

    Parameters
    ----------
    name, sha256, created, who
        See `Snapshot`.
    train, test, neither : int
        Entries by role.
    withdrawn : int
        Entries whose frames were withdrawn since.
    """

    name: str
    sha256: str
    created: datetime
    who: str
    train: int
    test: int
    neither: int
    withdrawn: int


def take_snapshot(store: CorrectionStore, name: str | None = None, *, who: str) -> Snapshot:
    """Name what was last said of every frame that was not withdrawn.

    Frames that an earlier Sonoloop stored are placed first; see `sonoloop.store.groups.place_unseen`.
    """
    check_who(who)
    if name is not None and not _NAME.fullmatch(name):
        raise StoreError(
            f"a snapshot cannot be called {name!r}: use letters, digits, dots, dashes and underscores, "
            "64 at most"
        )
    with store.writing() as connection:
        hold(connection, GROUPS)
        hold(connection, SNAPSHOTS)
        if name is not None and connection.scalar(_named(name)) is not None:
            raise StoreError(f"there is a snapshot {name} already, and it never changes: choose another name")
        _place_all(connection)
        heads = connection.execute(select_newest(*_HEAD)).all()
        if not heads:
            raise StoreError("there is no correction to take a snapshot of: accept one first")
        references = references_in(connection, [row.frame_id for row in heads])
        rows = [_join(row, references.get(row.frame_id)) for row in heads]
        same = select(SNAPSHOTS.c.name).where(SNAPSHOTS.c.sha256 == _hash(rows)).limit(1)
        if name is None and (known := connection.scalar(same)) is not None:
            return _read(connection, known)
        name = name or _next_name(connection)
        created = now()
        head = {"name": name, "sha256": _hash(rows), "who": who, "created": created}
        connection.execute(insert(SNAPSHOTS).values(head))
        connection.execute(
            insert(SNAPSHOT_MEMBERS),
            [
                {"snapshot": name, **{key: row[key] for key in ("revision_id", "role", "reference")}}
                for row in rows
            ],
        )
        return _read(connection, name)


def read_snapshot(store: CorrectionStore, name: str) -> Snapshot:
    """Read a snapshot."""
    with store.reading() as connection:
        return _read(connection, name)


def list_snapshots(store: CorrectionStore) -> list[SnapshotRow]:
    """List the snapshots, the oldest first."""
    with store.reading() as connection:
        counts: dict[str, dict[str, int]] = {}
        members = SNAPSHOT_MEMBERS.join(REVISIONS, REVISIONS.c.id == SNAPSHOT_MEMBERS.c.revision_id)
        withdrawn = is_withdrawn(REVISIONS.c.frame_id)
        for gone in (False, True):
            query = (
                select(SNAPSHOT_MEMBERS.c.snapshot, SNAPSHOT_MEMBERS.c.role, func.count().label("number"))
                .select_from(members)
                .group_by(SNAPSHOT_MEMBERS.c.snapshot, SNAPSHOT_MEMBERS.c.role)
            )
            for row in connection.execute(query.where(withdrawn) if gone else query):
                one = counts.setdefault(row.snapshot, {})
                key = "withdrawn" if gone else row.role
                one[key] = one.get(key, 0) + row.number
        return [
            SnapshotRow(
                name=row.name,
                sha256=row.sha256,
                created=datetime.fromisoformat(row.created),
                who=row.who,
                **{
                    key: counts.get(row.name, {}).get(key, 0)
                    for key in ("train", "test", "neither", "withdrawn")
                },
            )
            for row in connection.execute(select(SNAPSHOTS).order_by(SNAPSHOTS.c.created, SNAPSHOTS.c.name))
        ]


def revisions_of(store: CorrectionStore, snapshot: Snapshot) -> Iterator[tuple[Entry, Revision]]:
    """Read the revisions of a snapshot, few at a time."""
    for start in range(0, len(snapshot.entries), _BATCH):
        batch = snapshot.entries[start : start + _BATCH]
        with store.reading() as connection:
            query = select_revisions().where(REVISIONS.c.id.in_([entry.revision_id for entry in batch]))
            rows = {row.id: row for row in connection.execute(query)}
        for entry in batch:
            yield entry, read_revision(rows[entry.revision_id])


def _named(name: str) -> Select[Any]:
    return select(SNAPSHOTS.c.name).where(SNAPSHOTS.c.name == name)


def _next_name(connection: Connection) -> str:
    taken = set(connection.scalars(select(SNAPSHOTS.c.name)))
    number = len(taken) + 1
    while f"snapshot-{number}" in taken:
        number += 1
    return f"snapshot-{number}"


def _place_all(connection: Connection) -> None:
    unplaced = (
        select(FRAMES.c.id)
        .outerjoin(MEMBERS, MEMBERS.c.frame_id == FRAMES.c.id)
        .where(MEMBERS.c.frame_id.is_(None))
        .order_by(FRAMES.c.id)
    )
    for frame_id in connection.scalars(unplaced).all():
        place_unseen(connection, frame_id)


def _join(row: Row[Any], reference: ClassName | None) -> dict[str, Any]:
    return {
        "revision_id": row.id,
        "mask_sha256": row.mask_sha256,
        "label": row.label,
        "role": "neither" if row.bridges else row.role,
        "reference": reference,
    }


def _hash(rows: list[dict[str, Any]]) -> str:
    content = sorted(json.dumps(row, sort_keys=True) for row in rows)
    return hashlib.sha256("\n".join(content).encode()).hexdigest()


def _read(connection: Connection, name: str) -> Snapshot:
    head = connection.execute(select(SNAPSHOTS).where(SNAPSHOTS.c.name == name)).one_or_none()
    if head is None:
        names = connection.scalars(
            select(SNAPSHOTS.c.name).order_by(SNAPSHOTS.c.created.desc()).limit(5)
        ).all()
        there = f"the newest are {', '.join(names)}" if names else "there is none yet"
        raise StoreError(f"there is no snapshot {name}; {there}")
    rows = connection.execute(
        select(
            SNAPSHOT_MEMBERS.c.revision_id,
            REVISIONS.c.frame_id,
            REVISIONS.c.mask_sha256,
            REVISIONS.c.label,
            SNAPSHOT_MEMBERS.c.role,
            SNAPSHOT_MEMBERS.c.reference,
            MEMBERS.c.group_id,
        )
        .join(REVISIONS, REVISIONS.c.id == SNAPSHOT_MEMBERS.c.revision_id)
        .join(MEMBERS, MEMBERS.c.frame_id == REVISIONS.c.frame_id)
        .where(SNAPSHOT_MEMBERS.c.snapshot == name)
        .order_by(REVISIONS.c.number)
    ).all()
    hashed = ("revision_id", "mask_sha256", "label", "role", "reference")
    if _hash([{key: row._mapping[key] for key in hashed} for row in rows]) != head.sha256:
        raise StoreError(f"snapshot {name} is not what it was when it was taken: restore a backup")
    fields = ("revision_id", "frame_id", "role", "group_id", "reference")
    return Snapshot(
        name=head.name,
        sha256=head.sha256,
        created=datetime.fromisoformat(head.created),
        who=head.who,
        entries=tuple(Entry(**{key: row._mapping[key] for key in fields}) for row in rows),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class News:
    """How many corrections wait for the next training, and how many can judge it.

    Parameters
    ----------
    version, model : str, optional
        The model in use and what users call it; None for the shipped one that nobody promoted.
    by_class, by_annotator : mapping
        Of the frames that train, the newest correction each, unless the model in use learned from it: how
        many by their class, and by who made them.
    judge : int
        Frames that judge models: kept for testing, and drawn before the prediction was seen, once.
    samples : int
        Frames that may train, those that the model in use has learned from among them.
    """

    version: str | None
    model: str | None
    by_class: Mapping[str, int]
    by_annotator: Mapping[str, int]
    judge: int
    samples: int = 0

    @property
    def learn(self) -> int:
        """How many corrections there are to learn from."""
        return sum(self.by_class.values())


def count_news(store: CorrectionStore) -> News:
    """Count what is new since the model in use."""
    with store.reading() as connection:
        in_use = connection.execute(
            select(MODELS.c.version, MODELS.c.model, MODELS.c.snapshot)
            .join(PROMOTIONS, PROMOTIONS.c.version == MODELS.c.version)
            .order_by(PROMOTIONS.c.number.desc())
            .limit(1)
        ).one_or_none()
        learned = select(SNAPSHOT_MEMBERS.c.revision_id).where(
            SNAPSHOT_MEMBERS.c.snapshot == (None if in_use is None else in_use.snapshot)
        )
        known = set(connection.scalars(learned)) if in_use is not None else set()
        query = select_newest(REVISIONS.c.id, REVISIONS.c.label, REVISIONS.c.annotator, GROUPS.c.role)
        rows = connection.execute(query.where(func.coalesce(MEMBERS.c.bridges, False).is_(False))).all()
        judge = len(connection.execute(select_judging(REVISIONS.c.id)).all())
    new = [row for row in rows if row.role != "test" and row.id not in known]
    return News(
        version=None if in_use is None else in_use.version,
        model=None if in_use is None else in_use.model,
        by_class=_count(row.label for row in new),
        by_annotator=_count(row.annotator for row in new),
        judge=judge,
        samples=sum(row.role != "test" for row in rows),
    )


def _count(names: Iterable[str]) -> dict[str, int]:
    return dict(Counter(names).most_common())
