"""The sketches of a store's frames, kept in memory between questions: which frames look like this one."""

from __future__ import annotations

import json
import threading
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Connection, Row, Select, func, insert, select, update

from sonoloop.imaging.fingerprints import (
    ALIKE,
    BITS,
    CANDIDATE,
    CANDIDATES_AN_IMAGE,
    MEMBERS_ASKED,
    RELATED,
    SURE,
    Sketch,
    correlate,
)
from sonoloop.store.tables import FRAMES, GROUPS, MEMBERS, SETTINGS, GroupRole

_COUNTER = "sketches"
_WORDS = BITS // 64
_HALF = BITS // 2
_BATCH = 500
# frames compared at a time: what is in between stays in the processor's cache
_BLOCK = 2048
_SIDE = 96


class SketchIndex:
    """The hashes of every frame of a store that was seen.

    Hold `lock` from before the transaction until `add` was called after it: only what was committed is kept.
    """

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self._changes: int | None = None
        self._ids: list[str] = []
        self._hashes: NDArray[np.uint64] = np.zeros((0, 0, _WORDS), np.uint64)

    def refresh(self, connection: Connection) -> None:
        """Take up what other processes added or erased since the last time."""
        changes = _read_changes(connection)
        if changes == self._changes:
            return
        held = set(connection.scalars(select(MEMBERS.c.frame_id).where(func.length(MEMBERS.c.bits) > 0)))
        kept = [place for place, frame_id in enumerate(self._ids) if frame_id in held]
        self._hashes = self._hashes[kept]
        self._ids = [self._ids[place] for place in kept]
        missing = sorted(held.difference(self._ids))
        for start in range(0, len(missing), _BATCH):
            batch = MEMBERS.c.frame_id.in_(missing[start : start + _BATCH])
            rows = connection.execute(select(MEMBERS.c.frame_id, MEMBERS.c.bits).where(batch)).all()
            self._append([row.frame_id for row in rows], [row.bits for row in rows])
        self._changes = changes

    def add(self, frame_id: str, bits: bytes, changes: int) -> None:
        """Take up a frame whose transaction was committed."""
        self._append([frame_id], [bits])
        self._changes = changes

    def nearest(self, one: Sketch) -> list[str]:
        """Name the frames whose images are worth comparing, the nearest first."""
        if not self._ids:
            return []
        mine = _read_hashes([_pack(one)])[0]
        apart = np.concatenate(
            [
                np.minimum(_apart(block, mine[:1]), _apart(block[:, :1], mine))
                for start in range(0, len(self._ids), _BLOCK)
                for block in [self._hashes[start : start + _BLOCK]]
            ]
        )
        near = np.flatnonzero(apart <= CANDIDATE)
        order = near[np.argsort(apart[near], kind="stable")][:CANDIDATES_AN_IMAGE]
        return [self._ids[place] for place in order]

    def _append(self, ids: Iterable[str], bits: list[bytes]) -> None:
        if not bits:
            return
        added = _read_hashes(bits)
        # one new array an image placed: 6 MB for 5,000 frames, which copies in about a millisecond
        self._hashes = added if not self._ids else np.concatenate([self._hashes, added])
        self._ids = [*self._ids, *ids]


def write_sketch(one: Sketch) -> tuple[bytes, bytes]:
    """Turn a sketch into the values of its columns."""
    return one.thumbnail.tobytes(), _pack(one)


