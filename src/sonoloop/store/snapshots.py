"""Snapshots: named, hashed sets of revisions that tell for ever what a training learned from.

And what is there to learn from that the model in use did not.
"""

from __future__ import annotations

import hashlib
import json
import re
import threading
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import CompoundSelect, Connection, Row, Table, func, insert, select, union

from sonoloop.errors import StoreError
from sonoloop.store.database import Database, check_who, hold, in_batches, now, values_of
from sonoloop.store.groups import place_unseen, read_role_changes
from sonoloop.store.near_duplicates import hold_sketches
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
    TOMBSTONES,
    Role,
)
from sonoloop.values import ClassName

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_BATCH = 64
_HASHED = ("revision_id", "mask_sha256", "label", "role", "reference")
_LATE = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One revision of a snapshot, with its frame's role, group and reference standard as they were then."""

    revision_id: str
    frame_id: str
    role: Role
    group_id: str
    reference: ClassName | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """A set of revisions that never changes, one a frame."""

    name: str
    # of the revisions with their masks, labels, roles and references
    sha256: str
    created: datetime
    who: str
    # in the order of acceptance
    entries: tuple[Entry, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class SnapshotRow:
    """A snapshot without its entries: how many by role, and how many of frames withdrawn since."""

    name: str
    sha256: str
    created: datetime
    who: str
    train: int
    test: int
    neither: int
    withdrawn: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Learnable:
    """What there is to learn from, and what can test it."""

    # the model in use and what users call it; None for the shipped one that nobody promoted
    version: str | None
    model: str | None
    # the newest correction of each frame that trains, unless the model in use learned from it
    by_class: Mapping[str, int]
    by_annotator: Mapping[str, int]
    # frames that train, whatever the model in use learned from
    samples: int
    # kept for testing, and drawn before the prediction was seen, once
    test_frames: int

    @property
    def new(self) -> int:
        """How many corrections the model in use did not learn from."""
        return sum(self.by_class.values())


def take_snapshot(store: Database, name: str | None = None, *, who: str) -> Snapshot:
    """Name what was last said of every frame that was not withdrawn.

    Frames that an earlier Sonoloop stored are placed first; see `sonoloop.store.groups.place_unseen`.
    """
    who = check_who(who)
    if name is not None and not _NAME.fullmatch(name):
        raise StoreError(
            f"a snapshot cannot be called {name!r}: use letters, digits, dots, dashes and underscores, "
            "64 at most"
        )
    with store.writing() as connection:
        hold_sketches(connection)
        hold(connection, SNAPSHOTS)
        taken = set(connection.scalars(select(SNAPSHOTS.c.name)))
        if name in taken:
            raise StoreError(f"there is a snapshot {name} already, and it never changes: choose another name")
        _place_all(connection)
        rows = _read_newest(connection)
        if not rows:
            raise StoreError("there is no correction to take a snapshot of: accept one first")
        sha256 = _hash(rows)
        same = select(SNAPSHOTS.c.name).where(SNAPSHOTS.c.sha256 == sha256).limit(1)
        if name is None and (known := connection.scalar(same)) is not None:
            return _read(connection, known)
        name = name or _next_name(taken)
        head = {"name": name, "sha256": sha256, "who": who, "created": now()}
        connection.execute(insert(SNAPSHOTS).values(head))
        members = [{key: row[key] for key in ("revision_id", "role", "reference")} for row in rows]
        connection.execute(insert(SNAPSHOT_MEMBERS), [{"snapshot": name, **member} for member in members])
        return _read(connection, name)


def read_snapshot(store: Database, name: str) -> Snapshot:
    """Read a snapshot."""
    with store.reading() as connection:
        return _read(connection, name)


def list_snapshots(store: Database) -> list[SnapshotRow]:
    """List the snapshots, the oldest first."""
    own = (SNAPSHOT_MEMBERS.c.snapshot, SNAPSHOT_MEMBERS.c.role)
    every = (
        select(*own, func.count().label("number"))
        .join(REVISIONS, REVISIONS.c.id == SNAPSHOT_MEMBERS.c.revision_id)
        .group_by(*own)
    )
    counts: dict[str, Counter[str]] = {}
    with store.reading() as connection:
        for row in connection.execute(every):
            counts.setdefault(row.snapshot, Counter())[row.role] += row.number
        for row in connection.execute(every.where(is_withdrawn(REVISIONS.c.frame_id))):
            counts[row.snapshot]["withdrawn"] += row.number
        heads = connection.execute(select(SNAPSHOTS).order_by(SNAPSHOTS.c.created, SNAPSHOTS.c.name)).all()
    kinds = ("train", "test", "neither", "withdrawn")
    return [
        SnapshotRow(**values_of(row) | {kind: counts.get(row.name, Counter())[kind] for kind in kinds})
        for row in heads
    ]


def revisions_of(store: Database, snapshot: Snapshot) -> Iterator[tuple[Entry, Revision]]:
    """Read the revisions of a snapshot, few at a time."""
    for start in range(0, len(snapshot.entries), _BATCH):
        batch = snapshot.entries[start : start + _BATCH]
        with store.reading() as connection:
            query = select_revisions().where(REVISIONS.c.id.in_([entry.revision_id for entry in batch]))
            rows = {row.id: row for row in connection.execute(query)}
        for entry in batch:
            yield entry, read_revision(rows[entry.revision_id])


def _next_name(taken: set[str]) -> str:
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


def _read_newest(connection: Connection) -> list[dict[str, Any]]:
    query = select_newest(
        REVISIONS.c.id,
        REVISIONS.c.frame_id,
        REVISIONS.c.mask_sha256,
        REVISIONS.c.label,
        MEMBERS.c.bridges,
        GROUPS.c.role,
    )
    heads = connection.execute(query).all()
    references = references_in(connection, [row.frame_id for row in heads])
    return [
        {
            "revision_id": row.id,
            "mask_sha256": row.mask_sha256,
            "label": row.label,
            "role": "neither" if row.bridges else row.role,
            "reference": references.get(row.frame_id),
        }
        for row in heads
    ]


def _hash(rows: list[dict[str, Any]]) -> str:
    content = sorted(json.dumps(row, sort_keys=True) for row in rows)
    return hashlib.sha256("\n".join(content).encode()).hexdigest()


def _read(connection: Connection, name: str) -> Snapshot:
    head = connection.execute(select(SNAPSHOTS).where(SNAPSHOTS.c.name == name)).one_or_none()
    if head is None:
        newest = select(SNAPSHOTS.c.name).order_by(SNAPSHOTS.c.created.desc()).limit(5)
        names = connection.scalars(newest).all()
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
    if _hash([{key: row._mapping[key] for key in _HASHED} for row in rows]) != head.sha256:
        raise StoreError(f"snapshot {name} is not what it was when it was taken: restore a backup")
    entries = tuple(Entry(**{key: row._mapping[key] for key in Entry.__slots__}) for row in rows)
    return Snapshot(**values_of(head), entries=entries)


class LearnableCounter:
    """Counts what there is to learn from; asked again, it reads what was accepted or withdrawn since.

    Only where a frame's role changed, or another model came into use, is everything read again.
    """

    def __init__(self, store: Database) -> None:
        self.store = store
        self._lock = threading.Lock()
        self._state: tuple[int, str | None] | None = None
        self._last: dict[Table, int] = {}
        self._learned: set[str] = set()
        # by the hash of their pixels: the newest correction of each image that trains, and those that test
        self._samples: dict[str, Row[Any]] = {}
        self._tests: set[str] = set()
        self._counts: Counter[tuple[str, str]] = Counter()

    def count(self) -> Learnable:
        """Count as of now."""
        with self._lock, self.store.reading() as connection:
            in_use = connection.execute(
                select(MODELS.c.version, MODELS.c.model, MODELS.c.snapshot)
                .join(PROMOTIONS, PROMOTIONS.c.version == MODELS.c.version)
                .order_by(PROMOTIONS.c.number.desc())
                .limit(1)
            ).one_or_none()
            self._refresh(connection, None if in_use is None else in_use.snapshot)
            return Learnable(
                version=None if in_use is None else in_use.version,
                model=None if in_use is None else in_use.model,
                by_class=self._counted("class"),
                by_annotator=self._counted("annotator"),
                samples=len(self._samples),
                test_frames=len(self._tests),
            )

    def _refresh(self, connection: Connection, snapshot: str | None) -> None:
        state = (read_role_changes(connection), snapshot)
        last = {
            table: connection.scalar(select(func.max(table.c.number))) or 0
            for table in (REVISIONS, TOMBSTONES)
        }
        if state == self._state:
            changed = set(connection.scalars(self._select_changed(connection)))
            for pixels in changed & self._samples.keys():
                self._tally(self._samples.pop(pixels), -1)
            self._tests -= changed
            for batch in in_batches(changed):
                self._take_up(connection, batch)
        else:
            own = SNAPSHOT_MEMBERS.c.snapshot == snapshot
            self._learned = set(connection.scalars(select(SNAPSHOT_MEMBERS.c.revision_id).where(own)))
            self._samples, self._tests, self._counts = {}, set(), Counter()
            self._take_up(connection)
        self._state, self._last = state, last

    def _select_changed(self, connection: Connection) -> CompoundSelect[Any]:
        # a number is drawn before it is committed: where many write at once, one of the last may come late
        late = _LATE if connection.dialect.name == "postgresql" else 0
        return union(
            *(
                select(FRAMES.c.pixels_hash)
                .join(table, table.c.frame_id == FRAMES.c.id)
                .where(table.c.number > last - late)
                for table, last in self._last.items()
            )
        )

    def _take_up(self, connection: Connection, pixels: Collection[str] | None = None) -> None:
        query = select_newest(
            REVISIONS.c.id,
            REVISIONS.c.label,
            REVISIONS.c.annotator,
            FRAMES.c.pixels_hash,
            pixels=pixels,
        )
        # one that was never placed trains
        trains = (
            func.coalesce(GROUPS.c.role, "train") != "test",
            func.coalesce(MEMBERS.c.bridges, False).is_(False),
        )
        for row in connection.execute(query.where(*trains)):
            self._samples[row.pixels_hash] = row
            self._tally(row, 1)
        self._tests.update(connection.scalars(select_judging(FRAMES.c.pixels_hash, pixels=pixels)))

    def _tally(self, row: Row[Any], number: int) -> None:
        if row.id not in self._learned:
            self._counts["class", row.label] += number
            self._counts["annotator", row.annotator] += number

    def _counted(self, what: str) -> dict[str, int]:
        return {
            name: number for (kind, name), number in self._counts.most_common() if kind == what and number
        }
