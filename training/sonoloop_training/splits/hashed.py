"""Splits in the order of a keyed hash: of a closed dataset, of one that grows, and one that leaks."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from sonoloop_training.datasets import Sample
from sonoloop_training.splits.parts import (
    PARTS,
    Part,
    by_group,
    by_stratum,
    check_filled_and_apart,
    check_shares,
    digest,
    expected_parts,
)


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
    TrainingError
        If a part with a share stays empty.
    """
    check_shares(validation, test)
    members = by_group(samples)
    parts: dict[Part, list[Sample]] = {part: [] for part in PARTS}
    for groups in by_stratum(members).values():
        ordered = sorted(groups, key=lambda group: digest(key, group))
        for group, part in zip(ordered, _places(len(ordered), validation, test), strict=True):
            parts[part] += members[group]
    return check_filled_and_apart(parts, expected=expected_parts(validation, test))


def split_growing(
    samples: Sequence[Sample], *, validation: float, test: float, key: str
) -> dict[Part, list[Sample]]:
    """Split by group for ever: a group's part depends on the key and its name alone.

    Data that are added later move nobody. The price: shares hold on average only, and classes are not
    balanced.

    Parameters
    ----------
    samples, validation, test, key
        As in `split`.

    Raises
    ------
    ValueError, TrainingError
        As `split`.
    """
    check_shares(validation, test)
    parts: dict[Part, list[Sample]] = {part: [] for part in PARTS}
    for group, inside in by_group(samples).items():
        place = int(digest(key, group)[:16], 16) / 2**64
        parts["test" if place < test else "validation" if place < test + validation else "train"] += inside
    return check_filled_and_apart(parts, expected=expected_parts(validation, test))


def split_leaky(
    samples: Sequence[Sample], *, validation: float, test: float, key: str
) -> dict[Part, list[Sample]]:
    """Split image by image, as many papers do: patients and twins end up on both sides.

    It is there to measure by how much such a split flatters a model, and for nothing else.

    Parameters
    ----------
    samples, validation, test, key
        As in `split`, but the shares are of the images.

    Raises
    ------
    ValueError, TrainingError
        As `split`.
    """
    check_shares(validation, test)
    strata: dict[tuple[str, str], list[Sample]] = defaultdict(list)
    for sample in samples:
        strata[sample.dataset, sample.label].append(sample)
    parts: dict[Part, list[Sample]] = {part: [] for part in PARTS}
    for _, inside in sorted(strata.items()):
        ordered = sorted(inside, key=lambda sample: digest(key, f"{sample.dataset}/{sample.name}"))
        for sample, part in zip(ordered, _places(len(ordered), validation, test), strict=True):
            parts[part].append(sample)
    return check_filled_and_apart(parts, expected=expected_parts(validation, test), by_group=False)


def _places(count: int, validation: float, test: float) -> list[Part]:
    """Return the part of each of `count` in order: test first, then validation, then train."""
    tested, validated = round(count * test), round(count * validation)
    return [
        "test" if place < tested else "validation" if place < tested + validated else "train"
        for place in range(count)
    ]
