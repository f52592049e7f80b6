"""How much of the bare network's speed `predict_batch` keeps, and how fast `sonoloop --help` answers.

    python benchmarks/predict.py [--model NAME] [--device auto] [--batch 8] [--views N] [--repeats 7] [--json]

Both run the same views of as many frames in the same precision on the same device, by turns in one process;
reading files is not counted. The bare network gets its views ready-made; `predict_batch` also letterboxes,
makes the views, undoes them, numbers the lesions and brings every map to the frame's own grid. Figures are
of the best of the repeats.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable

import torch

from sonoloop.imaging.grey import frame_from_array
from sonoloop.imaging.phantom import phantom
from sonoloop.models.library import load_bundle
from sonoloop.models.predictor import Predictor
from sonoloop.models.tta import list_views, make_views
from sonoloop.values import CLASSES, Frame

_HELP = """
import sys
sys.argv = ["sonoloop", "--help"]
from sonoloop.cli import main
try:
    main()
except SystemExit:
    pass
sys.stderr.write("torch" if "torch" in sys.modules else "")
"""


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--model", help="name or folder of a model; the shipped one if not given")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--views", type=int)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()

    predictor = Predictor(
        load_bundle(options.model), device=options.device, batch=options.batch, views=options.views
    )
    whole, bare = measure_predicting(predictor, repeats=options.repeats)
    seconds, loads_torch = measure_help(repeats=options.repeats)
    result = {
        "model": predictor.model,
        "device": predictor.device,
        "threads": torch.get_num_threads(),
        "batch": options.batch,
        "views": predictor.views,
        "predict_batch_images_per_second": round(options.batch / whole, 2),
        "network_images_per_second": round(options.batch / bare, 2),
        "ratio": round(bare / whole, 3),
        "help_seconds": round(seconds, 3),
        "help_loads_torch": loads_torch,
    }
    if options.json:
        print(json.dumps(result))
        return
    for name, value in result.items():
        print(f"{name.replace('_', ' '):32}{value}")


def measure_predicting(predictor: Predictor, *, repeats: int) -> tuple[float, float]:
    """Time a batch of phantoms through `predict_batch` and through the bare network, in seconds."""
    frames = sample_frames(predictor.batch)
    size = predictor.card.spec.size
    images = torch.rand(len(frames), 1, size, size) * 2 - 1
    views = make_views(images, list_views(predictor.views, predictor.card.mirror_scale)).to(predictor.device)

    def run_network() -> None:
        predictor.engine.run(views)

    def run_whole() -> None:
        predictor.predict_batch(frames)

    run_whole()
    run_network()
    whole, bare = [], []
    for _ in range(repeats):
        whole.append(time_once(run_whole, predictor.device))
        bare.append(time_once(run_network, predictor.device))
    return min(whole), min(bare)


def sample_frames(count: int) -> list[Frame]:
    """Simulate frames of a common size, the classes by turns."""
    labels = [CLASSES[i % len(CLASSES)] for i in range(count)]
    return [frame_from_array(phantom(label, seed=i).image, name=label) for i, label in enumerate(labels)]


def time_once(run: Callable[[], None], device: str) -> float:
    """Time one call in seconds, the GPU's work included."""
    start = time.perf_counter()
    run()
    if device.startswith("cuda"):
        torch.cuda.synchronize()
    return time.perf_counter() - start


def measure_help(*, repeats: int) -> tuple[float, bool]:
    """Time `sonoloop --help` in seconds, interpreter included, and see whether it loads torch."""
    times, loads_torch = [], False
    for _ in range(repeats):
        start = time.perf_counter()
        done = subprocess.run([sys.executable, "-c", _HELP], capture_output=True, text=True, check=True)
        times.append(time.perf_counter() - start)
        loads_torch = "torch" in done.stderr
    return min(times), loads_torch


if __name__ == "__main__":
    main()
