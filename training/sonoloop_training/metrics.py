"""How good predictions are, with intervals over groups."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import spearmanr
from torchmetrics.functional.classification import binary_auroc

from sonoloop.values import CLASSES, Prediction

_RESAMPLES = 2000


def dice(one: NDArray[np.bool_], other: NDArray[np.bool_]) -> float:
    """Dice of two masks (H, W); 1 where both are empty, 0 where one is."""
    total = int(np.count_nonzero(one)) + int(np.count_nonzero(other))
    return 1.0 if total == 0 else 2 * int(np.count_nonzero(one & other)) / total


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """How one prediction compares with the truth.

    Parameters
    ----------
    group, dataset, label : str
        Of the frame.
    lesion : bool
        Whether there is one.
    dice : float
        See `dice`.
    claimed : bool
        Whether the predicted mask holds a pixel.
    predicted : str
        The most probable class.
    malignant : float
        Probability of malignant against benign, in [0, 1].
    expected_dice : float
        What the model expected.
    """

    group: str
    dataset: str
    label: str
    lesion: bool
    dice: float
    claimed: bool
    predicted: str
    malignant: float
    expected_dice: float


def score(prediction: Prediction, mask: NDArray[np.bool_], *, label: str, dataset: str, group: str) -> Score:
    """Compare a prediction with the mask (H, W) and the class that are known."""
    _, benign, malignant = (float(p) for p in prediction.classes)
    return Score(
        group=group,
        dataset=dataset,
        label=label,
        lesion=bool(mask.any()),
        dice=dice(prediction.mask > 0, mask),
        claimed=bool(prediction.mask.any()),
        predicted=prediction.label,
        malignant=malignant / max(malignant + benign, 1e-9),
        expected_dice=prediction.expected_dice,
    )


def summarise(scores: Sequence[Score]) -> dict[str, Any]:
    """Means with 95 % bootstrap intervals over groups; None where nothing can be said.

    Returns
    -------
    dict
        ``images``, ``groups``, and as ``{"value", "ci95", "n"}``: ``lesion_dice``, ``missed`` (lesions with
        Dice 0), ``false_alarms`` (normals with a mask), ``auc`` (malignant against benign), ``accuracy``
        (three classes), ``rank_correlation`` (of expected and real Dice, over lesions).
    """
    figures: dict[str, tuple[Callable[[Score], bool], Callable[[Sequence[Score]], float]]] = {
        "lesion_dice": (lambda s: s.lesion, lambda some: float(np.mean([s.dice for s in some]))),
        "missed": (lambda s: s.lesion, lambda some: float(np.mean([s.dice == 0 for s in some]))),
        "false_alarms": (lambda s: not s.lesion, lambda some: float(np.mean([s.claimed for s in some]))),
        "auc": (lambda s: s.label != "normal", _auc),
        "accuracy": (lambda _: True, lambda some: float(np.mean([s.predicted == s.label for s in some]))),
        "rank_correlation": (lambda s: s.lesion, _rank_correlation),
    }
    summary: dict[str, Any] = {"images": len(scores), "groups": len({s.group for s in scores})}
    for name, (counts, figure) in figures.items():
        summary[name] = _with_interval([s for s in scores if counts(s)], figure)
    return summary


def _with_interval(
    scores: Sequence[Score], figure: Callable[[Sequence[Score]], float]
) -> dict[str, Any] | None:
    if not scores or not np.isfinite(value := figure(scores)):
        return None
    members: dict[str, list[Score]] = defaultdict(list)
    for item in scores:
        members[item.group].append(item)
    groups = list(members.values())
    rng = np.random.default_rng(0)
    resampled = []
    for _ in range(_RESAMPLES):
        drawn = figure([s for index in rng.integers(0, len(groups), len(groups)) for s in groups[index]])
        if np.isfinite(drawn):
            resampled.append(drawn)
    interval = [round(float(bound), 4) for bound in np.percentile(resampled, [2.5, 97.5])]
    return {"value": round(value, 4), "ci95": interval, "n": len(scores)}


def _auc(scores: Sequence[Score]) -> float:
    truth = torch.tensor([s.label == "malignant" for s in scores], dtype=torch.long)
    if truth.min() == truth.max():
        return float("nan")
    return float(binary_auroc(torch.tensor([s.malignant for s in scores]), truth))


def _rank_correlation(scores: Sequence[Score]) -> float:
    real, expected = [s.dice for s in scores], [s.expected_dice for s in scores]
    if len(set(real)) < 2 or len(set(expected)) < 2:
        return float("nan")
    return float(spearmanr(real, expected).statistic)


def confusion(scores: Sequence[Score]) -> dict[str, dict[str, int]]:
    """Count predicted classes by true class."""
    return {
        true: {got: sum(s.label == true and s.predicted == got for s in scores) for got in CLASSES}
        for true in CLASSES
    }
