"""Backups, exports, merges and restores that are killed, or meet a full disk, in processes of their own."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path

from sonoloop.crash_points import VARIABLE
from sonoloop.errors import StoreError
from sonoloop.store import CorrectionStore
from sonoloop.store.backup import back_up, restore
from sonoloop.store.export import export_store
from sonoloop.store.merge import merge_export


def back_up_here(folder: Path) -> None:
    with CorrectionStore(folder / "store.sqlite") as store:
        back_up(store, folder / "backup.sqlite", replace=True)


def export_here(folder: Path) -> None:
    with CorrectionStore(folder / "store.sqlite") as store:
        export_store(store, folder / "export")


def merge_here(folder: Path) -> None:
    with CorrectionStore(folder / "empty.sqlite") as store:
        merge_export(store, folder / "whole export")


def restore_here(folder: Path) -> None:
    restore(folder / "earlier.sqlite", folder / "store.sqlite")


WORKS = {"back up": back_up_here, "export": export_here, "merge": merge_here, "restore": restore_here}


def fork(work: Callable[[], None]) -> int:
    """Do something in a process of its own, and give how it ended."""
    child = os.fork()
    if child == 0:
        try:
            work()
        except BaseException:
            os._exit(1)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def kill(folder: Path, work: str, point: str) -> int:
    def run() -> None:
        os.environ[VARIABLE] = point
        WORKS[work](folder)

    return fork(run)


def on_full_disk(folder: Path, work: str, room: int) -> str:
    """Do something with so many bytes for a file, and give what was said."""
    import resource  # not on Windows, where the rest of this module is used too

    reader, writer = os.pipe()

    def run() -> None:
        _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (room, hard))
        try:
            WORKS[work](folder)
            said = "nothing"
        except StoreError as error:
            said = str(error)
        except BaseException as error:
            said = f"not explained: {error!r}"
        os.write(writer, said.encode())

    fork(run)
    os.close(writer)
    with os.fdopen(reader, encoding="utf-8") as told:
        return told.read()


if __name__ == "__main__":
    # one process that has loaded everything; the lines it reads say what to do
    for line in sys.stdin:
        how, folder, work, more = json.loads(line)
        answer = kill(Path(folder), work, more) if how == "kill" else on_full_disk(Path(folder), work, more)
        print(json.dumps(answer), flush=True)  # noqa: T201 - what the test reads
