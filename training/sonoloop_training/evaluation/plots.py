"""The figures of a report: one message each, intervals drawn, told apart without colours."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from sonoloop.store.bootstrap import draw_groups
from sonoloop.values import CLASSES
from sonoloop_training.evaluation.columns import Columns, Floats
from sonoloop_training.evaluation.measures import COVERAGE, RANKER_TITLES, RANKERS
from sonoloop_training.evaluation.ranking import risk_curve, roc_curves
from sonoloop_training.evaluation.reliability import reliability_curve
from sonoloop_training.evaluation.summary import SIZES
from sonoloop_training.figures import CLASS_COLOURS, new_figure

_NORMAL, _MALIGNANT = CLASSES.index("normal"), CLASSES.index("malignant")
_INK, _QUIET = "#0072B2", "#767676"
# of Okabe and Ito's colours, with a line and a marker each, so that a grey print tells them apart too
_RANKER_STYLES = {
    "expected_dice": ("#0072B2", "-"),
    "predicted_area": ("#D55E00", "--"),
    "foreground": ("#009E73", ":"),
}
_CLASS_MARKERS = {"benign": "o", "malignant": "^"}


def training_curves(history: Sequence[Mapping[str, Any]]) -> Figure:
    """Draw loss, and Dice and accuracy on the validation part, by epoch."""
    epochs = [entry["epoch"] for entry in history]
    with new_figure(7.2, 3.0) as figure:
        left, right = figure.subplots(1, 2)
        left.plot(epochs, [_number(entry.get("loss")) for entry in history], "o-", ms=3, color=_INK)
        _label(left, "epoch", "training loss")
        for key, title, style in (("dice", "Dice", "o-"), ("accuracy", "accuracy", "s--")):
            values = [_number(entry.get(key)) for entry in history]
            if np.isfinite(values).any():
                colour = _INK if key == "dice" else CLASS_COLOURS["malignant"]
                right.plot(epochs, values, style, ms=3, color=colour, label=title)
        _label(right, "epoch", "on the validation part")
        right.set_ylim(0, 1.02)
        right.legend(loc="lower right")
    return figure


def roc_figure(columns: Columns) -> Figure | None:
    """Draw the ROC curve of malignant against benign with its 95 % band; None where there are not both."""
    chosen = columns.select(columns.truth != _NORMAL)
    positive = chosen.truth == _MALIGNANT
    if not positive.any() or positive.all():
        return None
    rates = np.linspace(0, 1, 201)
    curve = roc_curves(chosen.malignant, positive, np.ones((1, len(chosen))), rates)[0]
    with new_figure(4.2, 4.0) as figure:
        axes = figure.subplots()
        if len(np.unique(chosen.groups)) > 1:
            band = roc_curves(chosen.malignant, positive, draw_groups(chosen.groups), rates)
            low, high = np.nanpercentile(band, [2.5, 97.5], axis=0)
            axes.fill_between(
                rates, low, high, color=_INK, alpha=0.2, lw=0, label="95 % interval over groups"
            )
        axes.plot(rates, curve, color=_INK, label="this model")
        axes.plot([0, 1], [0, 1], ":", color=_QUIET, label="chance")
        _label(axes, "1 - specificity", "sensitivity for malignant")
        axes.set_aspect("equal")
        axes.legend(loc="lower right")
    return figure


def reliability_figure(columns: Columns) -> Figure | None:
    """Draw predicted against observed frequency of malignant, with intervals; None without lesions."""
    chosen = columns.select(columns.truth != _NORMAL)
    if len(chosen) == 0:
        return None
    positive = chosen.truth == _MALIGNANT
    predicted, came, _ = reliability_curve(chosen.malignant, positive, np.ones((1, len(chosen))))
    with new_figure(4.2, 4.0) as figure:
        axes = figure.subplots()
        axes.plot([0, 1], [0, 1], ":", color=_QUIET, label="perfect")
        if len(np.unique(chosen.groups)) > 1:
            _, drawn, _ = reliability_curve(chosen.malignant, positive, draw_groups(chosen.groups))
            low, high = np.nanpercentile(drawn, [2.5, 97.5], axis=0)
            axes.vlines(predicted, low, high, color=_INK, lw=1.2, label="95 % interval over groups")
        axes.plot(predicted, came[0], "o-", color=_INK, ms=4, label="this model, equal bins")
        axes.plot(chosen.malignant, np.where(positive, 1.03, -0.03), "|", color=_QUIET, ms=5, alpha=0.5)
        _label(axes, "predicted probability of malignant", "share that was malignant")
        axes.set_xlim(-0.03, 1.03)
        axes.set_ylim(-0.06, 1.06)
        axes.legend(loc="upper left")
    return figure


def dice_by_size(columns: Columns) -> Figure | None:
    """Draw each lesion image's Dice over the lesion's share of the image; None without lesions."""
    chosen = columns.select(columns.lesion)
    if len(chosen) == 0:
        return None
    with new_figure(6.4, 3.4) as figure:
        axes = figure.subplots()
        for label, marker in _CLASS_MARKERS.items():
            own = chosen.truth == CLASSES.index(label)
            axes.plot(
                100 * chosen.area[own],
                chosen.dice[own],
                marker,
                color=CLASS_COLOURS[label],
                ms=4,
                alpha=0.55,
                mec="none",
                label=label,
            )
        axes.set_xscale("log")
        for _, (low, _) in list(SIZES.items())[1:]:
            axes.axvline(100 * low, color=_QUIET, lw=0.8, ls=":")
        axes.xaxis.set_major_formatter("{x:g}")
        _label(axes, "lesion, % of the image (log scale; dotted: small, medium, large)", "Dice")
        axes.set_ylim(-0.03, 1.03)
        axes.legend(loc="lower right")
    return figure


def risk_coverage_figure(columns: Columns) -> Figure | None:
    """Draw the mean Dice of the masks that each ranking trusts most; None where no mask is predicted."""
    chosen = columns.select(columns.claimed)
    if len(chosen) < 2:
        return None
    counts = np.ones((1, len(chosen)))
    with new_figure(6.0, 3.4) as figure:
        axes = figure.subplots()
        for ranker in RANKERS:
            colour, line = _RANKER_STYLES[ranker]
            coverage, risk = risk_curve(getattr(chosen, ranker), 1 - chosen.dice, counts)
            # a mean of a handful of images is noise
            shown = coverage[0] >= 0.1
            axes.plot(
                100 * coverage[0][shown],
                1 - risk[0][shown],
                line,
                color=colour,
                label=f"by {RANKER_TITLES[ranker]}",
            )
            if ranker == "expected_dice" and len(np.unique(chosen.groups)) > 1:
                low, high = _risk_band(chosen, np.linspace(0.1, 1, 46))
                axes.fill_between(np.linspace(10, 100, 46), 1 - high, 1 - low, color=colour, alpha=0.15, lw=0)
        axes.axvline(100 * COVERAGE, color=_QUIET, lw=0.8, ls=":")
        _label(axes, "coverage: % of the masks kept, the most trusted first", "mean Dice of those kept")
        figure.legend(loc="outside lower center", ncols=len(RANKERS))
    return figure


def _risk_band(chosen: Columns, coverages: Floats) -> tuple[Floats, Floats]:
    reached, risk = risk_curve(chosen.expected_dice, 1 - chosen.dice, draw_groups(chosen.groups, 500))
    rows = [np.interp(coverages, x, y) for x, y in zip(reached, risk, strict=True)]
    low, high = np.percentile(rows, [2.5, 97.5], axis=0)
    return low, high


def _label(axes: Axes, across: str, up: str) -> None:
    axes.set_xlabel(across)
    axes.set_ylabel(up)


def _number(value: object) -> float:
    return float(value) if isinstance(value, int | float) else float("nan")
