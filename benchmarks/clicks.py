"""How many clicks it takes to repair a mask, on lesions of patients that trained nothing.

    python benchmarks/clicks.py --data FOLDER --model INTERACTIVE --automatic BUNDLE
        [--part test] [--split FILE] [--dataset NAME] [--most N] [--engine onnx] [--starts ...]
        [--skip grabcut "random walker" noise box ...] [--out FILE]

**Images.** Those of a part of a split file (the default model's unless `--split` gives another), or, with
`--part ""`, all of a dataset. None may have trained the interactive or the automatic model, by the lists
beside their weights; where a model has no list, the result says so. Of each image its largest lesion, the
8-connected part of the reference mask, at the image's own size. `--most` takes so many images, evenly.

**Starts.** What is there before the first prompt:

- "automatic": of the automatic model's mask (in its card's views, at its threshold) the lesion that covers
  most of the reference lesion; nothing where none does.
- "imported": the reference lesion, moved by a tenth of its extent down and across, and widened by a tenth of
  the square root of its area: roughly right, as another tool's mask may be.
- "nothing".

**Clicks.** After each answer the largest 8-connected wrong region is found, missed pixels and claimed ones
apart. An "exact" click lies at its middle, which is furthest from its edge (Euclidean distance; the first of
several in reading order); a "jittered" one beside that by a normal deviate of 10 pixels of the image down and
across, kept in the image, with the same sign even where it falls on the other side of the outline; a "random"
one at any pixel of the region. It is positive in a missed region, negative in a claimed one. There are 20 at
most. A "box" is the reference's bounding box, each side moved by up to a tenth of the lesion's height or
width (uniform); it counts as a click, and exact clicks follow it. Every corrector sees its own errors, by the
same rule and with the same seed for an image. A series ends once Dice reached 0.90 and five clicks were made;
what it came to then stands for the clicks that it did not need.

**Correctors.**

- "network": `sonoloop.models.corrector.Corrector`, with all prompts so far and its last answer.
- "grabcut": OpenCV's GrabCut (Rother et al. 2004), 5 iterations, on the image letterboxed to 256 pixels and
  blurred by one. The discs of prompts (radius 5) are sure; the start or last answer is probable; all outside
  a box, and the image's edge, is surely not lesion. From nothing, the box is probable, or a disc of a tenth
  of the image's side around the first positive click.
- "random walker": scikit-image's (Grady 2006), beta 130, on the same image, in units of its standard
  deviation. Seeds are the discs of prompts; the third of the start or last answer (from nothing, what GrabCut
  gets) that is furthest from its edge; and what is further from it than half its extent, outside a box, or at
  the image's edge.

An answer of the last two that is empty is not taken. Of all three what touches the start, a positive prompt
or the box is kept, and each obeys a click in a disc of two pixels of the 256.

**Figures.** Mean Dice at the image's own size after 0, 1, 2, 3 and 5 clicks; the mean number of clicks until
it is 0.85 and 0.90, with 20 where it never is, and how often that was; both with 95 % intervals, for which
patients are drawn with replacement. The share of clicks that lower Dice by more than 0.001, and the mean
change of a click. The median time of an answer, by the clock and of the process alone.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from importlib import import_module, metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from left_out import find_trained
from numpy.typing import NDArray
from scipy import ndimage
from skimage.segmentation import random_walker

from sonoloop.imaging.grey import to_unit
from sonoloop.models.corrector import Corrector
from sonoloop.models.engines import count_threads
from sonoloop.models.engines.auto import open_engine
from sonoloop.models.predictor import Predictor
from sonoloop.models.preprocess import Letterbox
from sonoloop.models.prompts import RADIUS, Prompts, draw_discs
from sonoloop.store.metrics import draw_groups, percentile_interval, resampled_mean
from sonoloop.values import Frame
from sonoloop_training.datasets import Sample, find_datasets
from sonoloop_training.evaluation.scores import dice
from sonoloop_training.fit.prompting import How, largest_error, loose_box, point_at

# pip install opencv-python-headless; without it there is no GrabCut
cv2: Any = import_module("cv2") if find_spec("cv2") else None

RESULTS = Path(__file__).parent / "results" / "clicks.json"
SPLIT = Path(__file__).parents[1] / "training" / "results" / "default-split.json"
MOST, AT, WANTED, JITTER = 20, (0, 1, 2, 3, 5), (0.85, 0.90), 10.0
SIDE, LOWERS = 256, 0.001
_TOUCHING = np.ones((3, 3), np.bool_)

Bools = NDArray[np.bool_]
# of the frame, what is there and the prompts so far makes what is there then
Repair = Callable[[Frame, Bools, Prompts], Bools]


@dataclass(frozen=True, slots=True, eq=False)
class Lesion:
    """A lesion to be outlined."""

    frame: Frame
    truth: Bools
    group: str
    name: str


@dataclass(frozen=True, slots=True)
class Series:
    """Dice after 0, 1, 2 ... clicks on one lesion, and what each answer took."""

    group: str
    dices: tuple[float, ...]
    wall: tuple[float, ...]
    own: tuple[float, ...]

    def at(self, clicks: int) -> float:
        """Dice after so many clicks."""
        return self.dices[min(clicks, len(self.dices) - 1)]

    def needed(self, wanted: float) -> int | None:
        """Count the clicks until Dice is as wanted; None where it never is."""
        return next((count for count, value in enumerate(self.dices) if value >= wanted), None)


def follow(lesion: Lesion, start: Bools, repair: Repair, how: How, *, box: bool, seed: int) -> Series:
    """Repair one lesion click by click."""
    rng = np.random.default_rng(seed)
    prompts, mask = Prompts(), start
    dices, wall, own = [dice(mask, lesion.truth)], [], []
    # a box counts as the first click
    while len(dices) <= MOST and not (len(dices) > max(AT) and max(dices) >= max(WANTED)):
        found = largest_error(mask, lesion.truth)
        if box and not prompts:
            prompts = prompts.enclose(*loose_box(lesion.truth, 0.1, rng))
        elif found is not None:
            prompts = prompts.click(*point_at(found[0], how, rng, jitter=JITTER), inside=found[1])
        if found is not None:
            began = time.perf_counter(), time.process_time()
            mask = repair(lesion.frame, mask, prompts)
            wall.append(time.perf_counter() - began[0])
            own.append(time.process_time() - began[1])
        dices.append(dice(mask, lesion.truth))
    return Series(lesion.group, tuple(dices), tuple(wall), tuple(own))


def by_network(corrector: Corrector) -> Repair:
    """Repair by a model that takes prompts."""

    def repair(frame: Frame, mask: Bools, prompts: Prompts) -> Bools:
        return np.asarray(corrector.correct(frame, mask.astype(np.uint8), prompts, lesion=1) == 1)

    return repair


@dataclass(slots=True)
class Classical:
    """GrabCut or the random walker on the letterboxed image."""

    solve: Callable[[NDArray[np.float32], Bools, Bools, Bools, Bools], Bools]
    # of the last frame
    _shown: dict[str, NDArray[np.float32]] = field(default_factory=dict)

    def __call__(self, frame: Frame, mask: Bools, prompts: Prompts) -> Bools:
        """Repair a mask."""
        box = Letterbox(*frame.shape, SIDE)
        if frame.id not in self._shown:
            self._shown = {frame.id: box.apply(to_unit(frame.pixels))}
        image = self._shown[frame.id]
        top, left, height, width = box.content
        scale = height / frame.shape[0], width / frame.shape[1]
        near = prompts.moved(scale, (top, left))
        there = box.apply(mask.astype(np.float32)) >= 0.5
        outside = np.ones(image.shape, np.bool_)
        outside[top + 1 : top + height - 1, left + 1 : left + width - 1] = False
        if near.box is not None:
            rows, columns = (
                slice(max(0, round(a)), round(b) + 1) for a, b in zip(near.box[:2], near.box[2:], strict=True)
            )
            inner = np.zeros_like(outside)
            inner[rows, columns] = True
            outside |= ~inner
            there = there if there.any() else inner
        sure = np.zeros((2, *image.shape), np.bool_)
        for stroke in near.strokes:
            draw_discs(sure[1 if stroke.inside else 0], stroke.path, RADIUS, True)
            draw_discs(sure[0 if stroke.inside else 1], stroke.path, RADIUS, False)
        if not there.any():
            if not sure[1].any():
                return mask
            for stroke in near.strokes:
                if stroke.inside:
                    draw_discs(there, stroke.path, SIDE / 10, True)
                    break
        there &= ~outside
        answer = self.solve(image, there, outside & ~sure[1], sure[1], sure[0])
        answer = answer if answer.any() else there
        regions, _ = ndimage.label(answer, _TOUCHING)
        touched = np.unique(regions[sure[1] | there])
        answer = np.isin(regions, touched[touched > 0])
        for stroke in near.strokes:
            draw_discs(answer, stroke.path, 2.0, stroke.inside)
        return np.asarray(box.invert(answer[None].astype(np.float32))[0] >= 0.5)


def grabcut(image: NDArray[np.float32], there: Bools, outside: Bools, yes: Bools, no: Bools) -> Bools:
    """Cut by colours of both sides and edges between."""
    shown = np.repeat((ndimage.gaussian_filter(image, 1) * 255).astype(np.uint8)[..., None], 3, 2)
    told = np.full(image.shape, cv2.GC_PR_BGD, np.uint8)
    told[there] = cv2.GC_PR_FGD
    told[outside | no] = cv2.GC_BGD
    told[yes] = cv2.GC_FGD
    if not ((told == cv2.GC_FGD) | (told == cv2.GC_PR_FGD)).any():
        return np.zeros_like(there)
    cv2.setRNGSeed(0)
    models = np.zeros((1, 65)), np.zeros((1, 65))
    cv2.grabCut(shown, told, None, *models, 5, cv2.GC_INIT_WITH_MASK)
    return np.asarray((told == cv2.GC_FGD) | (told == cv2.GC_PR_FGD))


def walk(image: NDArray[np.float32], there: Bools, outside: Bools, yes: Bools, no: Bools) -> Bools:
    """Ask of each pixel whether a random walker comes to lesion seeds first."""
    seeds = np.zeros(image.shape, np.int32)
    if there.any():
        depth = ndimage.distance_transform_edt(there)
        rows, columns = ndimage.find_objects(there.astype(np.int8))[0]
        reach = max(rows.stop - rows.start, columns.stop - columns.start) / 2
        seeds[ndimage.distance_transform_edt(~there) > reach] = 2
        seeds[depth > depth.max() * 2 / 3] = 1
    seeds[outside] = 2
    seeds[no], seeds[yes] = 2, 1
    if not (seeds == 1).any() or not (seeds == 2).any():
        return np.asarray(seeds == 1)
    return np.asarray(
        random_walker(image / max(float(image.std()), 1e-3), seeds, beta=130, mode="cg_j", prob_tol=0.1) == 1
    )


def imported(truth: Bools) -> Bools:
    """Move and widen a lesion."""
    rows, columns = ndimage.find_objects(truth.astype(np.int8))[0]
    shift = round((rows.stop - rows.start) / 10), round((columns.stop - columns.start) / 10)
    moved = ndimage.shift(truth.astype(np.uint8), shift, order=0) > 0
    wider = ndimage.distance_transform_edt(~moved) <= float(np.sqrt(truth.sum())) / 10
    return np.asarray(wider if moved.any() else truth)


def automatic(predictor: Predictor, lesion: Lesion) -> Bools:
    """Give the predicted lesion that covers most of the reference's."""
    mask = predictor.predict(lesion.frame).mask
    counts = np.bincount(mask[lesion.truth], minlength=2)
    counts[0] = 0
    return np.asarray(mask == counts.argmax()) if counts.any() else np.zeros(mask.shape, np.bool_)


