"""How quick the engines are with the shipped model: one image, eight, the bare network of each, and starting.

    python benchmarks/engines.py [--rounds 7] [--out benchmarks/results/engines.json]

Processor time of one thread, in milliseconds an image, the least of rounds that take the engines by turns:
the machine does other things too. The plain U-Net is as many write it: 31 million weights, at 128 px.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from importlib import metadata
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch

from sonoloop.imaging.grey import frame_from_array
from sonoloop.imaging.phantom import phantom
from sonoloop.models.card import ModelSpec, shipped_folder
from sonoloop.models.engines import Engine, load_engine
from sonoloop.models.engines.parity import compare, simulated_cases
from sonoloop.models.networks import build_network
from sonoloop.models.predictor import Predictor
from sonoloop.values import CLASSES

ENGINES = ("torch", "onnx", "openvino")
START = """
import pathlib, sys, time
start = time.perf_counter()
from sonoloop.imaging.grey import frame_from_array
from sonoloop.imaging.phantom import phantom
from sonoloop.models.card import shipped_folder
from sonoloop.models.engines import load_engine
from sonoloop.models.predictor import Predictor
frame = frame_from_array(phantom("benign", seed=0, shape=(471, 562)).image, name="a")
Predictor(load_engine(sys.argv[1], shipped_folder(), "cpu"), views=1).predict(frame)
seconds = time.perf_counter() - start
peak = pathlib.Path("/proc/self/status").read_text().partition("VmHWM:")[2].split()[0]
print(seconds, int(peak) / 1024)
"""


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "engines.json")
    options = parser.parse_args()
    images = [phantom(CLASSES[n % 3], seed=n, shape=(471, 562)).image for n in range(8)]
    frames = [frame_from_array(image, name=f"phantom {n}") for n, image in enumerate(images)]
    made: dict[str, Engine] = {}
    work: dict[tuple[str, int, str], Callable[[], object]] = {}
    for name in ENGINES:
        engine = made[name] = load_engine(name, shipped_folder(), "cpu")
        predictor = Predictor(engine, views=1)
        size = engine.card.spec.size
        for batch in (1, 8):
            values = np.random.default_rng(0).uniform(-1, 1, (batch, 1, size, size)).astype(np.float32)
            prepared = engine.upload(engine.put(values))
            work[name, batch, "network"] = partial(engine.run, prepared)
            work[name, batch, "predict"] = partial(predictor.predict_batch, frames[:batch])
    work["plain U-Net, 31 M, 128 px, torch float32", 1, "network"] = plain_unet()
    least = measure(work, options.rounds)
    told = {
        "processor": processor(),
        "threads": os.environ["OMP_NUM_THREADS"],
        "versions": {name: metadata.version(name) for name in ("torch", "onnxruntime", "openvino", "numpy")},
        "precision": {name: engine.precision for name, engine in made.items()},
        "ms an image": {
            f"{name}, batch {batch}, {what}": round(1000 * seconds / batch, 1)
            for (name, batch, what), seconds in least.items()
        },
        "network's share of predict_batch at 8": {
            name: round(least[name, 8, "network"] / least[name, 8, "predict"], 3) for name in ENGINES
        },
        "against onnx on phantoms": {
            name: str(compare(engine, made["onnx"], simulated_cases())) for name, engine in made.items()
        },
        "first mask": {name: start(name) for name in ENGINES},
    }
    text = json.dumps(told, indent=1)
    print(text)
    options.out.write_text(text + "\n")


def measure(
    work: dict[tuple[str, int, str], Callable[[], object]], rounds: int
) -> dict[tuple[str, int, str], float]:
    """Take each by turns; the first round warms up."""
    least = dict.fromkeys(work, float("inf"))
    for number in range(rounds + 1):
        for key, call in work.items():
            before = time.process_time()
            call()
            if number:
                least[key] = min(least[key], time.process_time() - before)
    return least


def plain_unet() -> Callable[[], object]:
    """Build a U-Net of 64 to 1024 channels with batch normalisation, run as most scripts do."""
    spec = ModelSpec(library="plain", encoder="", size=128, dropout=0.0)
    network, image = build_network(spec).eval(), torch.zeros(1, 1, spec.size, spec.size)
    return torch.no_grad()(partial(network, image))


def start(name: str) -> dict[str, float]:
    """Start a process anew: seconds until the first mask is there, and its peak memory."""
    runs = []
    for _ in range(2):
        done = subprocess.run([sys.executable, "-c", START, name], check=True, capture_output=True, text=True)
        runs.append([float(value) for value in done.stdout.split()])
    seconds, memory = min(runs)
    return {"seconds": round(seconds, 2), "peak MB": round(memory)}


def processor() -> str:
    """Name the processor."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next(line.partition(": ")[2] for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor()


if __name__ == "__main__":
    main()
