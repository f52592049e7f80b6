"""Backups of a store's file: made while it is in use, checked before they count, and put back whole."""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from sqlalchemy import delete, func, insert, select

from sonoloop.atomic import find_obstacle, name_aside, sweep_left, sync_folder, whole
from sonoloop.crash_points import crash_here
from sonoloop.errors import StoreError, StoreUnavailableError, describe_system_error
from sonoloop.regular_files import open_regular
from sonoloop.store.database import (
    LOCK_TIMEOUT_MS,
    Database,
    Tell,
    data_folder,
    describe,
    explained,
    is_file,
    read_location,
    tell_nobody,
)
from sonoloop.store.integrity import find_problems
from sonoloop.store.leases import check_nobody_works
from sonoloop.store.sqlite_file import check_content, file_uri, files_beside, is_there
from sonoloop.store.tables import FRAMES, LEASES, REVISIONS, TOMBSTONES
from sonoloop.store.withdrawal import complete_withdrawals, forget_withdrawn

# between two steps of a copy others may write: some 8 MB
_PAGES = 2048
# whoever writes meanwhile has the copy begin anew; after so many times it is made in one step
_RESTARTS = 4
# whoever reads or writes for a moment is waited for; whoever goes on is at work
_HOLD_MS = 2000
_MAGIC = b"SQLite format 3\0"
_MOST = 1 << 50
_BUSY = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)
_STONE = ("frame_id", "why", "who", "created")


@dataclass(frozen=True, slots=True, kw_only=True)
class Backup:
    """A backup that was made and checked."""

    path: Path
    bytes: int
    revisions: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Checked:
    """What a check of a file found, in words; nothing where all is well."""

    revisions: int
    problems: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Restored:
    """A store that was put back.

    `aside` is where the one before lies now, if there was one; `withdrawn` are the frames that had been
    withdrawn from it since, and were erased from the restored one too.
    """

    path: Path
    revisions: int
    aside: Path | None
    withdrawn: tuple[str, ...]


class DamagedError(StoreError):
    """A store or a backup that is not sound: nothing was made of it."""

    def __init__(self, message: str, problems: Sequence[str]) -> None:
        super().__init__(message)
        self.problems = tuple(problems)


def back_up(database: Database, target: Path, *, replace: bool = False, tell: Tell = tell_nobody) -> Backup:
    """Copy a store, while it may be in use, into one file, which has its name once it was found to be sound.

    Parameters
    ----------
    database : Database
        A store in a file.
    target : pathlib.Path
        The file, or a folder that is there: then the file is named after the store and the time.
    replace : bool
        Whether an earlier backup of that name may go.
    tell : callable
        Told how far it is; an exception of its stops it, and nothing is left.

    Raises
    ------
    DamagedError
        If the store is not sound.
    StoreError
        If it is on a server, or nothing can be written.
    """
    if not is_file(database.url):
        raise StoreError(
            f"{describe(database.url)} is on a server, which has a tool of its own that backs up all of it: "
            "pg_dump; what people decided is taken out by: sonoloop store export FOLDER"
        )
    source = Path(str(database.url.database))
    target = _name_backup(source, target.absolute())
    _check_target(source, target, replace=replace)
    with _written(target), whole(target) as temporary:
        copy_file(source, temporary, tell=tell)
        checked = _check_copy(temporary, named=source, tell=tell)
        if checked.problems:
            raise DamagedError(
                f"{source} is not sound, and no backup was made of it: keep a copy of the file, and restore "
                "an earlier backup",
                checked.problems,
            )
        crash_here("before-backup-named")
    return Backup(path=target, bytes=target.stat().st_size, revisions=checked.revisions)


def check_file(path: Path, *, tell: Tell = tell_nobody) -> Checked:
    """Check a store's file or a backup, also one of an earlier version, and leave it as it is."""
    path = path.absolute()
    check_there(path)
    folder = data_folder()
    with _written(folder):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        sweep_left(folder)
        with _temporary(folder / path.name) as copy:
            copy_file(path, copy, tell=tell)
            return _check_copy(copy, named=path, tell=tell)


