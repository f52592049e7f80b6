"""Groups to training, validation and test."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Sequence
from typing import Literal, get_args

from sonoloop_training.datasets import Sample

Part = Literal["train", "validation", "test"]
PARTS: tuple[Part, ...] = get_args(Part)


def split(samples: Sequence[Sample], *, validation: float, test: float, key: str) -> dict[Part, list[Sample]]:
    """Split by group, within each dataset and class, in the order of a keyed hash.

    The first `test` share of a stratum's groups is for testing, the next `validation` share for validating.
    For the same samples, in any order, the same key gives the same split. It is a split of a closed dataset:
    a group that is added can move another, which is why a training writes down who was where.

    Parameters
    ----------
    samples : sequence of Sample
        All of them.
    validation, test : float
        Shares of the groups, in [0, 1), together below 1.
    key : str
        Another key gives another split.

    Raises
    ------
    ValueError
        If the shares are out of range.
    """
    check_shares(validation, test)
    members: dict[str, list[Sample]] = defaultdict(list)
    for sample in samples:
        members[sample.group].append(sample)
    strata: dict[tuple[str, str], list[str]] = defaultdict(list)
    for group, inside in members.items():
        worst = "malignant" if any(s.label == "malignant" for s in inside) else inside[0].label
        strata[inside[0].dataset, worst].append(group)
    parts: dict[Part, list[Sample]] = {part: [] for part in PARTS}
    for stratum in sorted(strata):
        ordered = sorted(strata[stratum], key=lambda group: _digest(key, group))
        tested, validated = round(len(ordered) * test), round(len(ordered) * validation)
        for place, group in enumerate(ordered):
            part: Part = "test" if place < tested else "validation" if place < tested + validated else "train"
            parts[part] += members[group]
    return parts


def check_shares(validation: float, test: float) -> None:
    """Raise a `ValueError` if the shares are out of range."""
    if not (0 <= validation < 1 and 0 <= test < 1 and validation + test < 1):
        raise ValueError(f"shares must be in [0, 1) and sum to less than 1, got {validation} and {test}")


def _digest(key: str, group: str) -> str:
    return hashlib.blake2b(group.encode(), key=key.encode()[:64]).hexdigest()
