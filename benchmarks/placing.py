"""How long a frame takes to get its group, and its correction to be counted, as a store grows.

python benchmarks/placing.py [--sizes 1000 10000 50000] [--new 40] [--out FILE]

Every frame is a new image of its own patient, blurred noise of the size of a usual frame. The store is filled
up to each size by rows alone, with random sketches and a correction each; then new frames are placed and
accepted, with one index and one counter as an import or a panel keeps them. The process's own time is given
beside the wall's, since what a commit costs depends on the disk and on who else uses it. Times are in ms.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from scipy import ndimage
from sqlalchemy import Table, insert

from sonoloop.imaging.fingerprints import BITS
from sonoloop.store.corrections import CorrectionStore
from sonoloop.store.database import now
from sonoloop.store.groups import place_frame
from sonoloop.store.near_duplicates import SketchIndex, hold_sketches
from sonoloop.store.revisions import write_revision
from sonoloop.store.snapshots import LearnableCounter
from sonoloop.store.tables import FRAMES, GROUPS, HEADS, MEMBERS, REVISIONS
from sonoloop.values import Correction, Frame

_BATCH = 500
_MASK = np.zeros((480, 576), np.uint8)


class Clock:
    """Collects how long a step takes, by the wall and by the process's own time."""

    def __init__(self) -> None:
        self.wall: list[float] = []
        self.own: list[float] = []

    @contextmanager
    def running(self) -> Iterator[None]:
        """Time what is done meanwhile."""
        wall, own = time.perf_counter(), time.process_time()
        yield
        self.wall.append(1000 * (time.perf_counter() - wall))
        self.own.append(1000 * (time.process_time() - own))

    def report(self) -> dict[str, float]:
        """Give the medians and the 95th percentile."""
        return {
            "median_ms": round(float(np.median(self.wall)), 1),
            "p95_ms": round(float(np.percentile(self.wall, 95)), 1),
            "median_own_ms": round(float(np.median(self.own)), 1),
        }


def main() -> None:
    """Fill the store size by size, time new frames at each, write the result."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--sizes", type=int, nargs="+", default=[1000, 10_000, 50_000])
    parser.add_argument("--new", type=int, default=40)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "placing.json")
    options = parser.parse_args()
    report = {}
    with tempfile.TemporaryDirectory() as scratch, CorrectionStore(Path(scratch) / "many.sqlite") as store:
        filled = 0
        for size in options.sizes:
            fill(store, filled, size - options.new)
            filled = size
            # the first of each reads everything
            index, counter = SketchIndex(), LearnableCounter(store)
            place(store, make_frame(-size), index)
            counter.count()
            placing, counting = Clock(), Clock()
            for number in range(size - options.new, size):
                frame = make_frame(number)
                with placing.running():
                    place(store, frame, index)
                store.accept(correct(frame.id), parent=None)
                with counting.running():
                    counter.count()
            report[str(size)] = {"placing": placing.report(), "counting": counting.report()}
    first, last = (report[str(size)]["placing"] for size in (options.sizes[0], options.sizes[-1]))
    result = {
        "what": "give a new frame its group in a store of so many, and count what there is to learn from",
        "frames": report,
        "ratio_of_placing": {key: round(last[key] / first[key], 2) for key in first},
    }
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(result, indent=1))


def place(store: CorrectionStore, frame: Frame, index: SketchIndex) -> None:
    """Place a frame of a patient of its own."""
    place_frame(store, frame, patient=f"patient of {frame.name}", index=index)


def fill(store: CorrectionStore, start: int, stop: int) -> None:
    """Add frames that resemble none, each with its group, its sketch and a correction."""
    rng = np.random.default_rng(start)
    like = write_revision(correct(digits("any")), parent=None, prediction_id=None)
    height, width = _MASK.shape
    for first in range(start, stop, _BATCH):
        ids = [digits(f"row {number}") for number in range(first, min(first + _BATCH, stop))]
        revisions = [like | {"id": one[:32], "frame_id": one} for one in ids]
        rows: dict[Table, list[dict[str, object]]] = {
            FRAMES: [{"id": one, "pixels_hash": one, "height": height, "width": width} for one in ids],
            GROUPS: [
                {
                    "id": digits(one),
                    "role": "test" if n % 5 == 0 and first < 1500 else "train",
                    "created": now(),
                }
                for n, one in enumerate(ids)
            ],
            MEMBERS: [
                {
                    "frame_id": one,
                    "group_id": digits(one),
                    "patient": digits(one),
                    "bridges": False,
                    "thumbnail": rng.bytes(96 * 96),
                    "bits": rng.bytes(36 * BITS // 8),
                }
                for one in ids
            ],
            REVISIONS: revisions,
            HEADS: [
                {"frame_id": row["frame_id"], "annotator": row["annotator"], "revision_id": row["id"]}
                for row in revisions
            ],
        }
        with store.writing() as connection:
            hold_sketches(connection)
            for table, values in rows.items():
                connection.execute(insert(table), values)


def correct(frame_id: str) -> Correction:
    """Say that a frame is normal."""
    return Correction(
        frame_id=frame_id, pixels_hash=frame_id, mask=_MASK, label="normal", annotator="reader-1"
    )


def make_frame(number: int) -> Frame:
    """Make an image that resembles no other."""
    noise = np.random.default_rng(abs(number)).normal(128, 60, (15, 18))
    pixels = ndimage.zoom(noise, 32, order=1).clip(0, 255).astype(np.uint8)
    frame_id = digits(f"frame {number}")
    return Frame(pixels=pixels, id=frame_id, pixels_hash=frame_id, name=f"{number}.png")


def digits(text: str) -> str:
    """Hash a text; 64 hex digits."""
    return hashlib.sha256(text.encode()).hexdigest()


if __name__ == "__main__":
    main()
