"""The report of an evaluation: one HTML page with figures and cases, for people."""

from __future__ import annotations

import json
from collections.abc import Generator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 - torch's own abbreviation
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray
from torch import nn

from sonoloop.imaging.grey import to_unit
from sonoloop.imaging.overlay import LESION_COLOURS, outline, to_display
from sonoloop.jobs.events import Event, Progress
from sonoloop.models.bundle import Bundle
from sonoloop.models.predictor import Predictor
from sonoloop.models.preprocess import Letterbox, normalise
from sonoloop.store.metrics import Floats, draw_groups
from sonoloop.values import CLASSES
from sonoloop_training.datasets import Sample
from sonoloop_training.evaluation.measures import (
    COVERAGE,
    RANKER_TITLES,
    RANKERS,
    Columns,
    reliability_curve,
    risk_curve,
    roc_curves,
    to_columns,
)
from sonoloop_training.evaluation.scores import Case, Score, read_case
from sonoloop_training.evaluation.summary import SIZES, STRATUM, TITLES, EvaluatedModel, write_figure
from sonoloop_training.page import CLASS_COLOURS, Page, new_figure

# where a training leaves its epochs: in the bundle, or in the run's folder around it
_HISTORIES = ("history.json", "../history.jsonl")
# cyan and orange, the one solid and the other dashed: told apart with any colour vision and in grey
TRUTH, PREDICTION = LESION_COLOURS[0], LESION_COLOURS[3]
LEGEND = "Cyan, solid: the truth. Orange, dashed: the prediction."
_INTERVALS = "In brackets the 95 % bootstrap interval over groups (patients, or near-duplicates)."
_INK, _QUIET = "#0072B2", "#767676"
# of Okabe and Ito's colours, with a line and a marker each, so that a grey print tells them apart too
_RANKER_STYLES = {
    "expected_dice": ("#0072B2", "-"),
    "predicted_area": ("#D55E00", "--"),
    "foreground": ("#009E73", ":"),
}
_CLASS_MARKERS = {"benign": "o", "malignant": "^"}


def write_report(
    results: Mapping[str, Any],
    models: Sequence[EvaluatedModel],
    predictors: Sequence[Predictor],
    scores: Sequence[Sequence[Score]],
    samples: Sequence[Sample],
) -> Generator[Event, None, str]:
    """Draw the report."""
    names = [model.bundle.model for model in models]
    page = Page(f"Evaluation of {' and '.join(names)}")
    page.paragraph(
        f"{results['images']} images of {results['groups']} groups from {', '.join(results['datasets'])}, "
        f"part: {results['part']}."
    )
    for text in results["notices"]:
        page.paragraph(f"Note: {text}.")
    _write_figures(page, results)
    if results["comparison"]:
        _write_comparison(page, results["comparison"])
    by_key = {sample.key: sample for sample in samples}
    steps = 3 * len(models)
    for place, (model, predictor, own, entry) in enumerate(
        zip(models, predictors, scores, results["models"], strict=True)
    ):
        heads = model.bundle.card.spec.heads
        name = _marked(entry)
        page.heading(f"{name}: where it holds")
        _write_strata(page, name, entry["strata"])
        yield Progress(stage="Drawing the report", done=3 * place, total=steps)
        _draw_figures(page, name, model, own)
        yield Progress(stage="Drawing the report", done=3 * place + 1, total=steps)
        if "lesion" in heads:
            _show_worst(page, name, predictor, own, by_key)
        yield Progress(stage="Drawing the report", done=3 * place + 2, total=steps)
        if "classes" in heads:
            _show_attention(page, name, model, own, by_key)
    if results["failures"]:
        page.heading("Images that could not be judged")
        page.table(["image", "why"], [[failed["image"], failed["error"]] for failed in results["failures"]])
    yield Progress(stage="Drawing the report", done=steps, total=steps)
    return page.to_html()


def _marked(entry: Mapping[str, Any]) -> str:
    """Name a judged model; the mark goes wherever its figures go."""
    return f"{entry['model']} (leaked)" if entry["leaked"] else str(entry["model"])


def _write_figures(page: Page, results: Mapping[str, Any]) -> None:
    page.heading("Figures")
    header, columns = ["figure"], []
    for entry in results["models"]:
        header.append(_marked(entry))
        columns.append(entry["figures"])
        if entry["figures_without_leaks"]:
            header.append(f"{entry['model']} without leaked images")
            columns.append(entry["figures_without_leaks"])
    keys = [key for key in TITLES if any(column.get(key) for column in columns)]
    rows = [
        [
            TITLES[key],
            *(write_figure(column.get(key)) for column in columns),
            (columns[0].get(key) or {"n": "-"})["n"],
        ]
        for key in keys
    ]
    page.table([*header, "images"], rows, caption=_INTERVALS)
    for entry in results["models"]:
        if confusion := entry["figures"].get("confusion"):
            page.table(
                ["class", *(f"called {name}" for name in CLASSES)],
                [[true, *(confusion[true][name] for name in CLASSES)] for true in CLASSES],
                caption=f"Images by true class and by the class that {_marked(entry)} gives.",
            )


