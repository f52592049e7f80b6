"""The report of an evaluation: one HTML page with figures and cases, for people."""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from typing import Any

import numpy as np

from sonoloop.jobs.events import Event, Progress
from sonoloop.models.predictor import Predictor
from sonoloop.values import CLASSES
from sonoloop_training.datasets import Sample
from sonoloop_training.evaluation import plots
from sonoloop_training.evaluation.cases_ import read_case
from sonoloop_training.evaluation.columns import to_columns
from sonoloop_training.evaluation.model import Judged, read_history
from sonoloop_training.evaluation.pictures import LEGEND, looked_at, outlined, telling_cases, worst_cases
from sonoloop_training.evaluation.scores_ import Score
from sonoloop_training.evaluation.wording import TITLES, write_figure
from sonoloop_training.page import Page

_INTERVALS = "In brackets the 95 % bootstrap interval over groups (patients, or near-duplicates)."


def write_report(
    results: Mapping[str, Any],
    models: Sequence[Judged],
    predictors: Sequence[Predictor],
    scores: Sequence[Sequence[Score]],
    samples: Sequence[Sample],
) -> Generator[Event, None, str]:
    """Draw the report.

    Parameters
    ----------
    results : mapping
        See `sonoloop_training.evaluation.evaluate`.
    models : sequence of Judged
        What was judged.
    predictors : sequence of Predictor
        The same, ready to predict the cases that are shown.
    scores : sequence
        Of each model, an entry an image.
    samples : sequence of Sample
        Where those images are read again.

    Yields
    ------
    Event
        `Progress`.

    Returns
    -------
    str
        HTML that needs nothing else.
    """
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
    by_key = {f"{sample.dataset}/{sample.name}": sample for sample in samples}
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
        [TITLES[key], *(write_figure(column.get(key)) for column in columns), _count(columns[0].get(key))]
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
        key for key in TITLES if any(part.get(key) for parts in strata.values() for part in parts.values())
    ]
    rows = [
        [kind, value, part["images"], *(write_figure(part.get(key)) for key in shown)]
        for kind, parts in strata.items()
        for value, part in parts.items()
    ]
    page.table(
        ["by", "part", "images", *(TITLES[key] for key in shown)],
        rows,
        caption=f"{name}. Sizes are shares of the image: small below 3.5 %, large from 9 % on. {_INTERVALS}",
    )


def _draw_figures(page: Page, name: str, model: Judged, scores: Sequence[Score]) -> None:
    columns, heads = to_columns(scores), model.bundle.card.spec.heads
    history = read_history(model.folder)
    if history:
        page.figure(plots.training_curves(history), "How the training went, epoch by epoch.")
    drawn = []
    if "lesion" in heads:
        drawn += [
            (plots.dice_by_size(columns), "Dice of each image with a lesion, by the lesion's size."),
            (
                plots.risk_coverage_figure(columns),
                "Keeping only the masks that are trusted most: the higher a line lies above its right end, "
                "the better its ranking tells good masks from bad. Empty masks are apart. The band is the "
                "95 % interval over groups.",
            ),
        ]
    if "classes" in heads:
        drawn += [
            (plots.roc_figure(columns), "ROC curve of malignant against benign."),
            (
                plots.reliability_figure(columns),
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
    page: Page, name: str, model: Judged, scores: Sequence[Score], by_key: Mapping[str, Sample]
) -> None:
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


def _count(figure: Mapping[str, Any] | None) -> object:
    return figure["n"] if figure else "-"
