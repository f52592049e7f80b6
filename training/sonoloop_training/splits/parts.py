"""The parts of a split, in the order of a keyed hash: of a closed dataset, one that grows, one that leaks."""

from __future__ import annotations

import hashlib
import logging
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Literal, get_args

from sonoloop.errors import TrainingError
from sonoloop_training.datasets import Sample

logger = logging.getLogger(__name__)

Part = Literal["train", "validation", "test"]
PARTS: tuple[Part, ...] = get_args(Part)


def split(samples: Sequence[Sample], *, validation: float, test: float, key: str) -> dict[Part, list[Sample]]:
    """Split by group, within each dataset and class, in the order of a keyed hash.

    The first `test` share of a stratum's groups is for testing, the next `validation` share for validating.
    For the same samples, in any order, the same key gives the same split. It is a split of a closed dataset:
    a group that is added can move another, which is why a training writes down who was where.
    """
    members = by_group(samples)
    strata = [{group: members[group] for group in groups} for groups in by_stratum(members).values()]
    return check_apart(_deal(strata, validation=validation, test=test, key=key), ())


def split_leaky(
    samples: Sequence[Sample], *, validation: float, test: float, key: str
) -> dict[Part, list[Sample]]:
    """Split image by image, as many papers do: patients and twins end up on both sides.

    It is there to measure by how much such a split flatters a model, and for nothing else.
    """
    strata: dict[tuple[str, str], dict[str, list[Sample]]] = defaultdict(dict)
    for sample in samples:
        strata[sample.dataset, sample.label][f"{sample.dataset}/{sample.name}"] = [sample]
    ordered = [stratum for _, stratum in sorted(strata.items())]
    return _deal(ordered, validation=validation, test=test, key=key)


def _deal(
    strata: Iterable[Mapping[str, list[Sample]]], *, validation: float, test: float, key: str
) -> dict[Part, list[Sample]]:
    """Deal what each stratum has, by name and in the order of its hash: test first, then validation."""
    check_shares(validation, test)
    parts: dict[Part, list[Sample]] = {part: [] for part in PARTS}
    for stratum in strata:
        tested, validated = round(len(stratum) * test), round(len(stratum) * validation)
        for place, name in enumerate(sorted(stratum, key=lambda name: digest(key, name))):
            part: Part = "test" if place < tested else "validation" if place < tested + validated else "train"
            parts[part] += stratum[name]
    check_filled(parts, expected_parts(validation, test))
    return parts


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
            place = draw_place(key, group)
            part = "test" if place < test else "validation" if place < test + validation else "train"
        parts[part] += inside
    return check_apart(parts, expected_parts(validation, test))


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


def leave_out(
    samples: Sequence[Sample],
    *,
    scanner: str | None = None,
    dataset: str | None = None,
    validation: float,
    key: str = "sonoloop",
) -> dict[Part, list[Sample]]:
    """Test on a scanner or a dataset, or on several with commas between, train and validate on the others.

    Groups with images on both sides are named in the log, and their images dropped from training.
    """
    if (scanner is None) == (dataset is None):
        raise ValueError("give either a scanner or a dataset to leave out")
    kind, text = ("scanner", scanner) if dataset is None else ("dataset", dataset)
    wanted = _find_names(kind, text or "", {getattr(s, kind) for s in samples} - {""})
    tested = [s for s in samples if getattr(s, kind) in wanted]
    groups = {s.group for s in tested}
    others = [s for s in samples if s.group not in groups]
    both = sorted({s.group for s in samples if s.group in groups and getattr(s, kind) not in wanted})
    if both:
        logger.warning(
            "dropped from training, for they are in the test too: %s%s",
            ", ".join(both[:10]),
            f" and {len(both) - 10} more" if len(both) > 10 else "",
        )
    return split_others(tested, others, validation=validation, key=key)


def _find_names(kind: str, text: str, known: set[str]) -> set[str]:
    """Find the scanners or datasets that a text names, in any case; a name may hold a comma itself."""
    named = {name.casefold(): name for name in known}
    parts = [text] if text.casefold() in named else [part.strip() for part in text.split(",")]
    for part in parts:
        if part.casefold() not in named:
            there = ", ".join(sorted(known)) or "none that is known"
            raise TrainingError(f"no image is of the {kind} {part!r}; there are: {there}")
    return {named[part.casefold()] for part in parts}


def split_others(
    tested: list[Sample], others: Sequence[Sample], *, validation: float, key: str
) -> dict[Part, list[Sample]]:
    """Test on some samples, train and validate on the others."""
    parts = split(others, validation=validation, test=0, key=key)
    parts["test"] = tested
    return check_apart(parts, [*expected_parts(validation, 0), "test"])


def check_shares(validation: float, test: float) -> None:
    """Raise a `ValueError` if the shares are out of range."""
    if not (0 <= validation < 1 and 0 <= test < 1 and validation + test < 1):
        raise ValueError(f"shares must be in [0, 1) and sum to less than 1, got {validation} and {test}")


def check_filled(parts: Mapping[Part, Sequence[Sample]], expected: Iterable[Part] = PARTS) -> None:
    """Refuse a split that leaves nothing for an expected part."""
    for part in expected:
        if not parts[part]:
            raise TrainingError(f"the data leave nothing for {part}; give more, or change the recipe's split")


def check_apart(
    parts: dict[Part, list[Sample]], expected: Iterable[Part] = PARTS
) -> dict[Part, list[Sample]]:
    """Return `parts` as they are, if all that are expected have something, and no group is in two."""
    check_filled(parts, expected)
    part_of: dict[str, Part] = {}
    for part in PARTS:
        for sample in parts[part]:
            if part_of.setdefault(sample.group, part) != part:
                raise TrainingError(
                    f"group {sample.group} is in {part_of[sample.group]} and in {part}; put "
                    f"{sample.dataset}/{sample.name} where the rest of it is"
                )
    return parts


def expected_parts(validation: float, test: float) -> list[Part]:
    """Return the parts that have a share."""
    shares: dict[Part, float] = {"train": 1, "validation": validation, "test": test}
    return [part for part in PARTS if shares[part] > 0]


def by_group(samples: Sequence[Sample]) -> dict[str, list[Sample]]:
    """Return the members of each group, in order."""
    members: dict[str, list[Sample]] = defaultdict(list)
    for sample in samples:
        members[sample.group].append(sample)
    return dict(members)


def by_stratum(members: Mapping[str, Sequence[Sample]]) -> dict[tuple[str, str], list[str]]:
    """Return the groups of each dataset and class; a group with a malignant image is malignant."""
    strata: dict[tuple[str, str], list[str]] = defaultdict(list)
    for group, inside in members.items():
        worst = "malignant" if any(s.label == "malignant" for s in inside) else inside[0].label
        strata[inside[0].dataset, worst].append(group)
    return dict(sorted(strata.items()))


def digest(key: str, name: str) -> str:
    """Hash a name with a key; 128 hex digits, no one order for two keys."""
    return hashlib.blake2b(name.encode(), key=key.encode()[:64]).hexdigest()


def draw_place(key: str, name: str) -> float:
    """Draw a name's place in [0, 1) by its hash, the same for ever."""
    return int(digest(key, name)[:16], 16) / 2**64
