"""Figures of a set of images with their intervals: for one model, for two, for parts of the set."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from sonoloop.leakage import Leak
from sonoloop.models.bundle import Bundle, read_bundle
from sonoloop.models.card import Head, read_card
from sonoloop.models.engines import Engine
from sonoloop.models.engines.auto import open_engine
from sonoloop.models.library import bundle_folder
from sonoloop.models.manifest import SPLIT, Manifest, Member, read_manifest
from sonoloop.store.metrics import Bools, Counts, draw_groups, percentile_interval
from sonoloop_training.evaluation.measures import MEASURES, Columns, Measure, simulate_perfect, to_columns
from sonoloop_training.evaluation.scores import Score
from sonoloop_training.splits import Part

HEADS: tuple[Head, ...] = ("lesion", "classes")
TITLES = {measure.key: measure.title for measure in MEASURES} | {
    "ece_if_perfect": "the same of a perfectly calibrated model"
}
# shares of the image: the thirds of the lesions in BUSI and BUS-BRA, rounded, so that models are compared on
# the same bounds whatever the images
SIZES = {"small": (0.0, 0.035), "medium": (0.035, 0.09), "large": (0.09, 1.01)}
# on the images in which both models claim nothing it depends on the truth alone: no difference could show
_NEVER_COMPARED = frozenset({"empty_right"})
# the verdict on a difference whose interval holds zero
SAME = "no difference shown"
_WORDS = {"better": "is better than", "worse": "is worse than", "differs": "differs from"}
# images that a notice names
_NAMED = 5
# whether images of a dataset trained or validated a model
Hospital = Literal["known", "left out", "unknown"]
# the main figures, of every part
STRATUM = (
    "lesion_dice",
    "iou",
    "hd95_px",
    "hd95_mm",
    "missed",
    "false_alarms",
    "lesion_sensitivity",
    "false_positives_per_image",
    "accuracy",
    "auc",
    "sensitivity",
    "specificity",
)


def summarise(
    scores: Sequence[Score], *, heads: Sequence[Head] = HEADS, keys: Collection[str] | None = None
) -> dict[str, Any]:
    """Compute figures with 95 % bootstrap intervals over groups."""
    summary: dict[str, Any] = {"images": len(scores), "groups": len({s.group for s in scores})}
    columns = to_columns(scores)
    resampled = _Resampled([columns])
    for measure in MEASURES:
        if measure.head in heads and (keys is None or measure.key in keys):
            summary[measure.key] = resampled.figure(measure)
    if "classes" in heads and (keys is None or "ece" in keys):
        summary["ece_if_perfect"] = _ece_if_perfect(columns)
    return summary


def compare(one: Sequence[Score], other: Sequence[Score], *, heads: Sequence[Head] = HEADS) -> dict[str, Any]:
    """Differences ``other - one`` of two models' figures on the same images, by the paired bootstrap.

    Both are resampled together, so that what makes an image hard falls out of the difference.
    """
    if [s.key for s in one] != [s.key for s in other]:
        raise ValueError("the scores are not of the same images, in the same order")
    resampled = _Resampled([to_columns(one), to_columns(other)])
    return {
        measure.key: resampled.difference(measure)
        for measure in MEASURES
        if measure.head in heads and measure.key not in _NEVER_COMPARED
    }


def stratify(scores: Sequence[Score], *, heads: Sequence[Head] = HEADS) -> dict[str, dict[str, Any]]:
    """Compute the main figures by class, lesion size, overlay, scanner and dataset."""
    kinds: dict[str, Callable[[Score], str | None]] = {
        "class": lambda s: s.label,
        "size": _size,
        "overlay": lambda s: None if s.overlay is None else ("overlay" if s.overlay else "no overlay"),
        "scanner": lambda s: s.scanner or None,
        "dataset": lambda s: s.dataset,
    }
    strata: dict[str, dict[str, Any]] = {}
    for kind, value_of in kinds.items():
        members: dict[str, list[Score]] = {}
        for score in scores:
            if (value := value_of(score)) is not None:
                members.setdefault(value, []).append(score)
        order = list(SIZES) if kind == "size" else sorted(members)
        if members:
            strata[kind] = {
                # a hospital is looked at in all its figures
                value: summarise(members[value], heads=heads, keys=None if kind == "dataset" else STRATUM)
                for value in order
                if value in members
            }
    return strata


def mark_hospital(dataset: str, known: Collection[str] | None) -> Hospital:
    """Say whether a model knows a dataset's hospital; `known` are the datasets that had a say in it."""
    if known is None:
        return "unknown"
    return "known" if dataset in known else "left out"


