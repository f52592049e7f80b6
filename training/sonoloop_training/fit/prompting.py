"""Simulated annotators: prompts on what is wrong in a mask, for networks that learn to repair it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 - torch's own abbreviation
from numpy.typing import NDArray
from scipy import ndimage
from torchvision.transforms import v2
from torchvision.tv_tensors import Image, Mask, wrap

from sonoloop.models.preprocess import resize
from sonoloop.models.prompts import Point, Prompts, draw_prompts

if TYPE_CHECKING:
    from sonoloop_training.fit.batches import Batch

Bools = NDArray[np.bool_]
How = Literal["centre", "jittered", "random"]

_TOUCHING = np.ones((3, 3), np.bool_)
# of the passes through the network that a batch takes, the last of which is learned from, how likely 1, 2, 3
_PASSES = (0.4, 0.35, 0.25)
# wrong regions smaller than this share of the square are not pointed at
_SMALLEST = 1e-4


@dataclass(frozen=True, slots=True, kw_only=True)
class PromptConfig:
    """How the prompts are simulated that a network learns from; all but the size are probabilities."""

    # side of what is learned from, cut out of or made of the images of `FitConfig.size`; 0 is the model's
    size: int = 0
    # the mask at the start: one as if it were imported, or none at all; else the network's own answer
    imported: float = 0.35
    empty: float = 0.15
    # a box in place of the first click, a line in place of any, and a click beside the middle of an error
    box: float = 0.2
    line: float = 0.15
    jittered: float = 0.25
    random: float = 0.3
    # an image is shown enlarged around its lesion
    zoom: float = 0.6

    def __post_init__(self) -> None:
        if self.size < 0 or self.size % 32:
            raise ValueError(f"size must be a multiple of 32, or 0, got {self.size}")
        for field in dataclasses.fields(self)[1:]:
            value = getattr(self, field.name)
            if not 0 <= value <= 1:
                raise ValueError(f"{field.name} must be in [0, 1], got {value}")
        for one, other in (("imported", "empty"), ("jittered", "random")):
            if getattr(self, one) + getattr(self, other) > 1:
                raise ValueError(f"{one} and {other} are at most 1 together")


class ZoomIn(v2.Transform):  # type: ignore[misc]
    """Bring a square image and its mask to a size, with a probability only a part around a lesion.

    The part is a square, one and a half to four times as large as the lesion and shifted at random.
    """

    _transformed_types = (Image, Mask)

    def __init__(self, size: int, probability: float) -> None:
        super().__init__()
        self.size, self.probability = size, probability

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        """Draw the part: top, left and side."""
        mask = next(item for item in flat_inputs if isinstance(item, Mask))
        side = mask.shape[-1]
        chance, factor, down, across = torch.rand(4).tolist()
        whole = {"part": (0, 0, side)}
        if chance >= self.probability:
            return whole
        regions, count = ndimage.label(mask[0].numpy() > 0, _TOUCHING)
        if not count:
            length = round(side * (0.35 + 0.5 * factor))
            return {"part": (int(down * (side - length)), int(across * (side - length)), length)}
        boxes = ndimage.find_objects(regions)
        rows, columns = boxes[int(torch.randint(count, ()))]
        longest = max(rows.stop - rows.start, columns.stop - columns.start)
        length = min(side, round(max(longest * (1.5 + 2.5 * factor), side / 5)))
        top = _slide(rows, length, side, down)
        left = _slide(columns, length, side, across)
        return {"part": (top, left, length)}

    def transform(self, inpt: Image | Mask, params: dict[str, Any]) -> Image | Mask:
        """Cut, and resize."""
        top, left, length = params["part"]
        part = inpt.as_subclass(torch.Tensor)[None, :, top : top + length, left : left + length]
        if length != self.size:
            sized = resize(part.float(), self.size, self.size, antialias=True)
            part = (sized >= 0.5).to(part.dtype) if isinstance(inpt, Mask) else sized
        shown: Image | Mask = wrap(part[0], like=inpt)
        return shown


def _slide(span: slice, length: int, side: int, share: float) -> int:
    """Place a part of a length so that it holds a span, and lies in the image."""
    slack = length - (span.stop - span.start)
    first: int = span.start - round(slack * share)
    return max(0, min(first, side - length))


def blank(images: torch.Tensor, channels: int) -> torch.Tensor:
    """Add the channels of prompts, of which there are none, to images (B, 1, S, S)."""
    added = channels - images.shape[1]
    return F.pad(images, (0, 0, 0, 0, 0, added)) if added else images


Answer = Callable[[torch.Tensor], torch.Tensor]


def prompt(batch: Batch, answer: Answer, config: PromptConfig, channels: int) -> Batch:
    """Simulate, for each image of a batch, a mask to repair and prompts, and what is to come out.

    The network is asked once or twice, and each time the largest error of its answer is pointed at, as in
    RITM (Sofiiuk et al., ICIP 2022); the batch that is given is learned from. Images whose first pass this is
    have neither prompts nor a mask, and their whole mask is learned.

    Parameters
    ----------
    answer : callable
        Gives lesion logits (B, 1, S, S) of images (B, C, S, S), without learning.
    """
    rng = np.random.default_rng(int(torch.randint(2**62, ())))
    passes = int(rng.choice(len(_PASSES), p=_PASSES))
    truths = batch.masks[:, 0].cpu().numpy() > 0.5
    scenes = [Scene.draw(truth, config, rng) for truth in truths]
    shown = blank(batch.images, channels)
    for number in range(passes + 1):
        drawn = np.stack([scene.drawn() for scene in scenes])
        shown = torch.cat([batch.images, torch.from_numpy(drawn).to(batch.images)], 1)
        if number < passes:
            logits = answer(shown.contiguous(memory_format=torch.channels_last))
            for scene, seen in zip(scenes, (logits[:, 0] > 0).cpu().numpy(), strict=True):
                scene.see(seen, rng)
    masks = np.stack([scene.target for scene in scenes])[:, None]
    return dataclasses.replace(
        batch,
        images=shown.contiguous(memory_format=torch.channels_last),
        masks=torch.from_numpy(masks).to(batch.masks),
    )


@dataclass(slots=True, eq=False)
class Scene:
    """One image's mask under repair, (S, S)."""

    truth: Bools
    config: PromptConfig
    # what is to come out: the whole mask as long as nothing is pointed at, then one lesion, or none
    target: Bools
    mask: Bools | None = None
    prompts: Prompts = dataclasses.field(default_factory=Prompts)

    @classmethod
    def draw(cls, truth: Bools, config: PromptConfig, rng: np.random.Generator) -> Scene:
        """Begin with the network's own answer to come, an imported mask, or none."""
        scene = cls(truth, config, truth)
        kind = rng.random()
        if kind < config.imported + config.empty:
            scene.target = pick_lesion(truth, rng)
            if kind < config.imported:
                scene.mask = distort(scene.target, rng)
            scene.point(rng)
        return scene

    def drawn(self) -> NDArray[np.float32]:
        """Draw what the network is shown beside the image."""
        return draw_prompts(self.truth.shape[0], self.prompts, self.mask)

    def see(self, answer: Bools, rng: np.random.Generator) -> None:
        """Take the network's answer for the mask, and point at what is wrong with it."""
        if not self.prompts:
            # an answer for the whole image: one of its lesions is repaired, one that is missed added
            self.target, self.mask = choose_lesion(self.truth, answer, rng)
        else:
            self.mask = answer
        self.point(rng)

    def point(self, rng: np.random.Generator) -> None:
        """Add a prompt where the mask is wrong most."""
        config, size = self.config, self.truth.shape[0]
        if self.target.any() and self.prompts.box is None and rng.random() < config.box * (not self.prompts):
            self.prompts = self.prompts.enclose(*loose_box(self.target, 0.1, rng))
            return
        found = largest_error(self.mask, self.target)
        if found is None:
            return
        error, inside = found
        if rng.random() < config.line:
            self.prompts = self.prompts.scribble(line_within(error, rng), inside=inside)
            return
        kind = rng.random()
        how: How = "centre"
        if kind < config.jittered + config.random:
            how = "jittered" if kind < config.jittered else "random"
        self.prompts = self.prompts.click(*point_at(error, how, rng, jitter=0.015 * size), inside=inside)