def read_sketch(thumbnail: bytes, bits: bytes) -> Sketch:
    """Turn the values back into a sketch."""
    hashes = np.unpackbits(np.frombuffer(bits, np.uint8).reshape(-1, BITS // 8), axis=1).astype(bool)
    return Sketch(np.frombuffer(thumbnail, np.uint8).reshape(_SIDE, _SIDE), hashes)


def count_change(connection: Connection) -> int:
    """Note in a writing transaction that sketches were added or erased, so that every process looks again."""
    changes = (_read_changes(connection) or 0) + 1
    own = SETTINGS.c.key == _COUNTER
    if connection.execute(update(SETTINGS).where(own).values(value=json.dumps(changes))).rowcount == 0:
        connection.execute(insert(SETTINGS).values(key=_COUNTER, value=json.dumps(changes)))
    return changes


def _read_changes(connection: Connection) -> int | None:
    value = connection.scalar(select(SETTINGS.c.value).where(SETTINGS.c.key == _COUNTER))
    return None if value is None else int(json.loads(value))


def _pack(one: Sketch) -> bytes:
    return np.packbits(one.bits, axis=1).tobytes()


def _read_hashes(bits: list[bytes]) -> NDArray[np.uint64]:
    """Return the hashes of frames and their windows, uint64 (N, windows, 4): two words even, two odd."""
    return np.frombuffer(b"".join(bits), np.uint64).reshape(len(bits), -1, _WORDS)


def _apart(some: NDArray[np.uint64], others: NDArray[np.uint64]) -> NDArray[np.uint8]:
    """Return the least distance (N,) of N frames' hashes to others; see `sonoloop.imaging.fingerprints`."""
    different = _count_bits(some ^ others)
    even = different[..., 0] + different[..., 1]
    odd = different[..., 2] + different[..., 3]
    least: NDArray[np.uint8] = (even + np.minimum(odd, _HALF - odd)).min(axis=1)
    return least


def _count_bits(words: NDArray[np.uint64]) -> NDArray[np.uint8]:
    counts: NDArray[np.uint8]
    if hasattr(np, "bitwise_count"):  # NumPy 2
        counts = np.bitwise_count(words)
        return counts
    counts = np.unpackbits(words.view(np.uint8).reshape(*words.shape, 8), axis=-1).sum(
        axis=-1, dtype=np.uint8
    )
    return counts


@dataclass(frozen=True, slots=True, kw_only=True)
class Home:
    """A group that a frame has something in common with.

    Parameters
    ----------
    group_id : str
        The group.
    role : str
        What the group is for.
    bridges : bool
        Whether the frame found there belongs to both sides itself.
    """

    group_id: str
    role: GroupRole
    bridges: bool


def find_patient(connection: Connection, hashed: str) -> list[Home]:
    """Find where a patient's frames are, the oldest group first."""
    query = (
        select(GROUPS.c.id, GROUPS.c.role)
        .where(GROUPS.c.id.in_(select(MEMBERS.c.group_id).where(MEMBERS.c.patient == hashed)))
        .order_by(GROUPS.c.created, GROUPS.c.id)
    )
    return [Home(group_id=row.id, role=row.role, bridges=False) for row in connection.execute(query)]


def find_twins(connection: Connection, frame_id: str, pixels_hash: str) -> list[Home]:
    """Find where the frames of the same pixels are, whatever file they came from."""
    query = (
        _select_homes()
        .join(FRAMES, FRAMES.c.id == MEMBERS.c.frame_id)
        .where(FRAMES.c.pixels_hash == pixels_hash, FRAMES.c.id != frame_id)
        .order_by(GROUPS.c.created, GROUPS.c.id)
    )
    return [_read_home(row) for row in connection.execute(query)]


def find_twin_ids(connection: Connection, frame_id: str, pixels_hash: str) -> set[str]:
    """Name the other frames of the same pixels."""
    same = select(FRAMES.c.id).where(FRAMES.c.pixels_hash == pixels_hash, FRAMES.c.id != frame_id)
    return set(connection.scalars(same))


def find_near_ids(connection: Connection, index: SketchIndex, seen: Sketch, frame_id: str) -> set[str]:
    """Name all near copies of a frame, whatever they are for; see `find_near`."""
    return {row.frame_id for row in _compare(connection, index, seen, frame_id, settled=set())}


def find_near(
    connection: Connection, index: SketchIndex, seen: Sketch, frame_id: str, *, known: Collection[GroupRole]
) -> list[Home]:
    """Find where the near copies of a frame are, as training groups the images of a dataset.

    Images are compared where hashes are near, the nearest first. One that is alike and not surely so counts
    only where the other members of its group are alike too; one whose group is for what is known already
    is not compared, since it would change nothing.
    """
    settled: set[str] = set(known)
    found: list[Home] = []
    for row in _compare(connection, index, seen, frame_id, settled=settled):
        found.append(_read_home(row))
        settled.add(row.role)
    return found


def _compare(
    connection: Connection, index: SketchIndex, seen: Sketch, frame_id: str, *, settled: Collection[str]
) -> Iterator[Row[Any]]:
    """Give the near copies, the nearest first; `settled` may grow meanwhile, and what it holds is passed."""
    ids = [found for found in index.nearest(seen) if found != frame_id]
    query = _select_homes(MEMBERS.c.frame_id, MEMBERS.c.thumbnail, MEMBERS.c.bits)
    rows = {row.frame_id: row for row in connection.execute(query.where(MEMBERS.c.frame_id.in_(ids)))}
    for row in (rows[near] for near in ids if near in rows):
        if row.role in settled and not row.bridges:
            continue
        correlation = correlate(read_sketch(row.thumbnail, row.bits), seen)[0]
        if correlation >= SURE or (correlation >= ALIKE and _is_related(connection, row, correlation, seen)):
            yield row


def _is_related(connection: Connection, row: Row[Any], correlation: float, seen: Sketch) -> bool:
    others = connection.execute(
        select(MEMBERS.c.thumbnail, MEMBERS.c.bits)
        .where(MEMBERS.c.group_id == row.group_id, MEMBERS.c.frame_id != row.frame_id)
        .where(func.length(MEMBERS.c.bits) > 0)
        .order_by(MEMBERS.c.frame_id)
        .limit(MEMBERS_ASKED - 1)
    )
    asked = [correlation, *(correlate(read_sketch(*other), seen)[0] for other in others)]
    return bool(np.mean(asked) >= RELATED)


def _select_homes(*more: Any) -> Select[Any]:  # noqa: ANN401 - columns of any kind
    return select(MEMBERS.c.group_id, MEMBERS.c.bridges, GROUPS.c.role, *more).join(
        GROUPS, GROUPS.c.id == MEMBERS.c.group_id
    )


def _read_home(row: Row[Any]) -> Home:
    return Home(group_id=row.group_id, role=row.role, bridges=row.bridges)
