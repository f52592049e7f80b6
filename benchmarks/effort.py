"""How long an annotator works on an image, from scratch and from a proposal: a simulated corrector.

    python benchmarks/effort.py --data FOLDER --model BUNDLE [--out FILE] [--threads N]

Nobody was timed. A corrector with stated speeds makes the reference mask of each image of hospitals that had
no part in the model, in two ways: by brush on an empty image, and by brush on the model's proposal. What it
does:

- It looks at the image (`LOOK`), and in the end gives the class and accepts (`DECIDE`). The image is `SCREEN`
  pixels high.
- It is content with a mask whose Dice with the reference is `ENOUGH`, as a second reader's might be; 0.85 and
  0.95 are given too. A boundary may then be off by half of what is left to 1, in parts of the lesion's
  diameter, and never has to be nearer than `LEAST` pixels on the screen: the tolerance.
- From scratch it finds each lesion (`SEARCH`), goes there, traces the boundary and fills it (`FILL`).
- On a proposal it takes away every lesion that is none with one click (`FILL`), and draws every one that was
  missed as from scratch. Then it mends the wrong parts, the largest first, until it is content: it finds the
  part, takes brush or eraser (`TOOL`), sets its size where it has to be another by a third (`SIZE`), goes
  there, and paints along the part's middle line. Where it is quicker to clear all (`TOOL`) and begin anew, it
  does that.
- Going somewhere takes `REACH[0] + REACH[1] * log2(distance / width + 1)` seconds (Fitts's law; MacKenzie,
  Human-Computer Interaction 7, 1992), a path of a length takes `STEER * length / width` (the steering law;
  Accot and Zhai, CHI 1997), where the width is that of the brush, and at least twice the tolerance.

The coefficients are of the order that these papers report for a mouse, and were fitted to nobody: the ratio
is what to look at, and it is given with painting twice as fast and twice as slow too. Means have intervals
over groups. Figures go to benchmarks/results/effort.json.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from left_out import find_trained
from numpy.typing import NDArray
from scipy import ndimage
from skimage.measure import perimeter_crofton
from skimage.morphology import skeletonize

from sonoloop.models.library import load_bundle
from sonoloop.models.predictor import Predictor
from sonoloop.store.metrics import draw_groups, percentile_interval, resampled_ratio
from sonoloop_training.datasets import Sample, find_datasets
from sonoloop_training.evaluation.scores import Case, dice, read_case

RESULTS = Path(__file__).parent / "results" / "effort.json"
# pixels on the screen
SCREEN, LEAST = 700, 5.0
ENOUGH = (0.9, 0.85, 0.95)
# seconds
LOOK, DECIDE, SEARCH, FILL, TOOL, SIZE = 1.5, 1.0, 0.7, 0.5, 0.4, 0.6
REACH, STEER = (0.2, 0.15), 0.1
PACES = {"as stated": 1.0, "twice as fast": 0.5, "twice as slow": 2.0}
_BATCH = 8
_TOUCHING = np.ones((3, 3), np.bool_)

Mask = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Seconds:
    """What a step takes: looking, reaching and choosing, and painting apart, which a pace multiplies."""

    steady: float = 0.0
    painted: float = 0.0

    def __add__(self, other: Seconds) -> Seconds:
        return Seconds(self.steady + other.steady, self.painted + other.painted)

    def at(self, pace: float) -> float:
        """Give the whole at a pace of painting."""
        return self.steady + pace * self.painted


ALWAYS = Seconds(LOOK + DECIDE)


def tolerance(truth: Mask, enough: float) -> float:
    """Say by how much a boundary may be off on the screen."""
    diameter = 2 * float(np.sqrt(max((part.mask.sum() for part in _parts(truth)), default=0) / np.pi))
    return max(LEAST, (1 - enough) / 2 * diameter)


def from_scratch(truth: Mask, near: float) -> Seconds:
    """Say what it takes to draw a mask, as it is on the screen, on an empty image."""
    return sum((_draw(part, near) for part in _parts(truth)), ALWAYS)


def from_proposal(proposal: Mask, truth: Mask, near: float, enough: float) -> Seconds:
    """Say what it takes to make of a proposal what is near enough to the truth."""
    done, mask = ALWAYS, proposal.copy()
    for part in _parts(proposal):
        if not (part.mask & truth).any():
            done += Seconds(SEARCH + _reach(part, near) + FILL)
            mask &= ~part.mask
    for part in _parts(truth):
        if not (part.mask & proposal).any():
            done += _draw(part, near)
            mask |= part.mask
    size = 0.0
    wrong = [*_parts(mask & ~truth), *_parts(truth & ~mask)]
    for part in sorted(wrong, key=lambda one: -int(one.mask.sum())):
        if dice(mask, truth) >= enough:
            break
        step, size = _paint(part, size, near)
        done += step
        mask ^= part.mask
    return done


@dataclass(frozen=True, slots=True)
class Part:
    """A connected part of a mask, and its box in it."""

    mask: Mask
    box: tuple[slice, slice]


def _draw(lesion: Part, near: float) -> Seconds:
    """Trace a lesion's boundary and fill it."""
    around = float(perimeter_crofton(np.pad(lesion.mask[lesion.box], 1)))
    return Seconds(SEARCH + _reach(lesion, near) + FILL, STEER * around / (2 * near))


