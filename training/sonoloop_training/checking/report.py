"""The check of a folder: a report of what its datasets hold and what must be mended, and lists of groups."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from sonoloop.atomic import write_together
from sonoloop.errors import TrainingError
from sonoloop.imaging.overlay import lesion_colour, outline, to_display
from sonoloop.jobs.events import Checked, Event, Finding, Progress
from sonoloop.regular_files import read_regular
from sonoloop.values import CLASSES
from sonoloop_training.checking.findings import (
    findings_of,
    not_listed,
    shared_images,
    sort_findings,
)
from sonoloop_training.checking.survey import (
    Inspection,
    Survey,
    find_shared,
    find_sources,
    summarise,
    summary_rows,
    survey_source,
)
from sonoloop_training.page import CLASS_COLOURS, Page, new_figure

REPORT = "report.html"
GROUPS = "groups.json"
_SOURCE = "computed by `sonoloop data check`"
# of a report that is replaced
_MOST_BYTES = 1 << 30
_SEVERITIES = {"mend": "to mend", "heed": "to heed", "note": "note"}
# shown at most: names of a finding, images of a class, groups and images of each, images with an overlay
_NAMES = 12
_MONTAGE = 8
_GROUPS = 20
_MEMBERS = 6
_OVERLAYS = 12
# longest side of an image in the page
_SIDE = 240


def check(data: Path, out: Path | None = None) -> Iterator[Event]:
    """Say what a folder of datasets holds and what must be mended."""
    sources = find_sources(data)
    folder = _choose_folder(data, out)
    surveys: list[Survey] = []
    for source in sources:
        if source.samples:
            survey = yield from survey_source(source)
            surveys.append(survey)
    refused = [source for source in sources if not source.samples]
    shared = yield from find_shared(surveys)
    findings = sort_findings(
        [
            *map(not_listed, refused),
            *(finding for survey in surveys for finding in findings_of(survey)),
            *shared_images(surveys, shared),
        ]
    )
    yield Progress(stage="Writing the report", done=0, total=1)
    files = {folder / REPORT: build_report(data, surveys, findings, refused=[s.dataset for s in refused])}
    for survey in surveys:
        own = folder if len(surveys) == 1 else folder / survey.source.dataset
        files[own / GROUPS] = list_groups(survey)
    _write(files)
    yield Checked(
        report=str(folder / REPORT),
        groups=[str(path) for path in files if path.name == GROUPS],
        datasets=[_describe(survey) for survey in surveys],
        findings=list(findings),
        mend=sum(finding.severity == "mend" for finding in findings),
    )


def list_groups(survey: Survey) -> str:
    """Return the near-duplicates as JSON, in the form that `sonoloop_training.datasets.groups` reads.

    Images without a near-duplicate are listed where something is burned in.
    """
    groups = []
    grouped = {member for members in survey.groups for member in members}
    alone = ((place,) for place in range(len(survey.inspections)) if place not in grouped)
    for members in [*survey.groups, *alone]:
        items = [survey.inspections[member] for member in members]
        entry: dict[str, Any] = {"images": [item.sample.name for item in items]}
        if len({item.sample.label for item in items}) > 1:
            entry["conflicting_classes"] = True
        if any(item.overlay for item in items):
            entry["overlay"] = ["detected"]
        if len(entry) > 1 or len(items) > 1:
            groups.append(entry)
    note = "images not listed are alone in their group and have no flag"
    return json.dumps({"source": _SOURCE, "note": note, "groups": groups}, indent=1) + "\n"


def _describe(survey: Survey) -> dict[str, Any]:
    return {
        "dataset": survey.source.dataset,
        "path": str(survey.source.root),
        "classes": {name: asdict(part) for name, part in summarise(survey).items()},
        "near_duplicates": [
            [survey.inspections[member].sample.name for member in members] for members in survey.groups
        ],
        "table": summary_rows(survey),
    }


def _choose_folder(data: Path, out: Path | None) -> Path:
    inside = data.resolve()
    folder = out or Path(f"{inside.name}-check")
    if out is None and folder.resolve().is_relative_to(inside):
        folder = inside.parent / folder.name
    if folder.resolve().is_relative_to(inside):
        raise TrainingError(f"{folder} lies in the dataset, which stays as it is; give another --out")
    if folder.exists() and not folder.is_dir():
        raise TrainingError(f"{folder} is a file; give a folder as --out")
    marks = {REPORT: "Made by Sonoloop", GROUPS: _SOURCE}
    for path in [*folder.glob(REPORT), *folder.glob(GROUPS), *folder.glob(f"*/{GROUPS}")]:
        # decoded loosely: whatever it is, it is only looked at
        try:
            text = read_regular(path, most=_MOST_BYTES).decode(errors="replace")
        except OSError as error:
            raise TrainingError(
                f"{path} cannot be replaced ({error.strerror}); give another --out"
            ) from error
        if marks[path.name] not in text:
            raise TrainingError(f"{path} is none that the check wrote; move it away, or give another --out")
    return folder


def _write(files: dict[Path, str]) -> None:
    try:
        for path in files:
            path.parent.mkdir(parents=True, exist_ok=True)
        write_together(files)
    except OSError as error:
        raise TrainingError(
            f"{next(iter(files)).parent} cannot be written ({error.strerror}); give another --out"
        ) from error


def build_report(
    data: Path, surveys: Sequence[Survey], findings: Sequence[Finding], *, refused: Iterable[str]
) -> str:
    """Return the report as one HTML document.

    It names the user's own files and shows their images, and so stays with them.
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
                    _name_some(finding.names),
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