def largest_error(mask: Bools | None, target: Bools) -> tuple[Bools, bool] | None:
    """Find the largest connected region that is missed (then True) or claimed wrongly; None where none is."""
    there = np.zeros_like(target) if mask is None else mask
    best: tuple[int, Bools, bool] | None = None
    for wrong, inside in ((target & ~there, True), (there & ~target, False)):
        regions, count = ndimage.label(wrong, _TOUCHING)
        if not count:
            continue
        areas = np.bincount(regions.ravel())[1:]
        place = int(areas.argmax())
        if best is None or areas[place] > best[0]:
            best = int(areas[place]), regions == place + 1, inside
    if best is None or best[0] < max(1, _SMALLEST * target.size):
        return None
    return best[1], best[2]


def point_at(error: Bools, how: How, rng: np.random.Generator, *, jitter: float = 0.0) -> Point:
    """Point at a region (H, W): at its middle, which is furthest from its edge, beside that, or anywhere."""
    if how == "random":
        pixels = np.argwhere(error)
        row, column = pixels[rng.integers(len(pixels))]
        return float(row), float(column)
    rows, columns = ndimage.find_objects(error.view(np.int8))[0]
    depth = ndimage.distance_transform_edt(np.pad(error[rows, columns], 1))[1:-1, 1:-1]
    row, column = np.unravel_index(int(depth.argmax()), depth.shape)
    middle = np.array([row + rows.start, column + columns.start], np.float64)
    if how == "jittered":
        middle = (middle + rng.normal(0, jitter, 2)).clip(0, np.array(error.shape) - 1)
    return float(middle[0]), float(middle[1])