def _paint(part: Part, size: float, near: float) -> tuple[Seconds, float]:
    """Paint along a part's middle line; gives the size of the brush afterwards too."""
    shape = np.pad(part.mask[part.box], 1)
    width = 2 * float(ndimage.distance_transform_edt(shape).max())
    changed = not size or not 2 / 3 < width / size < 3 / 2
    painted = STEER * float(skeletonize(shape).sum()) / max(width, 2 * near)
    steady = SEARCH + TOOL + (SIZE if changed else 0.0) + _reach(part, near)
    return Seconds(steady, painted), width if changed else size


def _reach(part: Part, near: float) -> float:
    """Go there from the middle of the image."""
    middle = [(side.start + side.stop) / 2 for side in part.box]
    distance = float(np.hypot(*(at - whole / 2 for at, whole in zip(middle, part.mask.shape, strict=True))))
    return REACH[0] + REACH[1] * float(np.log2(distance / (2 * near) + 1))


def main() -> None:
    """Judge a model by the effort that it spares, and write it down."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--model", type=Path, required=True, help="a bundle's folder")
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    images = choose_images(options.model, options.data)
    bundle = load_bundle(options.model)
    rows = list(measure(Predictor(bundle, device="cpu"), images))
    told = {
        "model": bundle.card.model,
        "images": {name: sum(row["dataset"] == name for row in rows) for name in _datasets(rows)},
        "protocol": {name: globals()[name] for name in _STATED},
        "figures": {name: summarise([r for r in rows if r["dataset"] == name]) for name in _datasets(rows)},
    }
    options.out.write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(told, indent=1))


_STATED = ("SCREEN", "LEAST", "LOOK", "DECIDE", "SEARCH", "FILL", "TOOL", "SIZE", "REACH", "STEER")


def choose_images(model: Path, data: Path) -> list[Sample]:
    """Find the images of hospitals that had no part in the model."""
    samples = find_datasets(data)
    known = find_trained(model, samples)
    if known is None:
        raise SystemExit("the model does not say who trained it")
    trained = {sample.dataset for sample in known}
    if not (found := [s for s in samples if s.dataset not in trained]):
        raise SystemExit("every hospital in the data had a part in the model")
    return found


def measure(predictor: Predictor, images: list[Sample]) -> Iterator[dict[str, Any]]:
    """Give for each image the seconds of both ways at each pace."""
    for first in range(0, len(images), _BATCH):
        cases = [read_case(sample) for sample in images[first : first + _BATCH]]
        for case, made in zip(cases, predictor.predict_batch([c.frame for c in cases]), strict=True):
            yield _time(case, made.mask > 0)


def _time(case: Case, proposal: Mask) -> dict[str, Any]:
    wanted, shown = _to_screen(np.asarray(case.mask) > 0), _to_screen(proposal)
    seconds = {}
    for enough in ENOUGH:
        near = tolerance(wanted, enough)
        scratch, mended = from_scratch(wanted, near), from_proposal(shown, wanted, near, enough)
        anew = scratch + Seconds(TOOL if shown.any() else 0.0)
        for name, pace in PACES.items():
            seconds[f"Dice {enough}, {name}"] = scratch.at(pace), min(mended.at(pace), anew.at(pace))
    return {"dataset": case.dataset, "group": case.group, "seconds": seconds}


def summarise(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Average over images; the interval of the ratio is over groups."""
    counts = draw_groups(np.array([row["group"] for row in rows]))
    told: dict[str, Any] = {}
    for name in rows[0]["seconds"]:
        scratch, proposal = (np.array([row["seconds"][name][way] for row in rows]) for way in (0, 1))
        ratios = resampled_ratio(counts @ scratch, counts @ proposal)
        untouched = proposal <= ALWAYS.steady
        told[name] = {
            "from_scratch": round(float(scratch.mean()), 2),
            "from_proposal": round(float(proposal.mean()), 2),
            "times_less": round(float(scratch.sum() / proposal.sum()), 2),
            "ci95": percentile_interval(ratios),
            "nothing_to_mend": round(float(untouched.mean()), 3),
        }
    return told


def _datasets(rows: list[dict[str, Any]]) -> list[str]:
    return sorted({row["dataset"] for row in rows})


def _to_screen(mask: Mask) -> Mask:
    """Show a mask as high as the screen does."""
    rows, columns = (
        (np.arange(round(side * SCREEN / mask.shape[0])) + 0.5) * mask.shape[0] / SCREEN
        for side in mask.shape
    )
    return mask[
        np.ix_(
            *(at.astype(int).clip(max=side - 1) for at, side in zip((rows, columns), mask.shape, strict=True))
        )
    ]


def _parts(mask: Mask) -> Iterator[Part]:
    labels, _ = ndimage.label(mask, _TOUCHING)
    for number, box in enumerate(ndimage.find_objects(labels), start=1):
        yield Part(labels == number, (box[0], box[1]))


if __name__ == "__main__":
    main()