def _write_comparison(page: Page, comparison: Mapping[str, Any]) -> None:
    mark = " (leaked)" * comparison["leaked"]
    page.heading(f"{comparison['other']} against {comparison['one']}{mark}")
    left_out = comparison["left_out"]
    page.paragraph(
        f"On the same {comparison['images']} images"
        + (f", without {left_out} that trained either" if left_out else "")
        + "; both are resampled together."
    )
    for text in comparison["in_words"]:
        page.paragraph(text[0].upper() + text[1:] + ".")
    page.table(
        ["figure", "difference", "verdict"],
        [
            [TITLES[key], write_figure(found, signed=True), found["verdict"]]
            for key, found in comparison["differences"].items()
            if found
        ],
        caption=f"{comparison['other']} less {comparison['one']}{mark}. {_INTERVALS}",
    )


def _write_strata(page: Page, name: str, strata: Mapping[str, Mapping[str, Any]]) -> None:
    shown = [
        key for key in STRATUM if any(part.get(key) for parts in strata.values() for part in parts.values())
    ]
    rows = [
        [kind, _name_part(value, part), part["images"], *(write_figure(part.get(key)) for key in shown)]
        for kind, parts in strata.items()
        for value, part in parts.items()
    ]
    page.table(
        ["by", "part", "images", *(TITLES[key] for key in shown)],
        rows,
        caption=f"{name}. Sizes are shares of the image: small below 3.5 %, large from 9 % on. "
        f"A dataset is known where images of it trained or validated the model, else left out. {_INTERVALS}",
    )


def _name_part(value: str, part: Mapping[str, Any]) -> str:
    return f"{value} ({part['hospital']})" if "hospital" in part else value


def _draw_figures(page: Page, name: str, model: EvaluatedModel, scores: Sequence[Score]) -> None:
    columns, heads = to_columns(scores), model.bundle.card.spec.heads
    history = read_history(model.folder)
    if history:
        page.figure(training_curves(history), "How the training went, epoch by epoch.")
    drawn = []
    if "lesion" in heads:
        drawn += [
            (dice_by_size(columns), "Dice of each image with a lesion, by the lesion's size."),
            (
                risk_coverage_figure(columns),
                "Keeping only the masks that are trusted most: the higher a line lies above its right end, "
                "the better its ranking tells good masks from bad. Empty masks are apart. The band is the "
                "95 % interval over groups.",
            ),
        ]
    if "classes" in heads:
        drawn += [
            (roc_figure(columns), "ROC curve of malignant against benign."),
            (
                reliability_figure(columns),
                "Whether predicted probabilities are frequencies, malignant against benign. Ticks at the top "
                "are malignant images, at the bottom benign ones.",
            ),
        ]
    for figure, caption in drawn:
        if figure is not None:
            page.figure(figure, f"{name}. {caption}")


def _show_worst(
    page: Page, name: str, predictor: Predictor, scores: Sequence[Score], by_key: Mapping[str, Sample]
) -> None:
    page.heading(f"{name}: the worst cases")
    shown = []
    for score in worst_cases(scores):
        case = read_case(by_key[score.key])
        mask = np.asarray(predictor.predict(case.frame).mask > 0)
        text = f"{score.key}: Dice {score.dice:.2f}, expected {score.expected_dice:.2f}"
        shown.append((outlined(case, mask), f"{text}; {score.label}, called {score.predicted}"))
    page.images(shown, caption=LEGEND)


def _show_attention(
    page: Page, name: str, model: EvaluatedModel, scores: Sequence[Score], by_key: Mapping[str, Sample]
) -> None:
    if not isinstance(model.bundle, Bundle):
        return  # the gradients of a user's own graph are not known
    page.heading(f"{name}: where it looked")
    shown = []
    for score in telling_cases(scores):
        heat = looked_at(model.bundle, read_case(by_key[score.key]), CLASSES.index(score.predicted))
        right = "rightly" if score.predicted == score.label else "wrongly"
        sure = max(score.probabilities)
        shown.append((heat, f"{score.key}: {score.label}, {right} called {score.predicted} ({sure:.0%})"))
    page.images(
        shown,
        caption="Grad-CAM (Selvaraju et al. 2017) of the class that was given: the brighter, the more it "
        "spoke for it. Cyan: the true lesion. Of each class the surest right and the surest wrong answer.",
    )


def read_history(folder: Path) -> list[dict[str, Any]]:
    """Read the epochs of the training that made a bundle, in order; empty where none are kept.

    Each has what `sonoloop.jobs.events.EpochDone` has.
    """
    for name in _HISTORIES:
        try:
            text = (folder / name).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError):
            continue
        epochs = {e["epoch"]: e for e in _entries(text) if isinstance(e.get("epoch"), int) and "dice" in e}
        if epochs:
            # a run that was gone on with tells of an epoch again
            return [epochs[number] for number in sorted(epochs)]
    return []


