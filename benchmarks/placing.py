"""How long it takes to give a frame its group in a store of many, against a store of few.

python benchmarks/placing.py [--many 5000] [--few 100] [--new 60] [--out FILE]

Every frame is a new image of its own patient, blurred noise of the size of a usual frame. Both stores are
asked in turn, in one run on one machine. Times are what the annotator waits for, in ms of wall time; opening
the store is not in them.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import tempfile
import time
from pathlib import Path

import numpy as np
from scipy import ndimage

from sonoloop.store.corrections import CorrectionStore
from sonoloop.store.groups import place_frame
from sonoloop.values import Frame


def main() -> None:
    """Fill both stores, time the new frames, write the result."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--many", type=int, default=5000)
    parser.add_argument("--few", type=int, default=100)
    parser.add_argument("--new", type=int, default=60)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "placing.json")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        sizes = {"few": options.few, "many": options.many}
        stores = {name: CorrectionStore(Path(scratch) / f"{name}.sqlite") for name in sizes}
        for name, store in stores.items():
            for number in range(sizes[name]):
                place_frame(store, make_frame(number), patient=f"patient {number}")
        times: dict[str, list[float]] = {name: [] for name in sizes}
        for number in range(options.many, options.many + options.new):
            frame = make_frame(number)
            for name, store in stores.items():
                started = time.perf_counter()
                place_frame(store, frame, patient=f"patient {number}")
                times[name].append(1000 * (time.perf_counter() - started))
        for store in stores.values():
            store.close()
    result = {
        name: {
            "frames": sizes[name],
            "median_ms": round(float(np.median(taken)), 1),
            "p95_ms": round(float(np.percentile(taken, 95)), 1),
        }
        for name, taken in times.items()
    }
    ratio = round(float(np.median(times["many"]) / np.median(times["few"])), 2)
    report = {"what": "give a new frame its group", **result, "ratio_median": ratio}
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(report, indent=1))


def make_frame(number: int) -> Frame:
    """Make an image that resembles no other."""
    noise = np.random.default_rng(number).normal(128, 60, (15, 18))
    pixels = ndimage.zoom(noise, 32, order=1).clip(0, 255).astype(np.uint8)
    digits = hashlib.sha256(pixels.tobytes()).hexdigest()
    return Frame(pixels=pixels, id=digits, pixels_hash=digits, name=f"{number}.png")


if __name__ == "__main__":
    main()