def choose(options: argparse.Namespace) -> list[Sample]:
    """Find the images with a lesion."""
    samples = [s for s in find_datasets(options.data) if s.label != "normal"]
    if options.dataset:
        samples = [s for s in samples if s.dataset == options.dataset]
    if options.part:
        listed = set(json.loads(options.split.read_text(encoding="utf-8"))[options.part])
        samples = [s for s in samples if s.key in listed]
    if not samples:
        raise SystemExit("there are no such images")
    places = np.linspace(0, len(samples) - 1, min(len(samples), options.most)).round().astype(int)
    return [samples[place] for place in places]


def check_untrained(folder: Path, samples: Sequence[Sample]) -> str:
    """Stop where an image trained a model; say what is known."""
    trained = find_trained(folder, samples)
    if trained is None:
        return "not known who trained it"
    if trained:
        raise SystemExit(f"{len(trained)} of the images trained {folder.name}, as {trained[0].key}")
    return "none of the images trained it"


def read_lesion(sample: Sample) -> Lesion:
    """Read an image with its largest lesion."""
    frame, mask = sample.read()
    regions, _ = ndimage.label(mask, _TOUCHING)
    areas = np.bincount(regions.ravel())
    areas[0] = 0
    return Lesion(frame, regions == areas.argmax(), sample.patient_key or sample.group, sample.key)


