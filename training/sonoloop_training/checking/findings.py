"""What speaks against training on a dataset as it is, the worst first."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from typing import Literal

from sonoloop.jobs.events import Finding
from sonoloop.values import CLASSES
from sonoloop_training.checking.survey import SharedPair, Source, Survey
from sonoloop_training.datasets.mask_check import FaultKind

Severity = Literal["mend", "heed", "note"]

# classes whose shares of overlays differ by more invite a classifier to take the shortcut
_SHORTCUT = 0.10
_SHORTCUT_ADVICE = (
    "a classifier can tell the class by them and not by the lesion: compare its figures with and without "
    "overlays, and draw overlays on all classes while training"
)
_LOOK = "look whether they are what was drawn"
_ADVICE: dict[FaultKind, tuple[Severity, str, str]] = {
    "image unreadable": ("mend", "images cannot be read", "copy or export them again, or remove them"),
    "mask unreadable": ("mend", "masks cannot be read", "copy or export them again"),
    "mask missing": ("mend", "images with a lesion have no mask", "draw the mask, or remove the image"),
    "mask empty": ("mend", "masks of a lesion are empty", "draw the lesion, or correct the class"),
    "mask of another size": ("mend", "masks have another size than their image", "export them again"),
    "mask on normal": ("mend", "normal images have a mask", "correct the class, or empty the mask"),
    "mask of several pages": ("mend", "masks have several pages", "save the one of the image alone"),
    "mask is the image": ("mend", "masks are the image itself", "give the mask in its place"),
    "mask along the border": (
        "mend",
        "masks lie along the border of the frame",
        "what is set is taken as lesion: invert them, or draw them again",
    ),
    "mask over half": ("heed", "masks cover more than half of the frame", _LOOK),
    "mask not binary": (
        "heed",
        "masks have more than two levels",
        "every level above 0 is taken as lesion; save them with two",
    ),
    "mask file empty": ("heed", "one of several masks is empty", "draw the lesion, or remove the file"),
    "mask an outline": ("heed", "masks are outlines", "what is set is taken as lesion: fill them"),
    "mask in specks": ("heed", "masks lie in many regions", _LOOK),
    "mask tiny": ("heed", "masks have next to no pixels", _LOOK),
    "mask of another image": (
        "heed",
        "masks are those of another image too",
        "one of them has the wrong mask, unless both show one scene",
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
    kinds = (_faults, _contradictions, _leaks, _patients, _overlays, _notes)
    return sort_findings(finding for find in kinds for finding in find(survey))


def shared_images(surveys: Sequence[Survey], pairs: Iterable[SharedPair]) -> list[Finding]:
    """Say which images of one dataset are in another too; no group keeps them together."""
    by_datasets: dict[tuple[int, int], list[str]] = defaultdict(list)
    for pair in pairs:
        samples = [surveys[number].inspections[place].sample for number, place in (pair.one, pair.other)]
        names = [sample.key for sample in samples]
        by_datasets[pair.one[0], pair.other[0]].append(", ".join(names) + " (mirrored)" * pair.mirrored)
    return [
        Finding(
            severity="mend",
            dataset=" and ".join(surveys[number].source.dataset for number in numbers),
            what="images are near-duplicates of images of the other dataset",
            advice="one may train and the other test, and training leaves out only copies that it knows by "
            "their fingerprints; keep each image in one dataset",
            names=tuple(names),
        )
        for numbers, names in sorted(by_datasets.items())
    ]


def sort_findings(findings: Iterable[Finding]) -> list[Finding]:
    """Put the worst first, and keep the order among equals."""
    order: tuple[Severity, ...] = ("mend", "heed", "note")
    return sorted(findings, key=lambda finding: order.index(finding.severity))


def _faults(survey: Survey) -> Iterator[Finding]:
    by_kind: dict[FaultKind, list[str]] = defaultdict(list)
    for item in survey.inspections:
        for fault in item.faults:
            name = item.sample.name
            by_kind[fault.kind].append(f"{name}: {fault.detail}" if fault.detail else name)
    for kind, (severity, what, advice) in _ADVICE.items():
        yield from _about(survey, severity, what, advice, by_kind[kind])


def _about(
    survey: Survey, severity: Severity, what: str, advice: str, names: Iterable[str]
) -> Iterator[Finding]:
    """Give a finding if it is about any image."""
    if found := tuple(names):
        yield Finding(severity=severity, dataset=survey.source.dataset, what=what, advice=advice, names=found)


def _contradictions(survey: Survey) -> Iterator[Finding]:
    groups = [[survey.inspections[member].sample for member in members] for members in survey.groups]
    yield from _about(
        survey,
        "mend",
        "groups of near-duplicates contradict themselves in class",
        "decide which class is right; training leaves these images out",
        (
            ", ".join(sample.name for sample in group)
            for group in groups
            if len({sample.label for sample in group}) > 1
        ),
    )


def _leaks(survey: Survey) -> Iterator[Finding]:
    source, split = survey.source, survey.split_groups
    if source.listed:
        groups, group = "groups of the list", f"group of {source.listed.name}"
    elif all(sample.group == f"{sample.dataset}/{sample.patient}" for sample in source.samples):
        groups, group = "patients", "patient"
    else:
        groups, group = "groups of the table", "group of the table"
    yield from _about(
        survey,
        "mend",
        f"pairs of near-duplicates are in two {groups}",
        f"one may train and the other test; put both into one {group}",
        (
            f"{survey.inspections[pair.one].sample.name}, {survey.inspections[pair.other].sample.name}"
            + " (mirrored)" * pair.mirrored
            for pair in survey.pairs
            if split and split[pair.one] != split[pair.other]
        ),
    )


def _patients(survey: Survey) -> Iterator[Finding]:
    labels: dict[str, dict[str, str]] = defaultdict(dict)
    for item in survey.inspections:
        if item.sample.patient:
            labels[item.sample.patient].setdefault(item.sample.label, item.sample.name)
    yield from _about(
        survey,
        "heed",
        "patients have images of several classes",
        "check that each has lesions of both kinds",
        (
            f"{patient}: {', '.join(f'{name} {label}' for label, name in found.items())}"
            for patient, found in labels.items()
            if len(found) > 1
        ),
    )


def _overlays(survey: Survey) -> Iterator[Finding]:
    shares: dict[str, float] = {}
    for label in CLASSES:
        flags = [item.overlay for item in survey.readable if item.sample.label == label]
        if flags:
            shares[label] = sum(flags) / len(flags)
    if not any(shares.values()):
        return
    told = ", ".join(f"{share:.0%} of the {label}" for label, share in shares.items())
    shortcut = max(shares.values()) - min(shares.values()) > _SHORTCUT
    yield Finding(
        severity="heed" if shortcut else "note",
        dataset=survey.source.dataset,
        what=f"callipers, text or marks look burned into {told} images",
        advice=_SHORTCUT_ADVICE if shortcut else "",
    )


def _notes(survey: Survey) -> Iterator[Finding]:
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
    for note in notes:
        yield Finding(severity="note", dataset=survey.source.dataset, what=note)
