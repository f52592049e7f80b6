"""What a card says of where its model comes from, in words: images by site and class, licences, limits."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sonoloop.models.card import PARITY, Card

OWN = "own corrections"
OWN_LICENCE = "the project's own"
NOT_RECORDED = "not recorded"
# as NOTICE has them
LICENCES = {
    "busi": "CC BY 4.0",
    "busbra": "free to use, modify and distribute; papers cite its article",
    "breast-usg": "CC BY 4.0",
}
_FIGURES = {
    "lesion_dice": "Dice",
    "missed": "lesions missed",
    "missed_malignant": "malignant missed",
    "false_alarms": "normals with a mask",
    "auc": "AUC",
}
_APART = {"dice_apart", "lesions_lost", "classes_apart"}
_LISTED = 20
_LONGEST = 200


def describe_origin(card: Card) -> tuple[tuple[str, str], ...]:
    """Tell what is recorded, name by name; a card of an earlier version says little."""
    told = card.snapshot
    sites, datasets = _counts(told.get("by_site")), told.get("datasets")
    names = list(sites) or ([_short(each) for each in datasets] if isinstance(datasets, list) else [])
    recorded = told.get("licences")
    licences = {str(k): str(v) for k, v in recorded.items()} if isinstance(recorded, Mapping) else {}
    licences = {name: licences.get(name) or LICENCES.get(name, NOT_RECORDED) for name in names}
    images, limits = _counts(told.get("images")), told.get("limits")
    brought = told.get("brought_in")
    digest = _short(brought.get("sha256", "")) if isinstance(brought, Mapping) else ""
    return (
        *([("Brought in", f"made elsewhere, from the file of SHA-256 {digest}")] if digest else []),
        ("Images by site", _join(sites) or ", ".join(names[:_LISTED]) or NOT_RECORDED),
        ("Images by part", _join(images) or NOT_RECORDED),
        ("Own corrections by class", _join(_counts(told.get("by_class"))) or NOT_RECORDED),
        ("Licence of the data", "; ".join(f"{k}: {_short(v)}" for k, v in licences.items()) or NOT_RECORDED),
        (
            "Limits",
            "; ".join(map(_short, limits[:_LISTED])) if isinstance(limits, list) and limits else NOT_RECORDED,
        ),
    )


def describe_reached(card: Card, part: str) -> str:
    """Tell what it reached on a part of the data, with intervals."""
    reached = card.figures(part)
    told = [f"{name} {reached[key]}" for key, name in _FIGURES.items() if key in reached]
    return ", ".join(told) or NOT_RECORDED


def describe_parity(card: Card) -> str:
    """Tell how far the model's graph was from torch when it was made, and on how many frames."""
    apart, frames = card.figures(PARITY), (card.metrics.get(PARITY) or {}).get("images")
    if not apart.keys() >= _APART or not isinstance(frames, int):
        return NOT_RECORDED
    dice, lost, classes = (apart[name].value for name in ("dice_apart", "lesions_lost", "classes_apart"))
    return (
        f"mean Dice differs by {dice:.4f}, {lost:g} lesions are lost, class probabilities differ by "
        f"{classes:.4f}, on {frames} frames"
    )


def _counts(told: Any) -> dict[str, int]:  # noqa: ANN401 - whatever a card holds
    if not isinstance(told, Mapping):
        return {}
    return {_short(name): number for name, number in told.items() if isinstance(number, int) and number}


def _join(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{number} {name}" for name, number in list(counts.items())[:_LISTED])


def _short(text: object) -> str:
    return str(text)[:_LONGEST]
