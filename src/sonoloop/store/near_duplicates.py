"""Near duplicates: which frames of a store look like this one, have its pixels, or are of its patient."""

from __future__ import annotations

import threading
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Connection, Row, Select, func, select

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
from sonoloop.store.database import add_if_new, in_batches
from sonoloop.store.settings import read_value, write_value
from sonoloop.store.tables import FRAMES, GROUPS, MEMBERS, SETTINGS, GroupRole

_COUNTER = "sketches"
# who is more changes behind reads all sketches again
_REMEMBERED = 1000
_WINDOWS, _WORDS, _HALF = 36, BITS // 64, BITS // 2
_SIDE = 96
# frames compared at a time: what is in between stays in the processor's cache
_BLOCK = 8192


@dataclass(frozen=True, slots=True, kw_only=True)
class Match:
    """A group that a frame has something in common with, and whether what was found crosses the split."""

    group_id: str
    role: GroupRole
    crosses_split: bool


def match_patient(connection: Connection, hashed: str) -> list[Match]:
    """Find where a patient's frames are, the oldest group first."""
    query = (
        select(GROUPS.c.id, GROUPS.c.role)
        .where(GROUPS.c.id.in_(select(MEMBERS.c.group_id).where(MEMBERS.c.patient == hashed)))
        .order_by(GROUPS.c.created, GROUPS.c.id)
    )
    return [Match(group_id=row.id, role=row.role, crosses_split=False) for row in connection.execute(query)]


def match_pixels(connection: Connection, frame_id: str, pixels_hash: str) -> list[Match]:
    """Find where the other frames of the same pixels are, whatever file they came from."""
    query = (
        _select_matches()
        .join(FRAMES, FRAMES.c.id == MEMBERS.c.frame_id)
        .where(FRAMES.c.pixels_hash == pixels_hash, FRAMES.c.id != frame_id)
        .order_by(GROUPS.c.created, GROUPS.c.id)
    )
    return [_read_match(row) for row in connection.execute(query)]


def match_copies(
    connection: Connection, index: SketchIndex, seen: Sketch, frame_id: str, *, known: Collection[GroupRole]
) -> list[Match]:
    """Find where the near copies of a frame are, as training groups the images of a dataset.

    Images are compared where hashes are near, the nearest first. One that is alike and not surely so counts
    only where the other members of its group are alike too; one whose group is for what is known already
    is not compared, since it would change nothing.
    """
    settled: set[str] = set(known)
    found: list[Match] = []
    for row in _compare(connection, index, seen, frame_id, settled=settled):
        found.append(_read_match(row))
        settled.add(row.role)
    return found


def find_copies(connection: Connection, index: SketchIndex, seen: Sketch, frame_id: str) -> set[str]:
    """Name all near copies of a frame, whatever they are for; see `match_copies`."""
    return {row.frame_id for row in _compare(connection, index, seen, frame_id, settled=set())}


def _compare(
    connection: Connection, index: SketchIndex, seen: Sketch, frame_id: str, *, settled: Collection[str]
) -> Iterator[Row[Any]]:
    """Give the near copies, the nearest first; `settled` may grow meanwhile, and what it holds is passed."""
    ids = [found for found in index.nearest(seen) if found != frame_id]
    query = _select_matches(MEMBERS.c.frame_id, MEMBERS.c.thumbnail, MEMBERS.c.bits)
    rows = {row.frame_id: row for row in connection.execute(query.where(MEMBERS.c.frame_id.in_(ids)))}
    for row in (rows[near] for near in ids if near in rows):
        if row.role in settled and not row.bridges:
            continue
        correlation = correlate(_read_sketch(row.thumbnail, row.bits), seen)[0]
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
    asked = [correlation, *(correlate(_read_sketch(*other), seen)[0] for other in others)]
    return bool(np.mean(asked) >= RELATED)


def _select_matches(*more: Any) -> Select[Any]:  # noqa: ANN401 - columns of any kind
    return select(MEMBERS.c.group_id, MEMBERS.c.bridges, GROUPS.c.role, *more).join(
        GROUPS, GROUPS.c.id == MEMBERS.c.group_id
    )


def _read_match(row: Row[Any]) -> Match:
    return Match(group_id=row.group_id, role=row.role, crosses_split=row.bridges)


def write_sketch(one: Sketch) -> tuple[bytes, bytes]:
    """Turn a sketch into the values of its columns."""
    return one.thumbnail.tobytes(), np.packbits(one.bits, axis=1).tobytes()