def line_within(error: Bools, rng: np.random.Generator) -> list[Point]:
    """Draw a straight line between two points of a region, broken off where it would leave the region."""
    pixels = np.argwhere(error)
    ends = pixels[rng.integers(len(pixels), size=2)]
    steps = max(2, int(np.abs(ends[1] - ends[0]).max()) + 1)
    path = np.linspace(ends[0], ends[1], steps).round().astype(int)
    inside = error[tuple(path.T)]
    length = len(path) if inside.all() else int(inside.argmin())
    kept = path[:length:3]
    return [(float(row), float(column)) for row, column in kept]


def loose_box(target: Bools, amount: float, rng: np.random.Generator) -> tuple[float, float, float, float]:
    """Put a box around a lesion, each side moved by up to a share of the lesion's extent."""
    rows, columns = ndimage.find_objects(target.view(np.int8))[0]
    height, width = rows.stop - rows.start, columns.stop - columns.start
    shifts = rng.uniform(-amount, amount, 4) * (height, width, height, width)
    ends = np.array([rows.start, columns.start, rows.stop - 1, columns.stop - 1]) + shifts
    top, left, bottom, right = ends.tolist()
    return top, left, max(bottom, top + 1), max(right, left + 1)


def pick_lesion(truth: Bools, rng: np.random.Generator) -> Bools:
    """Pick one of the lesions of a mask; an empty one stays empty."""
    regions, count = ndimage.label(truth, _TOUCHING)
    if count < 2:
        return truth
    return np.asarray(regions == 1 + rng.integers(count))


def choose_lesion(truth: Bools, answer: Bools, rng: np.random.Generator) -> tuple[Bools, Bools | None]:
    """Choose what of an answer is repaired: give the lesion that should be there, and what is.

    It is a lesion with what of the answer touches it most, or, where the image has none, a false alarm.
    """
    seen, many = ndimage.label(answer, _TOUCHING)
    target = pick_lesion(truth, rng)
    if not target.any():
        return target, None if not many else np.asarray(seen == 1 + rng.integers(many))
    shares = np.bincount(seen[target], minlength=many + 1)
    shares[0] = 0
    return target, np.asarray(seen == shares.argmax()) if shares.any() else None