def summarise(series: Sequence[Series]) -> dict[str, Any]:
    """Average over lesions."""
    counts = draw_groups(np.array([one.group for one in series]))

    def mean(values: Sequence[float]) -> dict[str, Any]:
        array = np.array(values, np.float64)
        return {
            "value": round(float(array.mean()), 4),
            "ci95": percentile_interval(resampled_mean(array, counts)),
        }

    steps = [
        after - before for one in series for before, after in zip(one.dices, one.dices[1:], strict=False)
    ]
    told: dict[str, Any] = {"lesions": len(series)}
    told["dice_after"] = {str(clicks): mean([one.at(clicks) for one in series]) for clicks in AT}
    for wanted in WANTED:
        needed = [one.needed(wanted) for one in series]
        told[f"clicks_to_{wanted:.2f}"] = mean([MOST if many is None else many for many in needed])
        told[f"failures_at_{wanted:.2f}"] = sum(many is None for many in needed)
    told["clicks_that_lower"] = round(float(np.mean([step < -LOWERS for step in steps])), 4)
    told["mean_change"] = round(float(np.mean(steps)), 4)
    for name in ("wall", "own"):
        taken = [seconds for one in series for seconds in getattr(one, name)]
        told[f"ms_{name}"] = round(1000 * float(np.median(taken)), 1) if taken else None
    return told