def _name_some(names: Sequence[str]) -> str:
    """Name the first few, and say how many more there are."""
    more = f"; and {len(names) - _NAMES} more" if len(names) > _NAMES else ""
    return "; ".join(names[:_NAMES]) + more


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
    pixels = item.sample.study().frames[0].pixels
    picture = np.repeat(to_display(pixels)[..., None], 3, axis=-1)
    if outlined and item.lesions and all(fault.usable for fault in item.faults):
        # thick enough to be seen once the image is small
        rows, columns, ring = outline(item.sample.read()[1], max(2, max(pixels.shape) // 150))
        picture[rows, columns][ring] = lesion_colour(1)
    return picture, f"{item.sample.name} ({item.sample.label})"


def draw_sizes(survey: Survey) -> Figure:
    """Draw histograms of widths and heights in pixels."""
    sides = np.array([item.shape for item in survey.readable if item.shape])
    bins = np.linspace(sides.min() - 0.5, sides.max() + 0.5, 31).tolist()
    with new_figure() as figure:
        axes = figure.subplots()
        axes.hist(sides[:, 1], bins, histtype="step", color="#0072B2", linewidth=1.6, label="width")
        axes.hist(
            sides[:, 0], bins, histtype="step", color="#D55E00", linewidth=1.6, linestyle="--", label="height"
        )
        axes.set(xlabel="side (px)", ylabel="images")
        axes.legend()
    return figure


def draw_areas(survey: Survey) -> Figure:
    """Draw a histogram of the share of the frame that lesions cover, one line a class."""
    with new_figure() as figure:
        axes = figure.subplots()
        areas = {
            label: [100 * i.area for i in survey.readable if i.sample.label == label and i.lesions]
            for label in CLASSES
        }
        highest = max((max(found) for found in areas.values() if found), default=1.0)
        bins = np.linspace(0, highest, 31).tolist()
        for style, (label, found) in zip((":", "-", "--"), areas.items(), strict=True):
            if found:
                axes.hist(
                    found,
                    bins,
                    histtype="step",
                    color=CLASS_COLOURS[label],
                    linewidth=1.6,
                    linestyle=style,
                    label=label,
                )
        axes.set(xlabel="area of the lesions (% of the frame)", ylabel="images")
        if axes.get_legend_handles_labels()[0]:
            axes.legend()
    return figure


def draw_places(survey: Survey) -> Figure:
    """Draw in how many of the images with a lesion it covers each place of the frame, one panel a class."""
    places = {
        label: np.stack(found)
        for label in CLASSES
        if (found := [i.places for i in survey.readable if i.sample.label == label and i.places is not None])
    }
    with new_figure(width=3.6 * max(len(places), 1) + 0.8, height=3.2) as figure:
        shares = {label: 100 * masks.mean(0) for label, masks in places.items()}
        highest = max((float(share.max()) for share in shares.values()), default=1.0)
        panels = figure.subplots(1, max(len(shares), 1), squeeze=False)[0]
        for axes, (label, share) in zip(panels, shares.items(), strict=False):
            shown = axes.imshow(share, cmap="viridis", vmin=0, vmax=highest, extent=(0, 100, 100, 0))
            axes.set(title=label, xlabel="across (% of the width)", ylabel="depth (% of the height)")
            if axes is panels[-1]:
                figure.colorbar(shown, ax=axes, label="images with a lesion there (%)")
    return figure