def distort(target: Bools, rng: np.random.Generator) -> Bools:
    """Make of a lesion what another tool might have drawn: too large, too small, moved, bent, or in part.

    Of an empty mask, a false alarm.
    """
    size = target.shape[0]
    if not target.any():
        return _ellipse(size, rng.uniform(0.2, 0.8, 2) * size, rng.uniform(0.03, 0.15, 2) * size, rng)
    rows, columns = ndimage.find_objects(target.view(np.int8))[0]
    extent = np.array([rows.stop - rows.start, columns.stop - columns.start])
    centre = np.array([rows.start, columns.start]) + extent / 2
    made = target
    # a warp that is smooth moves every pixel to where another was
    coarse = rng.normal(0, 1, (2, 4, 4)) * extent.min() * rng.uniform(0, 0.2)
    field = np.stack([ndimage.zoom(one, size / 4, order=1)[:size, :size] for one in coarse])
    grid = np.indices((size, size)) - centre[:, None, None]
    scale = np.exp(rng.normal(0, 0.2, 2))
    shift = rng.normal(0, 0.1, 2) * extent
    place = grid / scale[:, None, None] + (centre - shift)[:, None, None] + field
    made = ndimage.map_coordinates(target.astype(np.float32), place, order=1) > 0.5
    kind = rng.random()
    if kind < 0.25:
        bite = _ellipse(
            size, centre + rng.uniform(-0.5, 0.5, 2) * extent, extent * rng.uniform(0.2, 0.5), rng
        )
        made = made & ~bite
    elif kind < 0.5:
        made = made | _ellipse(
            size, centre + rng.uniform(-0.7, 0.7, 2) * extent, extent * rng.uniform(0.15, 0.4), rng
        )
    return made if made.any() else target


def _ellipse(
    size: int, centre: NDArray[np.float64], radii: NDArray[np.float64], rng: np.random.Generator
) -> Bools:
    rows, columns = np.indices((size, size)) - np.asarray(centre)[:, None, None]
    angle = rng.uniform(0, np.pi)
    down, across = np.maximum(radii, 1.5)
    along = rows * np.cos(angle) + columns * np.sin(angle)
    beside = columns * np.cos(angle) - rows * np.sin(angle)
    return np.asarray((along / down) ** 2 + (beside / across) ** 2 <= 1)


@torch.inference_mode()
def score_clicks(
    network: torch.nn.Module,
    images: torch.Tensor,
    masks: torch.Tensor,
    channels: int,
    clicks: int = 3,
) -> list[list[float]]:
    """Give Dice after 0 to so many clicks at the middle of the largest error, one list an image.

    Parameters
    ----------
    images : torch.Tensor
        (B, 1, S, S) in [-1, 1], on the network's device.
    masks : torch.Tensor
        bool (B, S, S), each with a lesion, on the CPU.
    """
    rng = np.random.default_rng(0)
    truths = masks.numpy()
    prompts = [Prompts()] * len(truths)
    seen: list[Bools | None] = [None] * len(truths)
    dices: list[list[float]] = [[] for _ in truths]
    for number in range(clicks + 1):
        drawn = np.stack(
            [draw_prompts(truths.shape[-1], own, mask) for own, mask in zip(prompts, seen, strict=True)]
        )
        shown = torch.cat([images, torch.from_numpy(drawn).to(images)], 1)
        lesion, _ = network(shown.contiguous(memory_format=torch.channels_last))
        for place, (truth, mask) in enumerate(zip(truths, (lesion[:, 0] > 0).cpu().numpy(), strict=True)):
            dices[place].append(2 * float((mask & truth).sum()) / float(mask.sum() + truth.sum()))
            seen[place] = mask
            found = largest_error(mask, truth)
            if found is not None and number < clicks:
                prompts[place] = prompts[place].click(*point_at(found[0], "centre", rng), inside=found[1])
    return dices
