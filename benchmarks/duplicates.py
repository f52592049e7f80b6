"""Recall, precision and time of the search for near-duplicates.

python benchmarks/duplicates.py --data FOLDER [--json FILE]

FOLDER holds BUSI with `busi_groups.json` beside it, an expert's list (Pawlowska et al. 2023), and BUS-BRA.
BUS-BRA has no list: there twins are made (cropped, mirrored, brightened, with callipers drawn in) and looked
for, and what is found among its own images is named.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from sonoloop.imaging.fingerprints import NEAR, distance, fingerprint, sketch
from sonoloop.imaging.io import read_study
from sonoloop.jobs.events import drain
from sonoloop_training.checking.survey import find_sources
from sonoloop_training.datasets import Sample
from sonoloop_training.datasets.groups import (
    Pair,
    match_sketches,
    near_duplicate_groups,
    read_groups,
    sketch_sample,
)


def main() -> None:
    """Print the figures of both sets."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    results: dict[str, Any] = {}
    for source in find_sources(options.data):
        start = time.perf_counter()
        samples = list(source.samples)
        pairs = drain(match_sketches([sketch_sample(sample) for sample in samples]))
        seconds = time.perf_counter() - start
        results[source.dataset] = {"images": len(samples), "pairs": len(pairs), "seconds": round(seconds, 1)}
        if source.listed:
            listed = read_groups(source.listed).group
            results[source.dataset] |= against_list(samples, pairs, listed)
        else:
            results[source.dataset] |= {
                "other_patients": [
                    label(samples, p) for p in pairs if samples[p.one].patient != samples[p.other].patient
                ],
                "same_patient": sum(samples[p.one].patient == samples[p.other].patient for p in pairs),
                "made_twins": made_twins(samples[::4]),
            }
    text = json.dumps(results, indent=2)
    print(text)
    if options.json:
        options.json.write_text(text + "\n", encoding="utf-8")


def against_list(samples: list[Sample], pairs: list[Pair], groups: Mapping[str, str]) -> dict[str, Any]:
    """Compare pairs of images with those of a list, once as found and once after grouping."""
    names = [sample.name for sample in samples]
    listed = [groups.get(name.casefold(), name) for name in names]
    computed = near_duplicate_groups(samples)
    found = [computed[name] for name in names]
    truth = {(a, b) for a, b in combinations(range(len(names)), 2) if listed[a] == listed[b]}
    grouped = {(a, b) for a, b in combinations(range(len(names)), 2) if found[a] == found[b]}
    prints = [fingerprint(read_study(sample.image).frames[0].pixels) for sample in samples]
    near = {(a, b) for a, b in combinations(range(len(names)), 2) if distance(prints[a], prints[b]) <= NEAR}
    direct = {(pair.one, pair.other): pair for pair in pairs}
    return {
        "listed_pairs": len(truth),
        "pairs_found": agreement(set(direct), truth),
        "pairs_in_groups": agreement(grouped, truth),
        "near_fingerprints": agreement(near, truth),
        "not_in_list": [label(samples, direct[pair]) for pair in sorted(set(direct) - truth)],
        "not_found": [f"{names[a]} | {names[b]}" for a, b in sorted(truth - grouped)],
        "mirrored": [label(samples, pair) for pair in pairs if pair.mirrored],
    }


def agreement(found: set[tuple[int, int]], truth: set[tuple[int, int]]) -> dict[str, float]:
    """Return recall and precision of pairs."""
    both = len(found & truth)
    return {"recall": round(both / len(truth), 4), "precision": round(both / max(len(found), 1), 4)}


def label(samples: Sequence[Sample], pair: Pair) -> str:
    """Name both images and their correlation."""
    return f"{samples[pair.one].name} | {samples[pair.other].name}: {pair.correlation:.2f}"


def made_twins(samples: Sequence[Sample]) -> dict[str, float]:
    """Make a twin of each image, and return the share that is found, and that is found by its fingerprint."""
    rng = np.random.default_rng(0)
    found = near = mirrored = 0
    for sample in samples:
        pixels = read_study(sample.image).frames[0].pixels
        twin, flipped = alter(pixels, rng)
        pairs = drain(match_sketches([sketch(pixels), sketch(twin)]))
        found += len(pairs)
        mirrored += sum(pair.mirrored == flipped for pair in pairs)
        near += distance(fingerprint(pixels), fingerprint(twin)) <= NEAR
    return {
        "images": len(samples),
        "found": round(found / len(samples), 4),
        "mirroring_right": round(mirrored / max(found, 1), 4),
        "near_fingerprints": round(near / len(samples), 4),
    }


def alter(pixels: NDArray[np.uint8], rng: np.random.Generator) -> tuple[NDArray[np.uint8], bool]:
    """Crop up to a fifth at each side and 12 % above and below, change the gamma, draw callipers, mirror."""
    height, width = pixels.shape
    left, right = (rng.uniform(0, 0.2, 2) * width).astype(int)
    top, bottom = (rng.uniform(0, 0.12, 2) * height).astype(int)
    crop = pixels[top : height - bottom, left : width - right]
    levels = 255 * (crop / 255.0) ** rng.uniform(0.7, 1.4)
    image = Image.fromarray(levels.round().astype(np.uint8))
    draw = ImageDraw.Draw(image)
    for _ in range(4):
        x, y = rng.uniform(0.1, 0.9) * image.width, rng.uniform(0.1, 0.9) * image.height
        arm = 0.015 * image.width
        draw.line((x - arm, y, x + arm, y), fill=255)
        draw.line((x, y - arm, x, y + arm), fill=255)
    draw.text((0.1 * image.width, 0.9 * image.height), "RT BREAST 10 H", fill=255)
    flipped = bool(rng.random() < 0.5)
    altered = np.asarray(image)
    return (np.ascontiguousarray(altered[:, ::-1]) if flipped else altered), flipped


if __name__ == "__main__":
    main()
