"""Corrections to store, and writers that tests run in processes of their own."""

from __future__ import annotations

import hashlib
import json
import os
import random
import signal
import sys
import time
from pathlib import Path

import numpy as np

from sonoloop.errors import StoreError
from sonoloop.store import CorrectionStore
from sonoloop.store.revisions import hash_pixels
from sonoloop.values import Correction, Prediction


def sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def make_mask(seed: int = 0, shape: tuple[int, int] = (24, 32)) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 3, shape, dtype=np.uint8)


def make_prediction(frame: str = "frame", seed: int = 0, shape: tuple[int, int] = (24, 32)) -> Prediction:
    rng = np.random.default_rng(seed)
    classes = rng.dirichlet([1, 1, 1]).astype(np.float32)
    return Prediction(
        frame_id=sha256(frame),
        lesion=rng.random(shape, dtype=np.float32),
        mask=make_mask(seed, shape),
        classes=classes,
        expected_dice=float(rng.random()),
        threshold=0.37,
        model="unet-0123abcd",
    )


def make_correction(
    frame: str = "frame", seed: int = 0, *, shape: tuple[int, int] = (24, 32), **changes: object
) -> Correction:
    values = {
        "frame_id": sha256(frame),
        "pixels_hash": sha256(f"pixels of {frame}"),
        "mask": make_mask(seed, shape),
        "label": "benign",
        "annotator": "reader-1",
    }
    return Correction(**(values | changes))


def write_history(url: str, annotator: str, count: int) -> None:
    """Open a store and accept on two frames in turn; every revision replaces the one before."""
    with CorrectionStore(url) as store:
        parents: dict[str, str | None] = {"one": None, "two": None}
        for number in range(count):
            frame = ("one", "two")[number % 2]
            correction = make_correction(frame, number, annotator=annotator)
            parents[frame] = store.accept(correction, parent=parents[frame]).id


def write_until_killed(path: str, round_: int, pipe: int) -> None:
    """Tell each revision's id and hash only after its Accept returned."""
    with CorrectionStore(path) as store:
        parent = None
        for number in range(100_000):
            correction = make_correction(f"frame {round_}", 1000 * round_ + number, shape=(160, 160))
            parent = store.accept(correction, parent=parent).id
            os.write(pipe, f"{parent} {hash_pixels(correction.mask)}\n".encode())


def kill_writers(path: str, rounds: int, seed: int) -> None:
    """Fork writers and kill each at a random moment after its first Accept; print what they had been told."""
    rng = random.Random(seed)
    told: list[str] = []
    journals = 0
    for round_ in range(rounds):
        reader, writer = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(reader)
            try:
                write_until_killed(path, round_, writer)
            finally:
                os._exit(1)
        os.close(writer)
        received = os.read(reader, 4096)
        time.sleep(rng.uniform(0, 0.06))
        os.kill(child, signal.SIGKILL)
        while more := os.read(reader, 4096):
            received += more
        _, status = os.waitpid(child, 0)
        assert os.WTERMSIG(status) == signal.SIGKILL, "the writer ended by itself"
        os.close(reader)
        told += received.decode().split("\n")[:-1]
        journals += Path(f"{path}-journal").exists()
    json.dump({"told": told, "journals": journals}, sys.stdout)


def fill_disk(path: str) -> None:
    """Accept, run out of room, accept again with room; print what was said."""
    import resource  # not on Windows, where the rest of this module is used too

    with CorrectionStore(path) as store:
        first = store.accept(make_correction(), parent=None)
        size = Path(path).stat().st_size
        _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size + 8192, hard))
        big = make_correction("big", shape=(500, 500))
        try:
            store.accept(big, parent=None)
            said = "nothing"
        except StoreError as error:
            said = str(error)
        left = store.count()
        resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
        retried = store.accept(big, parent=None)
    json.dump({"said": said, "left": left, "first": first.id, "retried": retried.id}, sys.stdout)


def accept_one(path: str) -> None:
    """Accept once, and say so at once."""
    with CorrectionStore(path) as store:
        store.accept(make_correction(), parent=None)
        print("accepted", flush=True)  # noqa: T201 - what the test looks for


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["kill", path, rounds, seed]:
            kill_writers(path, int(rounds), int(seed))
        case ["fill", path]:
            fill_disk(path)
        case ["accept", path]:
            accept_one(path)