def _read_sketch(thumbnail: bytes, bits: bytes) -> Sketch:
    hashes = np.unpackbits(np.frombuffer(bits, np.uint8).reshape(-1, BITS // 8), axis=1).astype(bool)
    return Sketch(np.frombuffer(thumbnail, np.uint8).reshape(_SIDE, _SIDE), hashes)


def hold_sketches(connection: Connection) -> None:
    """Keep others from placing frames until this writing transaction ends.

    A row is locked and no table: whoever places, or withdraws, sees what the one before did, and nobody else
    waits. SQLite has one writer at a time anyway.
    """
    add_if_new(connection, SETTINGS, {"key": _COUNTER, "value": "0"})
    connection.execute(select(SETTINGS.c.key).where(SETTINGS.c.key == _COUNTER).with_for_update())


def note_sketches(connection: Connection, frame_ids: Sequence[str]) -> int:
    """Note that frames' sketches were added or erased, so that every `SketchIndex` reads these again.

    Call it in a transaction that holds the sketches. The changes are numbered; the last so many are kept.
    """
    before = int(read_value(connection, _COUNTER) or 0)
    for number, frame_id in enumerate(frame_ids, before + 1):
        write_value(connection, _name_change(number), [number, frame_id])
    write_value(connection, _COUNTER, before + len(frame_ids))
    return before + len(frame_ids)


def _name_change(number: int) -> str:
    return f"{_COUNTER} {number % _REMEMBERED}"


class SketchIndex:
    """The hashes of every frame of a store that was seen, kept in memory by whoever places many.

    Hold `lock` from before the transaction until `add` was called after it: only what was committed is kept.
    """

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self._changes: int | None = None
        self._ids: list[str] = []
        self._places: dict[str, int] = {}
        # uint64 (windows, words, room for frames): two words even, two odd
        self._hashes: NDArray[np.uint64] = np.zeros((_WINDOWS, _WORDS, 0), np.uint64)

    def refresh(self, connection: Connection) -> None:
        """Take up what was added or erased since the last time, and read nothing else."""
        changes = read_value(connection, _COUNTER)
        if changes == self._changes:
            return
        changed = self._read_changed(connection, changes)
        query = select(MEMBERS.c.frame_id, MEMBERS.c.bits).where(func.length(MEMBERS.c.bits) > 0)
        if changed is None:
            self._ids, self._places = [], {}
            for rows in connection.execute(query).partitions(_REMEMBERED):
                self._append([row.frame_id for row in rows], [row.bits for row in rows])
        else:
            for frame_id in changed & self._places.keys():
                self._drop(frame_id)
            for batch in in_batches(changed):
                rows = connection.execute(query.where(MEMBERS.c.frame_id.in_(batch))).all()
                self._append([row.frame_id for row in rows], [row.bits for row in rows])
        self._changes = changes

    def add(self, frame_id: str, bits: bytes, changes: int) -> None:
        """Take up a frame whose transaction was committed."""
        self._append([frame_id], [bits])
        self._changes = changes

    def nearest(self, one: Sketch) -> list[str]:
        """Name the frames whose images are worth comparing, the nearest first."""
        mine = _read_hashes([write_sketch(one)[1]])
        apart = np.concatenate(
            [
                _apart(self._hashes[..., start : min(start + _BLOCK, len(self._ids))], mine)
                for start in range(0, len(self._ids), _BLOCK)
            ]
            or [np.zeros(0, np.uint8)]
        )
        near = [(int(apart[place]), self._ids[place]) for place in np.flatnonzero(apart <= CANDIDATE)]
        return [frame_id for _, frame_id in sorted(near)[:CANDIDATES_AN_IMAGE]]

    def _read_changed(self, connection: Connection, changes: int | None) -> set[str] | None:
        """Name the frames that changed since the last time; None where that is not known any more."""
        if self._changes is None or changes is None or not 0 < changes - self._changes <= _REMEMBERED:
            return None
        noted = [read_value(connection, _name_change(n)) for n in range(self._changes + 1, changes + 1)]
        if [note and note[0] for note in noted] != list(range(self._changes + 1, changes + 1)):
            return None  # an earlier Sonoloop counts its changes and names no frames
        return {note[1] for note in noted}

    def _append(self, ids: Sequence[str], bits: Sequence[bytes]) -> None:
        count, total = len(self._ids), len(self._ids) + len(ids)
        if total > self._hashes.shape[2]:
            # room for twice as many: each frame is copied twice or so, however many come
            room = np.empty((_WINDOWS, _WORDS, max(2 * total, _BLOCK // 8)), np.uint64)
            room[..., :count] = self._hashes[..., :count]
            self._hashes = room
        self._hashes[..., count:total] = _read_hashes(bits)
        self._places.update(zip(ids, range(count, total), strict=True))
        self._ids.extend(ids)

    def _drop(self, frame_id: str) -> None:
        """Put the last frame in the place of one that goes."""
        place, last = self._places.pop(frame_id), self._ids.pop()
        if last != frame_id:
            self._hashes[..., place] = self._hashes[..., len(self._ids)]
            self._ids[place], self._places[last] = last, place


def _read_hashes(bits: Sequence[bytes]) -> NDArray[np.uint64]:
    """Return the hashes of N frames and their windows, uint64 (windows, words, N)."""
    hashes = np.frombuffer(b"".join(bits), np.uint64)
    return hashes.reshape(len(bits), _WINDOWS, _WORDS).transpose(1, 2, 0)


def _apart(others: NDArray[np.uint64], mine: NDArray[np.uint64]) -> NDArray[np.uint8]:
    """Return the least distance (N,) of my frame to their windows, or of my windows to their frames.

    See `sonoloop.imaging.fingerprints`. Each step runs over all frames and writes where the one before did.
    """
    least = np.full(others.shape[2], BITS - 1, np.uint8)
    different, counts = np.empty(others.shape[1:], np.uint64), np.empty(others.shape[1:], np.uint8)
    mirrored = np.empty_like(least)
    pairs = [(window, 0) for window in range(_WINDOWS)] + [(0, window) for window in range(1, _WINDOWS)]
    for theirs, ours in pairs:
        _count_bits(np.bitwise_xor(others[theirs], mine[ours], out=different), out=counts)
        even, odd = np.add(counts[::2], counts[1::2], out=counts[::2])
        np.minimum(odd, np.subtract(_HALF, odd, out=mirrored), out=odd)
        np.minimum(least, np.add(even, odd, out=even), out=least)
    return least


def _count_bits(words: NDArray[np.uint64], *, out: NDArray[np.uint8]) -> None:
    if hasattr(np, "bitwise_count"):  # NumPy 2
        np.bitwise_count(words, out=out)
    else:
        bits = np.unpackbits(words.view(np.uint8).reshape(*words.shape, 8), axis=-1)
        bits.sum(axis=-1, dtype=np.uint8, out=out)
