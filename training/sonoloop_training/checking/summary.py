"""The figures of a dataset, class by class."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from sonoloop.values import CLASSES
from sonoloop_training.checking.inspect_sample import Inspection
from sonoloop_training.checking.survey import Survey

ALL = "all"


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """Figures of the images of one class, or of all.

    Parameters
    ----------
    images, readable : int
        How many there are, and how many of them could be read; what follows is of these.
    widths, heights : tuple of float
        Least, median and most, in pixels; empty where there is no image, as `areas`.
    areas : tuple of float
        Quartiles of the share of the frame that lesions cover, over the images with a lesion.
    depths : mapping
        How many images of each depth.
    lesions : mapping
        How many images with so many lesions.
    overlays : int
        Images that something looks burned into.
    near_duplicates : int
        Images that have a near-duplicate.
    """

    images: int
    readable: int
    widths: tuple[float, ...]
    heights: tuple[float, ...]
    areas: tuple[float, ...]
    depths: Mapping[str, int]
    lesions: Mapping[int, int]
    overlays: int
    near_duplicates: int


def summarise(survey: Survey) -> dict[str, Summary]:
    """Return the figures of each of `CLASSES`, and of "all"."""
    twins = {survey.inspections[member].sample.name for members in survey.groups for member in members}
    parts: dict[str, Sequence[Inspection]] = {
        label: [item for item in survey.inspections if item.sample.label == label] for label in CLASSES
    }
    parts[ALL] = survey.inspections
    return {name: _summarise(items, twins) for name, items in parts.items()}


def summary_rows(survey: Survey) -> list[tuple[str, ...]]:
    """Return the figures for people: what, then each of `CLASSES` and all."""
    parts = list(summarise(survey).values())

    def row(what: str, values: Sequence[object]) -> tuple[str, ...]:
        return (what, *(str(value) for value in values))

    return [
        row("images", [part.images for part in parts]),
        row("that cannot be read", [part.images - part.readable for part in parts]),
        row("width (px; least, median, most)", [_span(part.widths) for part in parts]),
        row("height (px; least, median, most)", [_span(part.heights) for part in parts]),
        row(
            "depth", [", ".join(f"{n} {depth}" for depth, n in part.depths.items()) or "-" for part in parts]
        ),
        row("images with 0, 1, 2, more lesions", [_lesion_counts(part.lesions) for part in parts]),
        row(
            "lesion area (% of the frame; quartiles)",
            [", ".join(f"{100 * area:.1f}" for area in part.areas) or "-" for part in parts],
        ),
        row("with burned-in overlays", [_share(part.overlays, part.readable) for part in parts]),
        row("with a near-duplicate", [_share(part.near_duplicates, part.readable) for part in parts]),
    ]


def _summarise(items: Sequence[Inspection], twins: set[str]) -> Summary:
    readable = [item for item in items if item.shape]
    heights, widths = (
        zip(*(item.shape for item in readable if item.shape), strict=True) if readable else ((), ())
    )
    areas = [item.area for item in readable if item.lesions]
    return Summary(
        images=len(items),
        readable=len(readable),
        widths=_quantiles(widths, (0, 0.5, 1)),
        heights=_quantiles(heights, (0, 0.5, 1)),
        areas=_quantiles(areas, (0.25, 0.5, 0.75)),
        depths=dict(Counter(item.depth for item in readable).most_common()),
        lesions=dict(sorted(Counter(item.lesions for item in readable).items())),
        overlays=sum(item.overlay for item in readable),
        near_duplicates=sum(item.sample.name in twins for item in items),
    )


def _quantiles(values: Sequence[Any], shares: tuple[float, ...]) -> tuple[float, ...]:
    return tuple(float(value) for value in np.quantile(values, shares)) if len(values) else ()


def _span(values: tuple[float, ...]) -> str:
    return ", ".join(f"{value:.0f}" for value in values) or "-"


def _lesion_counts(lesions: Mapping[int, int]) -> str:
    more = sum(images for count, images in lesions.items() if count > 2)
    return ", ".join(str(lesions.get(count, 0)) for count in range(3)) + f", {more}"


def _share(count: int, total: int) -> str:
    return f"{count} ({count / total:.0%})" if total else "-"