def check_there(path: Path) -> None:
    """Refuse what is no file of a database, or breaks off."""
    if not is_there(path):
        raise StoreUnavailableError(f"there is no file {path}: check the path")
    check_content(path)


def restore(file: Path, to: str | os.PathLike[str], *, tell: Tell = tell_nobody) -> Restored:
    """Put a backup in the place of a store, which is kept beside it under a name with the date.

    Killed at any moment, the store is the one before or the restored one, whole.

    Parameters
    ----------
    file : pathlib.Path
        A backup, or another store's file; also one of an earlier version. It stays as it is.
    to : str or path
        The store's file; it need not be there.
    tell : callable
        Told how far it is; an exception of its stops it, and nothing changes.

    Raises
    ------
    DamagedError
        If the backup is not sound.
    LeaseError
        If somebody is at work on the store.
    StoreError
        If it is of a newer version, the store is open elsewhere, or nothing can be written.
    """
    url = read_location(to)
    if not is_file(url):
        raise StoreError(
            f"{describe(url)} is on a server, whose own tool puts back what it backed up: pg_restore; what "
            "was exported is added by: sonoloop store merge FOLDER"
        )
    file = file.absolute()
    check_there(file)
    # a link stays one
    store = Path(str(url.database)).resolve()
    _check_place(file, store)
    with _written(store), ExitStack() as stack:
        sweep_left(store.parent)
        copy = stack.enter_context(_temporary(store))
        copy_file(file, copy, tell=tell)
        crash_here("restore-half-written")
        checked = _check_copy(copy, named=file, tell=tell)
        if checked.problems:
            raise DamagedError(
                f"{file} is not sound and was not restored: look for another backup", checked.problems
            )
        there = is_there(store)
        held = stack.enter_context(_hold_exclusively(store)) if there else None
        with called(copy, store):
            withdrawn = _bring_up_to_date(copy, [] if held is None else _read_stones(held))
        _sync_file(copy)
        crash_here("before-store-set-aside")
        aside = _set_aside(store) if there else None
        crash_here("after-store-set-aside")
        if os.name == "nt" and held is not None:
            held.close()  # a file that is open cannot be replaced there
        try:
            copy.replace(store)
        except BaseException:
            if aside is not None:
                _take_back(store, aside)
            raise
        sync_folder(store.parent)
        crash_here("after-restore")
    if withdrawn:
        forget_withdrawn(url.set(database=str(store)), withdrawn, withdrawn.values())
    return Restored(path=store, revisions=checked.revisions, aside=aside, withdrawn=tuple(withdrawn))


