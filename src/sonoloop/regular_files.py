"""Opening what is a regular file and not too large; a pipe or a device would hang, or never end."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path
from typing import BinaryIO

_KINDS = (
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)
# without it, opening a pipe waits for somebody who writes; Windows has none
_NOT_WAITING = getattr(os, "O_NONBLOCK", 0)
_BINARY = getattr(os, "O_BINARY", 0)
_MOST_UNITS = ("bytes", "KiB", "MiB", "GiB", "TiB")


def open_regular(path: Path, *, most: int) -> BinaryIO:
    """Open a regular file of at most `most` bytes to read; a link is followed.

    Raises
    ------
    OSError
        If it cannot be opened, is no regular file or is larger; `strerror` says which, in words for a user.
    """
    # a device may act when it is opened, so it is looked at before; the second look holds
    _check(os.stat(path), path, most)  # noqa: PTH116 - as the second one
    descriptor = os.open(path, os.O_RDONLY | _NOT_WAITING | _BINARY)
    try:
        _check(os.fstat(descriptor), path, most)
        return os.fdopen(descriptor, "rb")
    except BaseException:
        os.close(descriptor)
        raise


def read_regular(path: Path, *, most: int) -> bytes:
    """Read a regular file of at most `most` bytes, also one that grows; errors as `open_regular`."""
    with open_regular(path, most=most) as file:
        data = file.read(most + 1)
    if len(data) > most:
        raise _too_large(path, most)
    return data


def _check(found: os.stat_result, path: Path, most: int) -> None:
    for is_kind, kind in _KINDS:
        if is_kind(found.st_mode):
            raise OSError(errno.EINVAL, f"it is {kind}, not a file", str(path))
    if found.st_size > most:
        raise _too_large(path, most, found.st_size)


def _too_large(path: Path, most: int, size: int | None = None) -> OSError:
    has = "it grew" if size is None else f"it has {name_size(size)}"
    return OSError(errno.EFBIG, f"{has}, and at most {name_size(most)} are read", str(path))


def name_size(count: int) -> str:
    """Say a number of bytes in words, as "1.5 GiB"."""
    size, unit = float(count), 0
    while size >= 1024 and unit < len(_MOST_UNITS) - 1:
        size, unit = size / 1024, unit + 1
    return f"{size:.1f} {_MOST_UNITS[unit]}".replace(".0 ", " ")
