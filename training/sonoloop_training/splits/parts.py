"""The parts of a split, and what must hold of them."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Literal, get_args

from sonoloop.errors import TrainingError
from sonoloop_training.datasets import Sample

Part = Literal["train", "validation", "test"]
PARTS: tuple[Part, ...] = get_args(Part)


def check_shares(validation: float, test: float) -> None:
    """Raise a `ValueError` if the shares are out of range."""
    if not (0 <= validation < 1 and 0 <= test < 1 and validation + test < 1):
        raise ValueError(f"shares must be in [0, 1) and sum to less than 1, got {validation} and {test}")


def check_filled_and_apart(
    parts: dict[Part, list[Sample]], *, expected: Sequence[Part] = PARTS, by_group: bool = True
) -> dict[Part, list[Sample]]:
    """Return `parts` as they are, if they can be trained on."""
    for part in expected:
        if not parts[part]:
            raise TrainingError(f"the data leave nothing for {part}; give more, or change the recipe's split")
    home: dict[str, Part] = {}
    for part in PARTS if by_group else ():
        for sample in parts[part]:
            if home.setdefault(sample.group, part) != part:
                raise TrainingError(
                    f"group {sample.group} is in {home[sample.group]} and in {part}; put "
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
