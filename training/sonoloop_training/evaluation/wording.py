"""Figures and findings in words."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from sonoloop_training.evaluation.measures import MEASURES
from sonoloop_training.evaluation.model import Judged
from sonoloop_training.evaluation.split_list import Listed
from sonoloop_training.evaluation.summary import SAME
from sonoloop_training.leaks import Leak
from sonoloop_training.splits import Part

_NAMED = 5
_WORDS = {"better": "is better than", "worse": "is worse than", "differs": "differs from"}

TITLES = {measure.key: measure.title for measure in MEASURES} | {
    "ece_if_perfect": "the same of a perfectly calibrated model"
}


def write_figure(figure: Mapping[str, Any] | None, *, signed: bool = False) -> str:
    """Write a figure with its interval, or a dash where there is none."""
    if figure is None:
        return "-"
    sign = "+" if signed else ""
    digits = 1 if abs(figure["value"]) >= 10 else 3
    text = f"{figure['value']:{sign}.{digits}f}"
    if figure["ci95"] is None:
        return text
    low, high = figure["ci95"]
    return f"{text} [{low:{sign}.{digits}f}, {high:{sign}.{digits}f}]"


def describe_differences(one: str, other: str, differences: Mapping[str, Any]) -> list[str]:
    """Say of two models where the second is better or worse, and of which figures no difference is shown."""
    told = []
    for verdict, words in _WORDS.items():
        told += [
            f"{other} {words} {one} in {TITLES[key]}: {write_figure(found, signed=True)}"
            for key, found in differences.items()
            if found and found["verdict"] == verdict
        ]
    same = [TITLES[key] for key, found in differences.items() if found and found["verdict"] == SAME]
    if same:
        told.append(f"no difference is shown in {'; '.join(same)}")
    return told


def describe_part(part: Part, *, here: int, listed: int, others: Sequence[str]) -> list[str]:
    """Warn where not all images that a split calls `part` are here, and of others that have their names."""
    told = []
    if here < listed:
        told.append(f"{here} of the {listed} images that the split calls {part} are here")
    if others:
        told.append(
            f"left out, since the split lists another image of the same name ({len(others)}): "
            f"{_name_some(others)}"
        )
    return told


def describe_leaks(model: Judged, leaks: Sequence[Leak], evaluated: Sequence[Listed]) -> list[str]:
    """Warn of what makes a model's figures too good, or say that it cannot be known."""
    name = model.bundle.model
    told = []
    if model.leaky_by_design:
        told.append(
            f"{name} was made with a split that leaks on purpose, or from a model that was: its figures are "
            "leaked, not honest"
        )
    if model.split is None:
        told.append(
            f"{name} does not say which images trained it, so it cannot be known whether some of these did"
        )
    elif leaks:
        kinds = Counter(leak.kind for leak in leaks)
        counts = ", ".join(f"{count} {kind}" for kind, count in kinds.items())
        names = _name_some([leak.image for leak in leaks])
        shown = "and without" if len(leaks) < len(evaluated) else "alone, since no others are left"
        told.append(
            f"{len(leaks)} of {len(evaluated)} images trained {name}, or a copy or the same patient did "
            f"({counts}): {names}; figures are given with them (leaked) {shown}"
        )
    return told


def _name_some(images: Sequence[str]) -> str:
    return ", ".join(images[:_NAMED]) + (", ..." if len(images) > _NAMED else "")
