"""`report.html` of a check: figures, findings, and the images they are about."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sonoloop.imaging.io import read_study
from sonoloop.imaging.overlay import lesion_colour, outline, to_display
from sonoloop.values import CLASSES
from sonoloop_training.checking.figures import draw_areas, draw_places, draw_sizes
from sonoloop_training.checking.findings import Finding
from sonoloop_training.checking.inspect_sample import Inspection
from sonoloop_training.checking.summary import summary_rows
from sonoloop_training.checking.survey import Survey
from sonoloop_training.page import Page

MAX_NAMES = 12
_MONTAGE = 8
_GROUPS = 20
_MEMBERS = 6
_OVERLAYS = 12
_SIDE = 240
_SEVERITIES = {"mend": "to mend", "heed": "to heed", "note": "note"}


def build_report(
    data: Path, surveys: Sequence[Survey], findings: Sequence[Finding], *, refused: Iterable[str]
) -> str:
    """Return the report as one HTML document.

    It names the user's own files and shows their images, and so stays with them.

    Parameters
    ----------
    data : pathlib.Path
        The folder that was checked.
    surveys : sequence of Survey
        The datasets.
    findings : sequence of Finding
        The worst first.
    refused : iterable of str
        Datasets that could not be listed.
    """
    page = Page(f"Check of {data.resolve().name}")
    page.paragraph(
        "This report names files and shows images of the dataset: treat it as confidentially as the dataset."
    )
    page.heading("Findings")
    if findings:
        page.table(
            ("", "dataset", "count", "what", "which", "what to do"),
            [
                (
                    _SEVERITIES[finding.severity],
                    finding.dataset,
                    len(finding.names) or "",
                    finding.what,
                    name_some(finding.names),
                    finding.advice,
                )
                for finding in findings
            ],
        )
    else:
        page.paragraph("Nothing to mend and nothing to note.")
    for name in refused:
        page.paragraph(f"{name} could not be listed and is not shown below.")
    for survey in surveys:
        _add_survey(page, survey)
    return page.to_html()


def name_some(names: Sequence[str], most: int = MAX_NAMES) -> str:
    """Name the first few, and say how many more there are."""
    more = f"; and {len(names) - most} more" if len(names) > most else ""
    return "; ".join(names[:most]) + more


def _add_survey(page: Page, survey: Survey) -> None:
    name = survey.source.dataset
    page.heading(f"{name}: what it holds")
    page.table(("", *CLASSES, "all"), summary_rows(survey))
    if not survey.readable:
        return
    for label in CLASSES:
        shown = _spread([i for i in survey.readable if i.sample.label == label], _MONTAGE)
        if shown:
            caption = label if label == "normal" else f"{label}, lesions outlined"
            page.images([_show(item) for item in shown], caption=caption, side=_SIDE)
    page.figure(draw_sizes(survey), f"{name}: sizes of the images")
    page.figure(draw_areas(survey), f"{name}: how much of the frame lesions cover, images with a lesion only")
    page.figure(draw_places(survey), f"{name}: where in the frame lesions lie")
    _add_groups(page, survey)
    _add_overlays(page, survey)


def _add_groups(page: Page, survey: Survey) -> None:
    page.heading(f"{survey.source.dataset}: near-duplicates")
    if not survey.groups:
        page.paragraph("None were found.")
        return
    sizes = Counter(map(len, survey.groups))
    told = ", ".join(f"{count} of {size}" for size, count in sorted(sizes.items()))
    shown = sorted(survey.groups, key=lambda members: len(_labels(survey, members)) == 1)[:_GROUPS]
    capped = f" The first {len(shown)} are shown." if len(shown) < len(survey.groups) else ""
    page.paragraph(
        f"{len(survey.groups)} groups ({told} images). groups.json lists them all; contradictions in class "
        f"come first.{capped}"
    )
    mirrored = {frozenset((pair.one, pair.other)) for pair in survey.pairs if pair.mirrored}
    for number, members in enumerate(shown, start=1):
        parts = [f"group {number}"]
        if len(_labels(survey, members)) > 1:
            parts.append("contradicts itself in class")
        if any(pair <= set(members) for pair in mirrored):
            parts.append("mirrored")
        if len(members) > _MEMBERS:
            parts.append(f"{_MEMBERS} of {len(members)} shown")
        page.images(
            [_show(survey.inspections[member]) for member in members[:_MEMBERS]],
            caption=", ".join(parts),
            side=_SIDE,
        )


def _add_overlays(page: Page, survey: Survey) -> None:
    flagged = [item for item in survey.readable if item.overlay]
    page.heading(f"{survey.source.dataset}: burned-in overlays")
    if not flagged:
        page.paragraph("None were found.")
        return
    page.paragraph(
        f"Callipers, text or marks look burned into {len(flagged)} of {len(survey.readable)} images; "
        f"{min(len(flagged), _OVERLAYS)} are shown."
    )
    page.images([_show(item, outlined=False) for item in _spread(flagged, _OVERLAYS)], side=_SIDE)


def _labels(survey: Survey, members: Iterable[int]) -> set[str]:
    return {survey.inspections[member].sample.label for member in members}


def _spread(items: Sequence[Inspection], most: int) -> list[Inspection]:
    """Return at most so many, evenly from the whole."""
    if len(items) <= most:
        return list(items)
    return [items[place] for place in np.linspace(0, len(items) - 1, most).astype(int)]


def _show(item: Inspection, *, outlined: bool = True) -> tuple[NDArray[np.uint8], str]:
    """Return an image with its lesions outlined, and what to write below it."""
    pixels = read_study(item.sample.image).frames[0].pixels
    picture = np.repeat(to_display(pixels)[..., None], 3, axis=-1)
    if outlined and item.lesions and not item.faults:
        # thick enough to be seen once the image is small
        rows, columns, ring = outline(item.sample.read()[1], max(2, max(pixels.shape) // 150))
        picture[rows, columns][ring] = lesion_colour(1)
    return picture, f"{item.sample.name} ({item.sample.label})"
