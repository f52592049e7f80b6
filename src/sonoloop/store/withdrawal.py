"""Withdrawing a person: pixels and masks are erased, the fact and its reason stay, their users are named."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from sqlalchemy import URL, Connection, Row, Table, insert, not_, or_, select, text, update

from sonoloop.drafts import erase_drafts
from sonoloop.errors import DraftError, StoreError
from sonoloop.store.database import Database, check_who, check_why, in_batches, now
from sonoloop.store.file_index import Places, is_owned, shared_folder, work_folder
from sonoloop.store.groups import hash_patient, place_unseen, read_member
from sonoloop.store.model_registry import ModelRow, known_model, models_from, snapshots_with
from sonoloop.store.near_duplicates import hold_sketches, note_sketches
from sonoloop.store.revisions import is_withdrawn
from sonoloop.store.settings import secret_in, store_secret
from sonoloop.store.tables import FRAME_MARKS, FRAMES, MEMBERS, NOTES, PREDICTIONS, REVISIONS, TOMBSTONES

_PREFIX = re.compile(r"[0-9a-f]{8,64}")
# what a withdrawal erases, and what is in its place then
ERASED: tuple[tuple[Table, dict[str, Any]], ...] = (
    (REVISIONS, {"mask": b"", "lesions": None, "effort": None}),
    (PREDICTIONS, {"lesion": b"", "mask": b""}),
    (MEMBERS, {"thumbnail": b"", "bits": b""}),
    (FRAME_MARKS, {"reason": ""}),
    (NOTES, {"text": ""}),
)
# datasets whose patients are known as DATASET/NUMBER
IMPORTED = ("busbra", "busi")


@dataclass(frozen=True, slots=True, kw_only=True)
class Withdrawn:
    """What a withdrawal came to: ids of the frames erased now and `before`, and who had used any of them."""

    frames: tuple[str, ...]
    before: tuple[str, ...]
    snapshots: tuple[str, ...]
    # those that learned from the snapshots, and those tuned from such a model
    models: tuple[ModelRow, ...]
    # ids and pixel hashes of all of these frames: a model's own list of who trained it has them
    keys: frozenset[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Tombstone:
    """The fact that a frame was withdrawn, when (UTC), and the pseudonym of who did it."""

    frame_id: str
    why: str
    who: str
    created: datetime


def withdraw(database: Database, frame_or_patient: str, *, why: str, who: str) -> Withdrawn:
    """Erase what the store holds of a frame, or of all frames of a patient, for ever.

    Masks, predictions' maps, classes of lesions, effort, notes, reasons of marks and what knows the frames
    again become empty in one transaction; rows, hashes and decisions stay. The frames no longer count
    anywhere, and nothing more is stored of them. The pictures of past comparisons of models, and drafts of
    the frames, are removed from this machine. The images themselves, models, exports and backups are
    elsewhere and are not touched. What was withdrawn before stays so, under its first reason, and who had
    used it is told again.
    """
    check_why(why)
    who = check_who(who)
    with database.writing() as connection:
        if connection.dialect.name == "sqlite":
            # else the old bytes stay in the file's free pages
            connection.execute(text("PRAGMA secure_delete=ON"))
        hold_sketches(connection)
        found = _find(connection, frame_or_patient.strip(), secret_in(connection))
        rows = _read_found(connection, found)
        frames = sorted(row.id for row in rows if not row.withdrawn)
        for some in in_batches(frames):
            _erase(connection, some, why=why, who=who)
        if frames:
            note_sketches(connection, frames)
        snapshots = snapshots_with(connection, found)
        # where it only judged, nothing was learned of it
        learned = models_from(connection, snapshots_with(connection, found, role="train"))
        models = tuple(known_model(connection, version) for version in learned)
    keys = frozenset(key for row in rows for key in (row.id, row.pixels_hash))
    # once more where an earlier withdrawal was cut short here
    forget_withdrawn(database.url, found, keys)
    return Withdrawn(
        frames=tuple(frames),
        before=tuple(sorted(row.id for row in rows if row.withdrawn)),
        snapshots=tuple(snapshots),
        models=models,
        keys=keys,
    )


def forget_withdrawn(url: URL, frames: Collection[str], pixels: Collection[str]) -> None:
    """Remove from this machine what is kept beside a store of frames that were erased from it."""
    try:
        Places(url).forget(frames)
        _remove_pictures(url)
        erase_drafts(url.render_as_string(), frames, pixels)
    except (StoreError, DraftError) as error:
        raise StoreError(f"it is erased from the store; but {error}; then withdraw it again") from error


def frames_of(database: Database, frame_or_patient: str) -> list[str]:
    """Name the frames that `withdraw` would erase, and those of them that were erased before."""
    secret = store_secret(database)
    with database.reading() as connection:
        return _find(connection, frame_or_patient.strip(), secret)


def list_withdrawn(database: Database) -> list[Tombstone]:
    """List what was withdrawn, the oldest first."""
    with database.reading() as connection:
        rows = connection.execute(select(TOMBSTONES).order_by(TOMBSTONES.c.number)).all()
    return [_read_tombstone(row) for row in rows]


def _read_tombstone(row: Row[Any]) -> Tombstone:
    created = datetime.fromisoformat(row.created)
    return Tombstone(frame_id=row.frame_id, why=row.why, who=row.who, created=created)


def _remove_pictures(url: URL) -> None:
    """Remove what comparisons of models drew on this machine: it may show the frame."""
    folder, shared = work_folder(url), shared_folder(url)
    for picture in _find_pictures(folder):
        try:
            picture.unlink(missing_ok=True)
        except OSError as error:
            raise StoreError(
                f"{picture} may show it and cannot be removed ({error.strerror}): remove it"
            ) from error
    if shared is not None and not is_owned(shared):
        for picture in _find_pictures(shared):
            raise StoreError(f"{picture} may show it, or another store's images: look at it and remove it")


def _find_pictures(folder: Path) -> list[Path]:
    return [*folder.glob("jobs/*/gate/*.png"), *folder.glob("gates/*/*.png")]


def _read_found(connection: Connection, found: Sequence[str]) -> list[Row[Any]]:
    columns = (FRAMES.c.id, FRAMES.c.pixels_hash, is_withdrawn(FRAMES.c.id).label("withdrawn"))
    query = select(*columns)
    return [row for ids in in_batches(found) for row in connection.execute(query.where(FRAMES.c.id.in_(ids)))]


def _find(connection: Connection, wanted: str, secret: bytes) -> list[str]:
    if not wanted:
        raise StoreError("say what to withdraw: the first digits of an image's id, or a patient's number")
    of_patient = _find_patient(connection, wanted, secret)
    by_prefix: set[str] = set()
    if _PREFIX.fullmatch(wanted.lower()):
        begins = FRAMES.c.id.startswith(wanted.lower(), autoescape=True)
        by_prefix = set(connection.scalars(select(FRAMES.c.id).where(begins)))
    if of_patient and by_prefix:
        raise StoreError(f"{wanted} is a patient's number and begins an image's id: give more of its digits")
    if len(by_prefix) > 1:
        raise StoreError(
            f"{len(by_prefix)} images have ids that begin with {wanted}: give more of the digits"
        )
    found = of_patient | by_prefix
    if not found:
        raise StoreError(
            f"the store has no image and no patient {wanted}: give the first 8 digits or more of an image's "
            "id, or the patient's number, of an imported one as in busbra/47"
        )
    return sorted(found | _find_same_pixels(connection, sorted(found)))


def _find_patient(connection: Connection, number: str, secret: bytes) -> set[str]:
    """Find a patient's frames; a number that was imported is known with its dataset and without."""
    found: dict[str, set[str]] = {}
    for name in (number, *(f"{dataset}/{number}" for dataset in IMPORTED)):
        of_patient = select(MEMBERS.c.frame_id).where(MEMBERS.c.patient == hash_patient(secret, name))
        if frames := set(connection.scalars(of_patient)):
            found[name] = frames
    if len(found) > 1:
        raise StoreError(f"{number} may be {' or '.join(found)}: say which")
    return next(iter(found.values()), set())


