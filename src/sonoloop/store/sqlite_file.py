"""The file of a SQLite store: what may be one, how it is made whole, and whether it is still the same one."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Literal
from urllib.parse import quote

from sonoloop.atomic import name_aside, sweep_left, sync_folder
from sonoloop.errors import StoreUnavailableError
from sonoloop.regular_files import name_size, open_regular

# a store has no cap of its own: no more than its header is read here
_MOST = 1 << 50
_HEADER = 100
_MAGIC = b"SQLite format 3\0"
# what SQLite keeps beside a file while it writes, or in another journal mode
_BESIDE = ("-journal", "-wal")


def file_uri(path: Path, mode: Literal["rw", "ro"] = "rw") -> str:
    """Name a file so that SQLite opens it where it is there, and never makes an empty one."""
    plain = path.as_posix()
    return f"file://{quote(os.fsencode(plain if plain.startswith('/') else f'/{plain}'))}?mode={mode}"


def is_there(path: Path) -> bool:
    """Tell whether there is something at a store's path; what cannot be looked at is named."""
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    except (OSError, ValueError) as error:
        told = error.strerror if isinstance(error, OSError) else str(error)
        raise StoreUnavailableError(f"{path} cannot be a store ({told}): check the path") from error
    return True


def prepare_file(path: Path, *, above: bool) -> bool:
    """Make sure that a path is a store's file, or can become one; tell whether it is there.

    Folders over the last one are created only where `above` says so: a missing drive or share must not
    become a new, empty store.
    """
    try:
        _create_folder(path.parent, above=above)
    except OSError as error:
        raise StoreUnavailableError(
            f"the folder for {path} cannot be created ({error.strerror}): "
            "connect the drive, create the folder, or choose another place for the store"
        ) from error
    there = is_there(path)
    if path.is_dir():
        raise StoreUnavailableError(f"{path} is a folder: name a file in it for the store")
    if not there and path.is_symlink():
        raise StoreUnavailableError(
            f"{path} is a link to {path.readlink()}, which is not there: connect the drive, or put the store "
            "back"
        )
    check_rights(path, there=there)
    if there:
        check_content(path)
    _check_beside(path, there=there)
    return there


def check_rights(path: Path, *, there: bool = True) -> None:
    """Refuse a store that may not be read and written, or whose folder may not."""
    effective = os.access in os.supports_effective_ids
    # SQLite keeps its journal where the file is that a link leads to
    for place in {path.parent, *((path.resolve().parent, path) if there else ())}:
        if not os.access(place, os.W_OK, effective_ids=effective):
            raise StoreUnavailableError(
                f"{place} is read-only: allow writing to it, or choose another place for the store"
            )
        if not os.access(place, os.R_OK, effective_ids=effective):
            raise StoreUnavailableError(f"{place} may not be read: allow reading it")


def check_content(path: Path) -> None:
    """Refuse what is no SQLite file, or breaks off."""
    try:
        with open_regular(path, most=_MOST) as file:
            head, size = file.read(_HEADER), os.fstat(file.fileno()).st_size
    except OSError as error:
        raise StoreUnavailableError(
            f"{path} cannot be a store ({error.strerror}): choose another file"
        ) from error
    if size == 0:
        raise _empty_file(path)
    if len(head) < _HEADER or not head.startswith(_MAGIC):
        raise StoreUnavailableError(
            f"{path} is not a SQLite database: choose another file, it was left as it is"
        )
    page = int.from_bytes(head[16:18], "big")
    whole = int.from_bytes(head[28:32], "big") * (65536 if page == 1 else page)
    # the count is true where the last change wrote it; a journal may still bring back what is missing
    counted = head[24:28] == head[92:96]
    if counted and size < whole and not any(beside.exists() for beside in files_beside(path)):
        raise StoreUnavailableError(
            f"{path} breaks off: {name_size(size)} of {name_size(whole)} are there; copy it again, or "
            "restore a backup; it was left as it is"
        )


def _check_beside(path: Path, *, there: bool) -> None:
    for beside in files_beside(path):
        try:
            mode = beside.stat().st_mode
        except OSError:
            continue
        if not stat.S_ISREG(mode):
            raise StoreUnavailableError(
                f"{beside} is no file, and SQLite keeps its own there: move it away, then try again"
            )
        # a process that makes the same store may have been quicker
        if not there and not is_there(path):
            # a new store would be written over with what is in there
            raise StoreUnavailableError(
                f"{beside} belongs to a store {path.name} that is not there: put that store back beside it, "
                "or move it away to begin a new one"
            )


def files_beside(path: Path) -> list[Path]:
    """Name what SQLite may keep beside a file; nothing of it need be there."""
    real = path.resolve()
    return [real.with_name(real.name + end) for end in _BESIDE]


class GoneError(StoreUnavailableError):
    """The file of a store is gone, or empty: nothing is to be made in its place."""


def _empty_file(path: Path) -> GoneError:
    return GoneError(
        f"{path} is empty (0 bytes), and an empty file is no store: a crash, a copy that failed or a store "
        "that was moved away leaves one; put the store or its backup back there, or delete the empty file "
        "to begin a new store"
    )


def make_file(path: Path, fill: Callable[[Path], None]) -> None:
    """Make a store's file, whole or not at all; where another process was quicker, theirs stays."""
    sweep_left(path.parent)
    temporary = name_aside(path)
    try:
        fill(temporary)
        try:
            _place(temporary, path)
            sync_folder(path.parent)
        except OSError as error:
            raise StoreUnavailableError(
                f"{path} cannot be created ({error.strerror}): choose another place for the store"
            ) from error
    finally:
        temporary.unlink(missing_ok=True)


def _place(temporary: Path, path: Path) -> None:
    """Give a file its name unless there is one of that name."""
    try:
        path.hardlink_to(temporary)
    except FileExistsError:
        return
    except OSError:
        # where there are no links: whoever opens it in between finds it empty, and refuses it
        with suppress(FileExistsError):
            path.open("xb").close()
            temporary.replace(path)


def identify(path: Path) -> tuple[int, int]:
    """Tell one file from another; a store's file that is gone, or empty, is refused."""
    try:
        found = path.stat()
    except OSError as error:
        raise GoneError(
            f"{path} is not there any more ({error.strerror}): it was moved, renamed or deleted while it was "
            "open, or its drive is away; put it back, or open the store where it is now"
        ) from error
    if found.st_size == 0:
        raise _empty_file(path)
    return found.st_dev, found.st_ino


def replaced_file(path: Path) -> StoreUnavailableError:
    """Say that another file has taken the place of an open store."""
    return StoreUnavailableError(
        f"{path} is another file than the one that was opened: the store was moved or replaced meanwhile; "
        "put it back, or open the store that is there now"
    )


def _create_folder(folder: Path, *, above: bool) -> None:
    if folder.is_dir():
        return
    if above:
        _create_folder(folder.parent, above=True)
    folder.mkdir(mode=0o700, exist_ok=True)  # corrections are nobody else's business
    sync_folder(folder.parent)  # a store that said "saved" must not lose its own folder in a power cut
