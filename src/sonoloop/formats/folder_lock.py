"""A folder for one writer at a time; the system's lock on a file in it, which ends with its process."""

from __future__ import annotations

import errno
import os
import sys
from contextlib import suppress
from pathlib import Path
from typing import Literal

from sonoloop.errors import SonoloopError

_HELD = (errno.EACCES, errno.EAGAIN, errno.EDEADLK)


class FolderLock:
    """A lock that is held, from the beginning until `release`.

    Parameters
    ----------
    folder : pathlib.Path
        A folder that is there.
    command : str
        What writes into it; another command has a lock of its own.

    Raises
    ------
    SonoloopError
        If somebody else holds it.
    OSError
        If the folder cannot be written to.
    """

    def __init__(self, folder: Path, command: Literal["predict", "train"] = "predict") -> None:
        self._path = folder / f".sonoloop-{command}.lock"
        self._command = command
        self._file: int | None = None
        # network disks without locks hold nobody back
        self.holds = True
        while self._file is None:
            file = os.open(self._path, os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0), 0o666)
            try:
                self._lock(file, folder)
                # whoever held it until now may have taken the file away
                if self._is_there(file):
                    self._file = file
            finally:
                if self._file is None:
                    os.close(file)

    def release(self) -> None:
        """Let the next one write."""
        if self._file is None:
            return
        file, self._file = self._file, None
        if sys.platform == "win32":  # a file that is open cannot be removed there
            os.close(file)
            self._remove()
        else:
            self._remove()
            os.close(file)

    def _lock(self, file: int, folder: Path) -> None:
        try:
            if sys.platform == "win32":
                import msvcrt  # noqa: PLC0415 - of that system alone

                msvcrt.locking(file, msvcrt.LK_NBLCK, 1)
            else:
                import fcntl  # noqa: PLC0415 - of the others alone

                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in _HELD:
                raise SonoloopError(
                    f"another `sonoloop {self._command}` is writing into {folder}; wait until it ends, or "
                    "choose another folder with --out"
                ) from error
            self.holds = False

    def _is_there(self, file: int) -> bool:
        try:
            return os.path.samestat(os.fstat(file), self._path.stat())
        except FileNotFoundError:
            return False

    def _remove(self) -> None:
        with suppress(OSError):  # somebody waits for it, or the disk is gone
            self._path.unlink(missing_ok=True)
