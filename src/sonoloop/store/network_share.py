"""Whether a store's file lies on a network share, where SQLite cannot rely on the locks of files."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

import psutil
from sqlalchemy import URL

from sonoloop.store.database import is_file

# as mount and macOS name them; FUSE has a prefix of its own
_KINDS = frozenset(
    {
        "9p",
        "afpfs",
        "afs",
        "beegfs",
        "ceph",
        "cifs",
        "davfs",
        "glusterfs",
        "gpfs",
        "gvfsd-fuse",
        "lustre",
        "ncpfs",
        "nfs",
        "nfs4",
        "rclone",
        "smb3",
        "smbfs",
        "sshfs",
        "webdav",
    }
)
_REMOTE = 4  # DRIVE_REMOTE of GetDriveType
_told: set[str] = set()


def find_share(path: Path) -> str | None:
    """Name the kind of network share that a file lies, or will lie, on; None for a disk of this computer."""
    try:
        real = Path(os.path.realpath(path))
        return _find_remote_drive(real) if sys.platform == "win32" else _find_mounted_share(real)
    except (OSError, ValueError, AttributeError):
        return None  # a system that does not tell is no reason to stop


def warn_of_share(url: URL, notify: Callable[[str], None]) -> None:
    """Tell once what a store on a network share may suffer, and what to do; nothing for one that does not."""
    if not is_file(url):
        return
    path = str(url.database)
    if path in _told:
        return
    kind = find_share(Path(path))
    if kind is not None:
        _told.add(path)
        notify(
            # a notification shows the first clause alone
            f"the store is on a network share ({kind}); use PostgreSQL, or a disk of this computer: two "
            "computers that write to a file on a share at once can damage it; backups may lie on the share "
            f"(sonoloop store backup); the store is {path}"
        )


def _find_mounted_share(path: Path) -> str | None:
    """Look at what is mounted where the path is; of two at one place the later one covers the other."""
    kind, depth = "", -1
    for part in psutil.disk_partitions(all=True):
        mounted = Path(part.mountpoint)
        if path.is_relative_to(mounted) and len(mounted.parts) >= depth:
            kind, depth = part.fstype, len(mounted.parts)
    plain = kind.lower().removeprefix("fuse.")
    return plain if plain in _KINDS else None


def _find_remote_drive(path: Path) -> str | None:
    import ctypes  # noqa: PLC0415 - of that system alone

    if path.drive.startswith("\\\\"):
        return path.drive
    drives = ctypes.windll.kernel32  # type: ignore[attr-defined,unused-ignore]
    return path.drive if drives.GetDriveTypeW(path.anchor) == _REMOTE else None