class _Resampled:
    """Columns of one model or two on the same images, with the draws made for each subset once."""

    def __init__(self, models: Sequence[Columns]) -> None:
        self._models = models
        self._draws: dict[bytes, Counts] = {}

    def figure(self, measure: Measure) -> dict[str, Any] | None:
        """Value and interval of the first model."""
        which = measure.about(self._models[0])
        return self._describe(which, lambda counts: measure.value(self._models[0].select(which), counts))

    def difference(self, measure: Measure) -> dict[str, Any] | None:
        """Second model less the first, on the images that count for both."""
        one, other = self._models
        which = np.asarray(measure.about(one) & measure.about(other))
        found = self._describe(
            which,
            lambda counts: (
                measure.value(other.select(which), counts) - measure.value(one.select(which), counts)
            ),
        )
        return found and found | {"verdict": _verdict(found, measure.better)}

    def _describe(self, which: Bools, value_of: Callable[[Counts], Any]) -> dict[str, Any] | None:
        count = int(np.count_nonzero(which))
        if not count or not np.isfinite(value := float(value_of(np.ones((1, count)))[0])):
            return None
        groups = self._models[0].groups[which]
        interval = None
        if len(np.unique(groups)) > 1:
            key = which.tobytes()
            if key not in self._draws:
                self._draws[key] = draw_groups(groups)
            interval = percentile_interval(value_of(self._draws[key]))
        return {"value": round(value, 4), "ci95": interval, "n": count}


def _ece_if_perfect(columns: Columns) -> dict[str, Any] | None:
    if not len(columns):
        return None
    errors = simulate_perfect(columns.probabilities.max(1))
    return {"value": round(float(errors.mean()), 4), "ci95": percentile_interval(errors), "n": len(columns)}


def _verdict(found: dict[str, Any], better: int) -> str:
    if found["ci95"] is None or found["ci95"][0] <= 0 <= found["ci95"][1]:
        return SAME
    if not better:
        return "differs"
    return "better" if found["value"] * better > 0 else "worse"


def _size(score: Score) -> str | None:
    if not score.lesion:
        return None
    return next(name for name, (low, high) in SIZES.items() if low <= score.area < high)


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


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class EvaluatedModel:
    """A model to evaluate, where it lies, and who trained it; None where that is not known."""

    bundle: Bundle | Engine
    folder: Path
    split: Manifest | None

    @property
    def hospitals(self) -> frozenset[str] | None:
        """The datasets that had a say in it, by training or validating; None where that is not known."""
        if self.split is None:
            return None
        return frozenset(m.name.partition("/")[0] for m in self.split.known if "/" in m.name)

    @property
    def leaky_by_design(self) -> bool:
        """Whether its card says that its split leaks, or that of a model that it was started from."""
        snapshot = self.bundle.card.snapshot
        recipe = snapshot.get("recipe") or {}
        return bool(snapshot.get("leaked")) or (recipe.get("split") or {}).get("method") == "leaky"


def load_model(name_or_path: str | None, *, split: Manifest | None = None) -> EvaluatedModel:
    """Load a model with its split."""
    folder = bundle_folder(name_or_path)
    # torch cannot run a user's own graph
    bundle = read_bundle(folder) if read_card(folder).spec.has_weights else open_engine(folder)
    own = read_manifest(folder / SPLIT) if (folder / SPLIT).is_file() else None
    # a list of what its numbers were fitted on alone does not say who trained it
    if own is not None and own.calibration and not own.known:
        own = None
    # its own word first: a later fit may have trained on more than the split at hand says
    return EvaluatedModel(bundle=bundle, folder=folder, split=split if own is None else own)


def describe_leaks(model: EvaluatedModel, leaks: Sequence[Leak], evaluated: Sequence[Member]) -> list[str]:
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