def _find_same_pixels(connection: Connection, frames: Sequence[str]) -> set[str]:
    same: set[str] = set()
    for ids in in_batches(frames):
        hashes = select(FRAMES.c.pixels_hash).where(FRAMES.c.id.in_(ids))
        same.update(connection.scalars(select(FRAMES.c.id).where(FRAMES.c.pixels_hash.in_(hashes))))
    return same


def _erase(connection: Connection, frames: Sequence[str], *, why: str, who: str) -> None:
    # whoever accepts on one of them waits, and is then refused
    connection.execute(select(FRAMES.c.id).where(FRAMES.c.id.in_(frames)).with_for_update()).all()
    for frame_id in frames:
        if read_member(connection, frame_id) is None:
            place_unseen(connection, frame_id)
    created = now()
    connection.execute(
        insert(TOMBSTONES),
        [{"frame_id": frame_id, "why": why, "who": who, "created": created} for frame_id in frames],
    )
    _empty(connection, frames)


def _empty(connection: Connection, frames: Sequence[str]) -> None:
    for table, values in ERASED:
        connection.execute(update(table).where(table.c.frame_id.in_(frames)).values(values))


def complete_withdrawals(connection: Connection) -> dict[str, str]:
    """Erase what is there of withdrawn frames, where tombstones came from another store.

    Gives the ids of those of which there was something, and the hashes of their pixels. Frames of the same
    pixels in other files are withdrawn with them. Inside a writing transaction.
    """
    if connection.dialect.name == "sqlite":
        connection.execute(text("PRAGMA secure_delete=ON"))
    hold_sketches(connection)
    gone, stone = FRAMES.alias("gone"), TOMBSTONES.alias("stone")
    late = (
        select(FRAMES.c.id, stone.c.why, stone.c.who, stone.c.created)
        .join(gone, gone.c.pixels_hash == FRAMES.c.pixels_hash)
        .join(stone, stone.c.frame_id == gone.c.id)
        .where(not_(is_withdrawn(FRAMES.c.id)))
        .order_by(stone.c.number)
    )
    stones: dict[str, dict[str, Any]] = {}
    for row in connection.execute(late):
        values = {"frame_id": row.id, "why": row.why, "who": row.who, "created": row.created}
        stones.setdefault(row.id, values)
    if stones:
        connection.execute(insert(TOMBSTONES), list(stones.values()))
    left: set[str] = set()
    for table, values in ERASED:
        full = [table.c[name].is_distinct_from(value) for name, value in values.items()]
        left.update(
            connection.scalars(select(table.c.frame_id).where(is_withdrawn(table.c.frame_id), or_(*full)))
        )
    for frame_id in sorted(set(connection.scalars(select(TOMBSTONES.c.frame_id)))):
        if read_member(connection, frame_id) is None:
            place_unseen(connection, frame_id)
    for some in in_batches(sorted(left)):
        _empty(connection, some)
    if left:
        note_sketches(connection, sorted(left))
    return {row.id: row.pixels_hash for row in _read_found(connection, sorted(left))}
