"""What an annotator points at to have a mask repaired, and how a network is shown it; numpy only."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

Point = tuple[float, float]
Box = tuple[float, float, float, float]

# of a click in pixels of what the network sees, as in RITM (Sofiiuk, Petrov and Konushin, "Reviving iterative
# training with mask guidance for interactive segmentation", ICIP 2022)
RADIUS = 5.0


@dataclass(frozen=True, slots=True)
class Stroke:
    """A click, or a line of several points: it says "this is lesion" or "this is not".

    Points are rows and columns in pixels; whole numbers are the middles of pixels, as in napari.
    """

    points: tuple[Point, ...]
    inside: bool = True

    def __post_init__(self) -> None:
        if not self.points:
            raise ValueError("a stroke needs at least one point")
        if not all(len(point) == 2 and all(map(math.isfinite, point)) for point in self.points):
            raise ValueError(f"the points of a stroke are pairs of numbers, got {self.points[:3]!r}")

    @property
    def path(self) -> NDArray[np.float64]:
        """Points along the line, no further apart than half a pixel, (N, 2)."""
        corners = np.array(self.points, np.float64)
        parts = [corners[:1]]
        for before, after in pairwise(corners):
            steps = max(1, math.ceil(2 * float(np.abs(after - before).max())))
            parts.append(before + (after - before) * np.arange(1, steps + 1)[:, None] / steps)
        return np.concatenate(parts)


@dataclass(frozen=True, slots=True)
class Prompts:
    """All that was pointed at for one lesion, in order; the same again with one more is a new value."""

    strokes: tuple[Stroke, ...] = ()
    # top, left, bottom and right of a box around the lesion, in pixels
    box: Box | None = None

    def __post_init__(self) -> None:
        if self.box is None:
            return
        top, left, bottom, right = self.box
        if not (all(map(math.isfinite, self.box)) and top < bottom and left < right):
            raise ValueError(f"a box is top, left, bottom, right, in order, got {self.box!r}")

    def __bool__(self) -> bool:
        return bool(self.strokes) or self.box is not None

    def click(self, row: float, column: float, *, inside: bool = True) -> Prompts:
        """Add a click on the lesion, or beside it."""
        return self.scribble([(row, column)], inside=inside)

    def scribble(self, points: Sequence[Point], *, inside: bool = True) -> Prompts:
        """Add a line drawn on the lesion, or beside it."""
        drawn = Stroke(tuple((float(row), float(column)) for row, column in points), inside)
        return replace(self, strokes=(*self.strokes, drawn))

    def enclose(self, top: float, left: float, bottom: float, right: float) -> Prompts:
        """Put a box around the lesion, in place of one that is there."""
        return replace(self, box=(float(top), float(left), float(bottom), float(right)))

    def undo(self) -> Prompts:
        """Take back the last click or line; where there is none, the box."""
        return replace(self, strokes=self.strokes[:-1]) if self.strokes else Prompts()

    def moved(self, scale: float | Point, shift: Point) -> Prompts:
        """Bring all points to another grid: ``(point + 1/2) * scale + shift - 1/2``."""
        down, across = scale if isinstance(scale, tuple) else (scale, scale)

        def move(point: Point) -> Point:
            return (point[0] + 0.5) * down + shift[0] - 0.5, (point[1] + 0.5) * across + shift[1] - 0.5

        strokes = tuple(Stroke(tuple(map(move, one.points)), one.inside) for one in self.strokes)
        if self.box is None:
            return Prompts(strokes)
        top, left, bottom, right = self.box
        return Prompts(strokes, (*move((top, left)), *move((bottom, right))))


def draw_prompts(size: int, prompts: Prompts, mask: NDArray[np.bool_] | None = None) -> NDArray[np.float32]:
    """Draw what a network is shown beside the image, float32 (4, S, S), 0 or 1.

    The mask to repair; a disc along each positive stroke; the same of the negative ones; and the box, filled.
    Previous mask and discs are as in RITM (Sofiiuk et al., ICIP 2022), box and lines as in ScribblePrompt
    (Wong et al., ECCV 2024).

    Parameters
    ----------
    size : int
        Side of the square in pixels.
    prompts : Prompts
        On the square's own grid; what lies outside it is cut off.
    mask : numpy.ndarray, optional
        The lesion as it is, (S, S); none where there is none yet.
    """
    maps = np.zeros((4, size, size), np.float32)
    if mask is not None:
        maps[0] = mask
    for stroke in prompts.strokes:
        draw_discs(maps[1 if stroke.inside else 2], stroke.path, RADIUS, 1.0)
    if prompts.box is not None:
        top, left, bottom, right = (round(min(max(end, 0), size - 1)) for end in prompts.box)
        maps[3, top : bottom + 1, left : right + 1] = 1
    return maps


def draw_discs(
    plane: NDArray[np.float32] | NDArray[np.bool_], points: NDArray[np.float64], radius: float, value: float
) -> None:
    """Set a disc around each point of a plane (H, W) to a value; what lies outside it is cut off."""
    near = np.unique(np.round(points).astype(np.int64), axis=0)
    pixels = (near[:, None] + _disc(radius)).reshape(-1, 2)
    inside = ((pixels >= 0) & (pixels < plane.shape)).all(1)
    rows, columns = pixels[inside].T
    plane[rows, columns] = value


@functools.lru_cache(maxsize=64)
def _disc(radius: float) -> NDArray[np.int64]:
    """List the offsets of the pixels of a disc, (N, 2)."""
    reach = math.floor(radius)
    rows, columns = np.mgrid[-reach : reach + 1, -reach : reach + 1]
    return np.argwhere(rows**2 + columns**2 <= radius**2) - reach
