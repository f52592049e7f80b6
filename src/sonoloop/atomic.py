"""Files and folders that are written whole, or not at all."""

from __future__ import annotations

import hashlib
import os
import re
import secrets
import shutil
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import cache
from glob import escape
from pathlib import Path

# a longer name with what is added to it might be too long for a disk on which it is not
_LONGEST = 100
# as `name_aside` names what is not finished, with the machine and the process that makes it, and as an older
# Sonoloop did, without the machine; SQLite has a journal beside it
_ASIDE = re.compile(r"\..+?(?:\.@(\w{6}))?\.(\d{1,9})\.\w{8}\.(?:gone\.)?tmp(?:-journal)?")
# a process that old is another one with the same number
_LEFT_SECONDS = 86400
_SWEPT: set[Path] = set()


@contextmanager
def whole(path: Path, *, durable: bool = True) -> Iterator[Path]:
    """Give a hidden place beside `path` to make a file or a folder at, and move that to its own at the end.

    A file that is there already stays until the new one is on the disk, and where the block fails. Without
    `durable` half a file is never seen either, but a power cut may lose it.
    """
    if path.parent not in _SWEPT:
        _SWEPT.add(path.parent)
        sweep_left(path.parent)
    temporary = name_aside(path)
    try:
        yield temporary
        if durable:
            _sync(temporary)
        temporary.replace(path)
        if durable:
            sync_folder(path.parent)
    except BaseException:
        with suppress(OSError):  # the first error is the one to tell
            _remove(temporary)
        raise


def write_whole(path: Path, text: str) -> None:
    """Write a text file."""
    write_together({path: text})


def write_together(files: dict[Path, str]) -> None:
    """Write text files, and move them to their places in their order once all of them are on the disk."""
    with ExitStack() as stack:
        # the stack leaves the last one first
        for path, text in reversed(files.items()):
            stack.enter_context(whole(path)).write_text(text, encoding="utf-8", newline="")


def remove_whole(folder: Path) -> None:
    """Remove a folder; half of it is never seen under its name."""
    aside = name_aside(folder, "gone.tmp")
    folder.rename(aside)
    shutil.rmtree(aside)


def sweep(path: Path) -> None:
    """Remove what processes that were killed left half written beside `path`, or half removed."""
    for left in path.parent.glob(f".{escape(_shorten(path.name))}.*.tmp"):
        _remove(left)


def sweep_left(folder: Path) -> None:
    """Remove what processes that live no more left half written, or half removed, in a folder.

    Machines may share it, and know nothing of each other's processes.
    """
    with suppress(OSError):
        for path in list(folder.glob(".*.tmp*")):
            if named := _ASIDE.fullmatch(path.name):
                ended = named[1] in (None, _name_machine()) and not _lives(int(named[2]))
                # another process may sweep at the same time
                with suppress(OSError):
                    if ended or time.time() - path.lstat().st_mtime > _LEFT_SECONDS:
                        _remove(path)


def find_obstacle(folder: Path) -> str | None:
    """Say what will keep a folder from being made or written to, as far as can be told without writing."""
    there = next(path for path in (folder, *folder.absolute().parents) if os.path.lexists(path))
    if not there.is_dir():
        return f"{there} is no folder"
    return None if os.access(there, os.W_OK | os.X_OK) else f"{there} cannot be written to"


def sync_folder(folder: Path) -> None:
    """Have the disk keep a folder's list of files: a rename itself must survive power loss."""
    if os.name != "posix":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def name_aside(path: Path, ending: str = "tmp") -> Path:
    """Name a hidden place beside `path` that no other process or thread uses; `sweep_left` finds it."""
    maker = f"@{_name_machine()}.{os.getpid()}"
    return path.with_name(f".{_shorten(path.name)}.{maker}.{secrets.token_hex(4)}.{ending}")


@cache
def _name_machine() -> str:
    return hashlib.sha256(socket.gethostname().encode()).hexdigest()[:6]


def _shorten(name: str) -> str:
    encoded = name.encode(errors="surrogatepass")
    return name if len(encoded) <= _LONGEST else hashlib.sha256(encoded).hexdigest()[:16]


def _lives(process: int) -> bool:
    import psutil  # noqa: PLC0415 - needed where something was left

    return bool(psutil.pid_exists(process))


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _sync(path: Path) -> None:
    if path.is_dir():
        for one in path.iterdir():
            _sync(one)
        sync_folder(path)
        return
    with path.open("r+b") as file:  # Windows syncs only what may be written
        os.fsync(file.fileno())
