"""Ids of the frames of files, kept by path, size and time: a file that did not change is read once.

Names of files may hold names of people, so a line of the file has a hash of the path.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
from pathlib import Path
from threading import Lock

from sonoloop.errors import ImageMissingError
from sonoloop.imaging.io import read_frame_ids
from sonoloop.regular_files import read_regular

_log = logging.getLogger(__name__)

_MOST_BYTES = 1 << 30
# size and time of the file, and the ids of its frames
_Known = tuple[int, int, tuple[str, ...]]


class FileHashes:
    """What the files of a store's queue hold; may be asked from several threads.

    Parameters
    ----------
    path : pathlib.Path
        Where it is kept; where nothing can be written, it is known until the program ends.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._known: dict[str, _Known] | None = None
        self._lock = Lock()

    def frame_ids(self, file: Path) -> tuple[str, ...]:
        """Give the ids of a file's frames.

        Raises
        ------
        ImageError
            If it cannot be read.
        """
        try:
            found = os.stat(file)  # noqa: PTH116 - of many
        except (OSError, ValueError) as error:
            raise ImageMissingError(f"{file.name} is not there any more; check {file.parent.name}") from error
        key = hashlib.sha256(os.fsencode(file)).hexdigest()[:32]
        with self._lock:
            if self._known is None:
                self._known = self._read()
            known = self._known.get(key)
        if known is not None and known[:2] == (found.st_size, found.st_mtime_ns):
            return known[2]
        ids = read_frame_ids(file)
        with self._lock:
            self._known[key] = (found.st_size, found.st_mtime_ns, ids)
            self._append(key, self._known[key])
        return ids

    def _read(self) -> dict[str, _Known]:
        known: dict[str, _Known] = {}
        try:
            lines = read_regular(self._path, most=_MOST_BYTES).splitlines()
        except OSError:
            return known
        for line in lines:
            try:
                key, size, time, ids = json.loads(line)
                known[key] = (int(size), int(time), tuple(map(str, ids)))
            except (ValueError, TypeError):
                continue  # cut short by a crash
        return known

    def _append(self, key: str, known: _Known) -> None:
        try:
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            with self._path.open("ab") as file:
                # the line before it may have been cut short
                file.write(b"\n" + json.dumps([key, *known]).encode() + b"\n")
        except OSError as error:
            _log.info("%s is not kept: %s", self._path, error)
