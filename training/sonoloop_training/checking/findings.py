"""What speaks against training on a dataset as it is, the worst first."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from sonoloop.jobs.events import Finding
from sonoloop.values import CLASSES
from sonoloop_training.checking.survey import FaultKind, Inspection, SharedPair, Source, Survey

Severity = Literal["mend", "heed", "note"]

# classes whose shares of overlays differ by more invite a classifier to take the shortcut
_SHORTCUT = 0.10
_ADVICE: dict[FaultKind, tuple[Severity, str, str]] = {
    "image unreadable": ("mend", "images cannot be read", "copy or export them again, or remove them"),
    "mask unreadable": ("mend", "masks cannot be read", "copy or export them again"),
    "mask missing": ("mend", "images with a lesion have no mask", "draw the mask, or remove the image"),
    "mask empty": ("mend", "masks of a lesion are empty", "draw the lesion, or correct the class"),
    "mask of another size": ("mend", "masks have another size than their image", "export them again"),
    "mask on normal": ("mend", "normal images have a mask", "correct the class, or empty the mask"),
    "mask not binary": (
        "heed",
        "masks have more than two levels",
        "every level above 0 is taken as lesion; save them with two",
    ),
}


def not_listed(source: Source) -> Finding:
    """Say that a dataset could not be listed, and why."""
    return Finding(
        severity="mend",
        dataset=source.dataset,
        what="the dataset could not be listed",
        advice="mend it, and check again",
        names=(source.error,),
    )


def findings_of(survey: Survey) -> list[Finding]:
    """List what a survey found, the worst first."""
    found = [
        *_faults(survey),
        *_contradictions(survey),
        *_leaks(survey),
        *_patients(survey),
        *_overlays(survey),
        *_notes(survey),
    ]
    return sort_findings(found)


def shared_images(surveys: Sequence[Survey], pairs: Iterable[SharedPair]) -> list[Finding]:
    """Say which images of one dataset are in another too; no group keeps them together."""
    by_datasets: dict[tuple[int, int], list[str]] = defaultdict(list)
    for pair in pairs:
        places = (pair.one, pair.other)
        names = [
            f"{surveys[home].source.dataset}/{surveys[home].inspections[place].sample.name}"
            for home, place in places
        ]
        by_datasets[pair.one[0], pair.other[0]].append(", ".join(names) + " (mirrored)" * pair.mirrored)
    return [
        Finding(
            severity="mend",
            dataset=" and ".join(surveys[home].source.dataset for home in homes),
            what="images are near-duplicates of images of the other dataset",
            advice="one may train and the other test, and training leaves out only copies that it knows by "
            "their fingerprints; keep each image in one dataset",
            names=tuple(names),
        )
        for homes, names in sorted(by_datasets.items())
    ]


def sort_findings(findings: Iterable[Finding]) -> list[Finding]:
    """Put the worst first, and keep the order among equals."""
    order: tuple[Severity, ...] = ("mend", "heed", "note")
    return sorted(findings, key=lambda finding: order.index(finding.severity))


def _faults(survey: Survey) -> list[Finding]:
    by_kind: dict[FaultKind, list[str]] = defaultdict(list)
    for item in survey.inspections:
        for fault in item.faults:
            name = item.sample.name
            by_kind[fault.kind].append(f"{name}: {fault.detail}" if fault.detail else name)
    return [
        Finding(
            severity=severity,
            dataset=survey.source.dataset,
            what=what,
            advice=advice,
            names=tuple(by_kind[kind]),
        )
        for kind, (severity, what, advice) in _ADVICE.items()
        if kind in by_kind
    ]


def _contradictions(survey: Survey) -> list[Finding]:
    names = tuple(
        ", ".join(survey.inspections[member].sample.name for member in members)
        for members in survey.groups
        if len({survey.inspections[member].sample.label for member in members}) > 1
    )
    if not names:
        return []
    return [
        Finding(
            severity="mend",
            dataset=survey.source.dataset,
            what="groups of near-duplicates contradict themselves in class",
            advice="decide which class is right; training leaves these images out",
            names=names,
        )
    ]


def _leaks(survey: Survey) -> list[Finding]:
    split = survey.split_groups
    names = tuple(
        f"{survey.inspections[pair.one].sample.name}, {survey.inspections[pair.other].sample.name}"
        + (" (mirrored)" if pair.mirrored else "")
        for pair in survey.pairs
        if split and split[pair.one] != split[pair.other]
    )
    if not names:
        return []
    source = survey.source
    if source.listed:
        homes, home = "groups of the list", f"group of {source.listed.name}"
    elif all(sample.group == f"{sample.dataset}/{sample.patient}" for sample in source.samples):
        homes, home = "patients", "patient"
    else:
        homes, home = "groups of the table", "group of the table"
    return [
        Finding(
            severity="mend",
            dataset=source.dataset,
            what=f"pairs of near-duplicates are in two {homes}",
            advice=f"one may train and the other test; put both into one {home}",
            names=names,
        )
    ]


def _patients(survey: Survey) -> list[Finding]:
    labels: dict[str, dict[str, str]] = defaultdict(dict)
    for item in survey.inspections:
        if item.sample.patient:
            labels[item.sample.patient].setdefault(item.sample.label, item.sample.name)
    names = tuple(
        f"{patient}: {', '.join(f'{name} {label}' for label, name in found.items())}"
        for patient, found in labels.items()
        if len(found) > 1
    )
    if not names:
        return []
    return [
        Finding(
            severity="heed",
            dataset=survey.source.dataset,
            what="patients have images of several classes",
            advice="check that each has lesions of both kinds",
            names=names,
        )
    ]


def overlay_shares(survey: Survey) -> dict[str, float]:
    """Return the share of images with an overlay, of each class that is there."""
    shares: dict[str, float] = {}
    for label in CLASSES:
        flags = [item.overlay for item in survey.readable if item.sample.label == label]
        if flags:
            shares[label] = sum(flags) / len(flags)
    return shares


def _overlays(survey: Survey) -> list[Finding]:
    shares = overlay_shares(survey)
    if not any(shares.values()):
        return []
    told = ", ".join(f"{share:.0%} of the {label}" for label, share in shares.items())
    what = f"callipers, text or marks look burned into {told} images"
    if max(shares.values()) - min(shares.values()) <= _SHORTCUT:
        return [Finding(severity="note", dataset=survey.source.dataset, what=what)]
    return [
        Finding(
            severity="heed",
            dataset=survey.source.dataset,
            what=what,
            advice="a classifier can tell the class by them and not by the lesion: compare its figures with "
            "and without overlays, and draw overlays on all classes while training",
        )
    ]


def _notes(survey: Survey) -> list[Finding]:
    notes = []
    if survey.groups:
        images = sum(map(len, survey.groups))
        mirrored = sum(pair.mirrored for pair in survey.pairs)
        told = f", {mirrored} of the pairs mirrored" if mirrored else ""
        notes.append(
            f"{images} images have a near-duplicate, in {len(survey.groups)} groups{told}; "
            "split by group, never by image"
        )
    notes += [
        f"there is no {label} image; models trained on it alone say nothing of that class"
        for label in CLASSES
        if all(item.sample.label != label for item in survey.inspections)
    ]
    return [Finding(severity="note", dataset=survey.source.dataset, what=note) for note in notes]


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