def _entries(text: str) -> list[dict[str, Any]]:
    try:
        values = json.loads(text)
    except ValueError:
        values = []
        for line in text.splitlines():
            try:
                values.append(json.loads(line))
            except ValueError:
                continue  # the last line of a run that was killed
    if isinstance(values, dict):
        values = [values]
    return [value for value in values if isinstance(value, dict)]


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
    chosen = columns.select(columns.classed)
    positive = chosen.is_malignant
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
    chosen = columns.select(columns.classed)
    if len(chosen) == 0:
        return None
    positive = chosen.is_malignant
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


def grad_cam(network: nn.Module, image: torch.Tensor, target: int) -> torch.Tensor:
    """Weigh the last feature map by what it does to a class (Selvaraju et al., ICCV 2017).

    The map is found, not named: of all outputs of modules with more than one position, the last that the
    class logits depend on. In a segmenter with a class head that is the encoder's last, in a classifier the
    one before the pooling.
    """
    maps: list[torch.Tensor] = []

    def keep(module: nn.Module, inputs: Any, output: Any) -> None:  # noqa: ANN401 - whatever modules give
        if isinstance(output, torch.Tensor) and output.ndim == 4 and output[0, 0].numel() > 1:
            maps.append(output)

    handles = [module.register_forward_hook(keep) for module in network.modules()]
    try:
        with torch.enable_grad():
            # a gradient flows whether or not the weights want one
            output = network(image.detach().clone().requires_grad_())
            logits = torch.as_tensor(output[-1] if isinstance(output, tuple) else output)
            gradients = torch.autograd.grad(logits[0, target], maps, allow_unused=True) if maps else ()
    finally:
        for handle in handles:
            handle.remove()
    seen = [(one, gradient) for one, gradient in zip(maps, gradients, strict=True) if gradient is not None]
    if not seen:
        raise ValueError("the class logits depend on no feature map")
    features, gradient = (tensor.detach().float() for tensor in seen[-1])
    heat = (gradient.mean((2, 3), keepdim=True) * features).sum(1, keepdim=True).relu()
    heat = F.interpolate(heat, image.shape[-2:], mode="bilinear", align_corners=False)[0, 0]
    return heat / heat.max().clamp(min=1e-12)


def worst_cases(scores: Sequence[Score], count: int = 12) -> list[Score]:
    """Pick the images with the lowest Dice; of equal ones, those of which the model was surest."""
    return sorted(scores, key=lambda score: (score.dice, -score.expected_dice))[:count]


def telling_cases(scores: Sequence[Score]) -> list[Score]:
    """Pick, of each class, the image that was right and the one that was wrong with most confidence."""
    picked = []
    for label in CLASSES:
        own = sorted((s for s in scores if s.label == label), key=lambda score: -max(score.probabilities))
        for right in (True, False):
            picked += [s for s in own if (s.predicted == s.label) is right][:1]
    return picked


def _in_colour(case: Case) -> NDArray[np.uint8]:
    return np.repeat(to_display(case.frame.pixels)[..., None], 3, axis=-1)


def outlined(case: Case, predicted: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """Draw a case with both outlines, uint8 (H, W, 3); see `LEGEND`."""
    picture = _in_colour(case)
    thickness = max(1, round(max(case.frame.shape) / 200))
    if case.mask.any():
        rows, columns, ring = outline(case.mask, thickness)
        picture[rows, columns][ring] = TRUTH
    if predicted.any():
        rows, columns, ring = outline(predicted, thickness)
        down, across = np.indices(ring.shape)
        dashes = (down + across) // (5 * thickness) % 2 == 0
        picture[rows, columns][ring & dashes] = PREDICTION
    return picture


def looked_at(bundle: Bundle, case: Case, target: int) -> NDArray[np.uint8]:
    """Draw what spoke for a class over an image, uint8 (H, W, 3): the brighter and yellower, the more."""
    box = Letterbox(*case.frame.shape, bundle.card.spec.size)
    square = box.apply(torch.from_numpy(to_unit(case.frame.pixels)))
    device = next(bundle.network.parameters()).device
    heat = grad_cam(bundle.network, normalise(square[None, None]).to(device), target).cpu()
    share = box.invert(heat[None])[0].clamp(0, 1).numpy()[..., None]
    grey = _in_colour(case).astype(np.float32)
    colours = colormaps["inferno"](share[..., 0])[..., :3] * 255
    blended = np.asarray((1 - 0.6 * share) * grey + 0.6 * share * colours)
    if case.mask.any():
        rows, columns, ring = outline(case.mask, max(1, round(max(case.frame.shape) / 300)))
        blended[rows, columns][ring] = TRUTH
    picture: NDArray[np.uint8] = np.rint(blended).astype(np.uint8)
    return picture