def copy_file(source: Path, target: Path, *, tell: Tell = tell_nobody) -> None:
    """Copy a SQLite file as it is at one moment; others may read and write it meanwhile.

    A copy is for nobody else to read. One that a kill leaves half written is swept by `sweep_left`.
    """
    os.close(os.open(target, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
    usable = os.access(source, os.W_OK) and os.access(source.parent, os.W_OK)
    with ExitStack() as stack:
        with explained(str(source)):
            # what a killed program left unfinished is undone where that may be written
            read = sqlite3.connect(file_uri(source, "rw" if usable else "ro"), uri=True)
            stack.enter_context(closing(read))
            read.execute(f"PRAGMA busy_timeout={LOCK_TIMEOUT_MS}")
            read.execute("PRAGMA schema_version").fetchall()
        written = stack.enter_context(closing(sqlite3.connect(target)))
        # whether it is whole is known before it has its name, and it is synced then
        written.execute("PRAGMA synchronous=OFF")
        with _either(source, target):
            if not _copy_in_steps(read, written, tell, pages=_PAGES):
                _copy_in_steps(read, written, tell, pages=-1)


def _copy_in_steps(read: sqlite3.Connection, written: sqlite3.Connection, tell: Tell, *, pages: int) -> bool:
    """Copy all pages; False where others wrote so often that it never ended."""
    heard, least, restarts = time.monotonic(), float("inf"), 0

    class RestartedError(Exception):
        pass

    def follow(status: int, remaining: int, total: int) -> None:
        nonlocal heard, least, restarts
        if status in _BUSY:
            if time.monotonic() - heard > LOCK_TIMEOUT_MS / 1000:
                raise TimeoutError
            return
        crash_here("backup-half-written")
        heard = time.monotonic()
        restarts += remaining > least
        least = remaining
        if pages > 0 and restarts > _RESTARTS:
            raise RestartedError
        tell("Copying", total - remaining, total)

    try:
        read.backup(written, pages=pages, progress=follow, sleep=0.05)
    except RestartedError:
        return False
    return True


@contextmanager
def _either(source: Path, target: Path) -> Iterator[None]:
    """Say which of two files an error is about."""
    try:
        yield
    except TimeoutError as error:
        raise StoreError(
            f"the corrections in {source} could not be copied: another program has been writing to it for "
            "too long; try again, or close the other program"
        ) from error
    except sqlite3.Error as error:
        name = str(getattr(error, "sqlite_errorname", ""))
        of_target = name.startswith(("SQLITE_FULL", "SQLITE_READONLY", "SQLITE_CANTOPEN")) or (
            name.startswith("SQLITE_IOERR") and "READ" not in name
        )
        with explained(str(target.parent if of_target else source)):
            raise


def _check_copy(copy: Path, *, named: Path, tell: Tell) -> Checked:
    """Check a copy, which is brought up to date first; what is said names the file it was copied from."""
    with called(copy, named), Database(copy) as opened:
        problems = find_problems(opened, tell=tell)
        with opened.reading() as connection:
            revisions = connection.scalar(select(func.count()).select_from(REVISIONS)) or 0
    told = tuple(problem.replace(str(copy), str(named)) for problem in problems)
    return Checked(revisions=revisions, problems=told)


@contextmanager
def called(copy: Path, path: Path) -> Iterator[None]:
    """Have errors about a copy, whose name nobody knows, name the file that it is of."""
    try:
        yield
    except StoreError as error:
        if str(copy) not in str(error):
            raise
        raise StoreUnavailableError(str(error).replace(str(copy), str(path))) from error


@contextmanager
def _temporary(path: Path) -> Iterator[Path]:
    """Give a hidden place beside a file, and remove what is still there at the end."""
    temporary = name_aside(path)
    try:
        yield temporary
    finally:
        for left in (temporary, *files_beside(temporary)):
            with suppress(OSError):
                left.unlink(missing_ok=True)


@contextmanager
def _written(place: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        error.filename = str(place)
        raise StoreUnavailableError(f"{describe_system_error(error)}; nothing was changed") from error


def _name_backup(source: Path, target: Path) -> Path:
    if not target.is_dir():
        return target
    return _name_free(target / f"{source.stem}-{datetime.now().astimezone():%Y-%m-%dT%H%M%S}{source.suffix}")


def _name_free(path: Path) -> Path:
    number = 1
    free = path
    while os.path.lexists(free):
        number += 1
        free = path.with_name(f"{path.stem}-{number}{path.suffix}")
    return free


def _check_target(source: Path, target: Path, *, replace: bool) -> None:
    if obstacle := find_obstacle(target.parent):
        raise StoreUnavailableError(f"{obstacle}: choose another place for the backup")
    if not target.parent.is_dir():
        raise StoreUnavailableError(f"there is no folder {target.parent}: create it, or choose another place")
    if not os.path.lexists(target):
        return
    if target.exists() and target.samefile(source):
        raise StoreError(f"{target} is the store itself: name another file for the backup")
    if not replace:
        raise StoreError(
            f"there is a file {target} already: name another, or a folder, in which each backup is named by "
            "its time; to replace it add --replace"
        )
    try:
        with open_regular(target, most=_MOST) as file:
            is_database = file.read(len(_MAGIC)) == _MAGIC
    except OSError as error:
        raise StoreError(f"{target} cannot be replaced ({error.strerror}): name another file") from error
    if not is_database:
        raise StoreError(f"{target} is no backup and stays as it is: name another file")


def _check_place(file: Path, store: Path) -> None:
    if obstacle := find_obstacle(store.parent):
        raise StoreUnavailableError(f"{obstacle}: choose another place for the store")
    if not store.parent.is_dir():
        raise StoreUnavailableError(f"there is no folder {store.parent}: create it, or check --to")
    if not os.path.lexists(store):
        beside = [path for path in files_beside(store) if os.path.lexists(path)]
        if beside:
            raise StoreUnavailableError(
                f"{beside[0]} belongs to a store {store.name} that is not there: put that store back beside "
                "it, or move it away"
            )
        return
    if not store.is_file():
        raise StoreUnavailableError(f"{store} is no file: name a file for the store")
    if store.samefile(file):
        raise StoreError(f"{file} is the store itself: name the backup, and the store with --to")


@contextmanager
def _hold_exclusively(store: Path) -> Iterator[sqlite3.Connection | None]:
    """Keep everybody out of a store while it is replaced; None where it is too damaged for that."""
    connection = sqlite3.connect(file_uri(store), uri=True, isolation_level=None)
    try:
        connection.execute(f"PRAGMA busy_timeout={_HOLD_MS}")
        try:
            connection.execute("PRAGMA journal_mode=DELETE").fetchall()
            connection.execute("BEGIN EXCLUSIVE")
            columns = "name, holder, host, pid, what, taken, renewed"
            rows = connection.execute(f"SELECT {columns} FROM leases").fetchall()
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF in _BUSY:
                raise StoreError(
                    f"{store} is open in another program: close napari and other sonoloop commands that use "
                    "it, then restore again"
                ) from error
            rows = []
        except sqlite3.DatabaseError:
            yield None
            return
        with suppress(ValueError, TypeError):  # of a damaged row nobody is told
            check_nobody_works(
                SimpleNamespace(**dict(zip(columns.split(", "), row, strict=True))) for row in rows
            )
        yield connection
    finally:
        connection.close()


def _read_stones(held: sqlite3.Connection) -> list[dict[str, Any]]:
    try:
        found = held.execute(f"SELECT {', '.join(_STONE)} FROM tombstones ORDER BY number").fetchall()
    except sqlite3.DatabaseError:
        return []
    return [dict(zip(_STONE, row, strict=True)) for row in found]


def _bring_up_to_date(copy: Path, stones: Sequence[dict[str, Any]]) -> dict[str, str]:
    """Erase from a backup what was withdrawn from the store since, and who was at work when it was made."""
    with Database(copy) as opened, opened.writing() as connection:
        connection.execute(delete(LEASES))
        known = set(connection.scalars(select(FRAMES.c.id)))
        gone = set(connection.scalars(select(TOMBSTONES.c.frame_id)))
        new = [stone for stone in stones if stone["frame_id"] in known - gone]
        if not new:
            return {}
        connection.execute(insert(TOMBSTONES), new)
        return complete_withdrawals(connection)


def _set_aside(store: Path) -> Path:
    """Give a store a second name with the date; what a crash left beside it goes along."""
    date = f"{datetime.now().astimezone():%Y-%m-%dT%H%M%S}"
    aside = _name_free(store.with_name(f"{store.stem}.before-restore-{date}{store.suffix}"))
    try:
        aside.hardlink_to(store)
    except OSError:
        # where there are no links the store has no name for a moment
        store.rename(aside)
    for beside in files_beside(store):
        if beside.exists():
            beside.rename(aside.with_name(aside.name + beside.name.removeprefix(store.name)))
    sync_folder(store.parent)
    return aside


def _take_back(store: Path, aside: Path) -> None:
    """Undo `_set_aside`."""
    for beside in files_beside(store):
        with suppress(OSError):
            aside.with_name(aside.name + beside.name.removeprefix(store.name)).rename(beside)
    with suppress(OSError):
        if store.exists():
            aside.unlink()
        else:
            aside.rename(store)


def _sync_file(path: Path) -> None:
    with path.open("r+b") as file:
        os.fsync(file.fileno())
