"""Models to register, and moves of the pointer that tests run in processes of their own."""

from __future__ import annotations

import os
import signal
import sys

from store_writers import sha256

from sonoloop.store import CorrectionStore
from sonoloop.store import promotions as pointer
from sonoloop.store.model_registry import ModelRow, register


def add(store: CorrectionStore, name: str, **changes: object) -> str:
    """Register a model of that name and return its version."""
    return row_of(store, name, **changes).version


def row_of(store: CorrectionStore, name: str, **changes: object) -> ModelRow:
    version = sha256(name)
    values = {
        "version": version,
        "model": f"{name}-{version[:8]}",
        "origin": "tuned",
        "who": "reader-1",
    }
    return register(store, **(values | changes))


def begin(store: CorrectionStore) -> str:
    """Have the shipped model in use and return its version."""
    version = sha256("default")
    model = f"default-{version[:8]}"
    return pointer.ensure_incumbent(store, version=version, model=model, who="reader-1").version


def use(store: CorrectionStore, version: str, **changes: object) -> pointer.Promotion:
    """Promote by hand, knowing which model is in use."""
    now = pointer.incumbent(store)
    expected = None if now is None else now.version
    values = {"kind": "use", "who": "reader-1", "why": "for the test", "expected": expected}
    return pointer.promote(store, version, **(values | changes))


def die_on_the_way(path: str, move: str, place: str) -> None:
    """Promote or roll back, and be killed inside the transaction: before or after the row was written."""
    inner = pointer.move_pointer

    def kill(*values: object, **more: object) -> None:
        if place == "after":
            inner(*values, **more)
        os.kill(os.getpid(), signal.SIGKILL)

    pointer.move_pointer = kill
    with CorrectionStore(path) as store:
        if move == "promote":
            use(store, sha256("tuned"))
        else:
            pointer.rollback(store, who="x", why="y")


if __name__ == "__main__":
    die_on_the_way(*sys.argv[1:])