def arms(options: argparse.Namespace, corrector: Corrector) -> Iterator[tuple[str, Repair, str, How, bool]]:
    """List what is run: the corrector, the start, how it is clicked, and whether a box comes first."""
    repairs: dict[str, Repair] = {"network": by_network(corrector), "random walker": Classical(walk)}
    if cv2 is not None:
        repairs["grabcut"] = Classical(grabcut)
    for name, repair in repairs.items():
        if name in options.skip:
            continue
        for start in options.starts:
            yield name, repair, start, "centre", False
        if "box" not in options.skip:
            yield name, repair, "nothing", "centre", True
        if name == "network" and "noise" not in options.skip:
            yield name, repair, "automatic", "jittered", False
            yield name, repair, "automatic", "random", False


def main() -> None:
    """Click, and write down what came of it."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--model", type=Path, required=True, help="a bundle's folder that takes prompts")
    parser.add_argument("--automatic", type=Path, required=True, help="a bundle's folder")
    parser.add_argument("--split", type=Path, default=SPLIT)
    parser.add_argument("--part", default="test", help="empty for all images")
    parser.add_argument("--dataset", default="")
    parser.add_argument("--most", type=int, default=1000)
    parser.add_argument("--engine", default="onnx")
    parser.add_argument("--starts", nargs="+", default=["automatic", "imported", "nothing"])
    parser.add_argument("--skip", nargs="*", default=[], help="grabcut, 'random walker', noise, box")
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    samples = choose(options)
    told = describe(options, samples)
    corrector = Corrector(open_engine(options.model, "cpu", engine=options.engine))
    predictor = Predictor(open_engine(options.automatic, "cpu", engine=options.engine))
    told |= {"model": corrector.model, "automatic": predictor.model, "engine": corrector.engine.name}
    lesions = [read_lesion(sample) for sample in samples]
    starts: dict[str, list[Bools]] = {"nothing": [np.zeros(one.truth.shape, np.bool_) for one in lesions]}
    if "automatic" in options.starts or "noise" not in options.skip:
        starts["automatic"] = [automatic(predictor, one) for one in lesions]
    if "imported" in options.starts:
        starts["imported"] = [imported(one.truth) for one in lesions]
    figures = []
    for name, repair, start, how, box in arms(options, corrector):
        series = []
        for place, (lesion, first) in enumerate(zip(lesions, starts[start], strict=True)):
            sys.stderr.write(
                f"\r{name}, {start}, {how}{', box' if box else ''}: {place + 1} of {len(lesions)} "
            )
            series.append(follow(lesion, first, repair, how, box=box, seed=place))
        clicks = {"centre": "exact"}.get(how, how)
        figures.append(
            {"corrector": name, "start": start, "clicks": ("box, then " if box else "") + clicks}
            | summarise(series)
        )
        options.out.write_text(json.dumps(told | {"figures": figures}, indent=1) + "\n", encoding="utf-8")


def describe(options: argparse.Namespace, samples: Sequence[Sample]) -> dict[str, Any]:
    """Say what was measured, and with what."""
    packages = ["onnxruntime", "openvino", "scikit-image"]
    if cv2 is not None:
        packages.append("opencv-python-headless")
    known = {path.name: check_untrained(path, samples) for path in (options.model, options.automatic)}
    return {
        "what": "repairing masks by clicks; the protocol is in benchmarks/clicks.py",
        "trained": known,
        "part": f"{options.part} of {options.split.name}" if options.part else f"all of {options.dataset}",
        "images": len(samples),
        "datasets": sorted({sample.dataset for sample in samples}),
        "threads": count_threads(),
        "versions": {name: metadata.version(name) for name in packages},
    }


if __name__ == "__main__":
    main()
