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
from importlib import metadata
from itertools import pairwise
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch
from torch import nn

from sonoloop.imaging.grey import frame_from_array
from sonoloop.imaging.phantom import phantom
from sonoloop.models.card import shipped_folder
from sonoloop.models.engines import load_engine
from sonoloop.models.engines.parity import compare, simulated_cases
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
    made, work = {}, {}
    for name in ENGINES:
        engine = made[name] = load_engine(name, shipped_folder(), "cpu")
        predictor = Predictor(engine, views=1)
        size = engine.card.spec.size
        for batch in (1, 8):
            values = np.random.default_rng(0).uniform(-1, 1, (batch, 1, size, size)).astype(np.float32)
            prepared = engine.upload(engine.put(values))
            work[name, batch, "network"] = lambda e=engine, p=prepared: e.run(p)
            work[name, batch, "predict"] = lambda p=predictor, b=batch: p.predict_batch(frames[:b])
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


def measure(work: dict[tuple[str, int, str], Callable[[], object]], rounds: int) -> dict:
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

    def twice(before: int, after: int) -> nn.Module:
        layers = []
        for given in (before, after):
            layers += [nn.Conv2d(given, after, 3, padding=1, bias=False), nn.BatchNorm2d(after), nn.ReLU()]
        return nn.Sequential(*layers)

    class UNet(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            widths = [64, 128, 256, 512, 1024]
            self.down = nn.ModuleList(twice(a, b) for a, b in zip([1, *widths], widths, strict=False))
            turned = widths[::-1]
            pairs = list(pairwise(turned))
            self.up = nn.ModuleList(nn.ConvTranspose2d(a, b, 2, 2) for a, b in pairs)
            self.join = nn.ModuleList(twice(a, b) for a, b in pairs)
            self.last = nn.Conv2d(64, 1, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            kept = []
            for number, layer in enumerate(self.down):
                x = layer(x if not number else nn.functional.max_pool2d(x, 2))
                kept.append(x)
            for up, join, skip in zip(self.up, self.join, kept[-2::-1], strict=True):
                x = join(torch.cat([up(x), skip], 1))
            return self.last(x)

    network, image = UNet().eval(), torch.zeros(1, 1, 128, 128)

    def run() -> object:
        with torch.no_grad():
            return network(image)

    return run


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
