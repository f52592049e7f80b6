"""Splits in the order of a keyed hash: of a closed dataset, of one that grows, and one that leaks."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence

from sonoloop.errors import TrainingError
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
    samples: Sequence[Sample],
    *,
    validation: float,
    test: float,
    key: str,
    earlier: Mapping[str, Part] | None = None,
) -> dict[Part, list[Sample]]:
    """Split by group for ever: a group's part depends on the key and its name alone, or on who was where.

    Data that are added later move nobody, as long as no group changes its name. The price: shares hold on
    average only, and classes are not balanced.
    """
    check_shares(validation, test)
    computed = sorted({s.dataset for s in samples if s.computed})
    if computed and earlier is None:
        # a group is named after its first image: a twin that comes before it would move them all
        raise TrainingError(
            f"the near-duplicates of {', '.join(computed)} are computed, so that images that are added could "
            "move others to another part; give patients or groups in the table, or a list of the "
            "near-duplicates, or as split.file the split.json of an earlier training, whose parts then stay"
        )
    parts: dict[Part, list[Sample]] = {part: [] for part in PARTS}
    for group, inside in by_group(samples).items():
        part = _earlier_part(group, inside, earlier or {})
        if part is None:
            place = int(digest(key, group)[:16], 16) / 2**64
            part = "test" if place < test else "validation" if place < test + validation else "train"
        parts[part] += inside
    return check_filled_and_apart(parts, expected=expected_parts(validation, test))


def split_leaky(
    samples: Sequence[Sample], *, validation: float, test: float, key: str
) -> dict[Part, list[Sample]]:
    """Split image by image, as many papers do: patients and twins end up on both sides.

    It is there to measure by how much such a split flatters a model, and for nothing else.
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


def _earlier_part(group: str, inside: Sequence[Sample], earlier: Mapping[str, Part]) -> Part | None:
    names = [f"{s.dataset}/{s.name}" for s in inside]
    known = {earlier[name]: name for name in names if name in earlier}
    if len(known) > 1:
        told = " and ".join(f"{name} (for {part})" for part, name in known.items())
        raise TrainingError(
            f"group {group} joins {told}, which were in two parts; remove what joins them: "
            f"{', '.join(name for name in names if name not in earlier) or 'one of the two'}"
        )
    return next(iter(known), None)


def _places(count: int, validation: float, test: float) -> list[Part]:
    """Return the part of each of `count` in order: test first, then validation, then train."""
    tested, validated = round(count * test), round(count * validation)
    return [
        "test" if place < tested else "validation" if place < tested + validated else "train"
        for place in range(count)
    ]
