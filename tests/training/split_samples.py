"""Samples without files, and what must hold of their split."""

from __future__ import annotations

from pathlib import Path

from sonoloop_training.datasets import Sample
from sonoloop_training.splits import PARTS

CLASSES = ("normal", "benign", "malignant")


def make_samples(groups=60, *, dataset="own", scanners=("A",), facts=None):
    """Two images a group, each third group of one class."""
    return [
        Sample(
            name=f"{number}-{view}",
            dataset=dataset,
            image=Path(f"{number}-{view}.png"),
            masks=(),
            label=CLASSES[number % 3],
            group=f"{dataset}/{number}",
            scanner=scanners[number % len(scanners)],
            facts=facts(number) if facts else {},
        )
        for number in range(groups)
        for view in "ab"
    ]


def names(parts):
    return {part: sorted(f"{s.dataset}/{s.name}" for s in parts[part]) for part in PARTS}


def groups(parts):
    return [{s.group for s in parts[part]} for part in PARTS]


def assert_apart(parts):
    train, validation, test = groups(parts)
    assert not (train & validation or train & test or validation & test)
    assert train
    assert test
