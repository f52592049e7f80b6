"""Folds of a closed dataset: made, written, read, and one of them left out."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

from sonoloop.atomic import write_whole
from sonoloop.errors import TrainingError
from sonoloop_training.datasets import Sample
from sonoloop_training.splits.hashed import split
from sonoloop_training.splits.parts import (
    Part,
    by_group,
    by_stratum,
    check_filled_and_apart,
    digest,
    expected_parts,
)


def make_folds(samples: Sequence[Sample], *, folds: int = 5, key: str = "sonoloop") -> dict[str, int]:
    """Deal the groups of each dataset and class to folds, so that each fold gets as many of its images.

    The largest groups go first, each to the fold that has the fewest images of the class so far. For the
    same samples, in any order, the same key gives the same folds.

    Parameters
    ----------
    samples : sequence of Sample
        All of them.
    folds : int
        How many, at least 2.
    key : str
        Decides among groups of one size.

    Returns
    -------
    dict
        Each group's fold, from 1 to `folds`.

    Raises
    ------
    ValueError
        If `folds` is below 2.
    TrainingError
        If a class has fewer groups than folds: some test fold would have none of it.
    """
    if folds < 2:
        raise ValueError(f"folds must be at least 2, got {folds}")
    members = by_group(samples)
    strata = by_stratum(members)
    groups_of: Counter[str] = Counter()
    for (_, label), groups in strata.items():
        groups_of[label] += len(groups)
    for label, count in groups_of.items():
        if count < folds:
            raise TrainingError(f"{count} groups are {label}, too few for {folds} folds; ask for fewer folds")
    images_of: dict[str, list[int]] = defaultdict(lambda: [0] * folds)
    placed: dict[str, int] = {}
    total = [0] * folds
    for (_, label), groups in strata.items():
        inside = [0] * folds
        for group in sorted(groups, key=lambda group: (-len(members[group]), digest(key, group))):
            fold = min(range(folds), key=lambda k: (inside[k], images_of[label][k], total[k], k))
            for counts in (inside, images_of[label], total):
                counts[fold] += len(members[group])
            placed[group] = fold + 1
    return placed


def published_folds(samples: Sequence[Sample], *, folds: int = 5) -> dict[str, int]:
    """Return the folds that a dataset was published with; BUS-BRA has 5 and 10, from 1 on.

    Raises
    ------
    TrainingError
        If a sample has none, or a group is in two.
    """
    name = f"{folds}-fold"
    found = {f"{s.dataset}/{s.name}": s.facts[name] for s in samples if name in s.facts}
    return place_folds(samples, found, f"the published {name} list; only BUS-BRA has one, {name}-cv.csv")


def write_folds(path: Path, folds: Mapping[str, int]) -> None:
    """Write folds as ``{"folds": {group: fold}}``; whole or not at all."""
    try:
        write_whole(path, json.dumps({"folds": dict(sorted(folds.items()))}, indent=1))
    except OSError as error:
        raise TrainingError(f"{path} cannot be written ({error.strerror}); give another place") from error


def split_by_fold(
    samples: Sequence[Sample],
    folds: Mapping[str, int],
    *,
    test: int,
    validation: float,
    key: str = "sonoloop",
) -> dict[Part, list[Sample]]:
    """Test on one fold; validate on a share of the rest, as `sonoloop_training.splits.split` takes it.

    Parameters
    ----------
    samples : sequence of Sample
        All of them.
    folds : mapping
        Each group's fold.
    test : int
        The fold that is left out.
    validation : float
        Share of the other folds' groups, in [0, 1).
    key : str
        Decides who validates.

    Raises
    ------
    ValueError
        If the share is out of range.
    TrainingError
        If a group has no fold, there is no such fold, or a part stays empty.
    """
    known = sorted({folds[s.group] for s in samples if s.group in folds})
    for sample in samples:
        if sample.group not in folds:
            raise TrainingError(f"group {sample.group} has no fold; make the folds again with these data")
    if test not in known:
        raise TrainingError(f"there is no fold {test}; there are {', '.join(map(str, known))}")
    rest = [sample for sample in samples if folds[sample.group] != test]
    parts = split(rest, validation=validation, test=0, key=key)
    parts["test"] = [sample for sample in samples if folds[sample.group] == test]
    return check_filled_and_apart(parts, expected=[*expected_parts(validation, 0), "test"])


def place_folds(samples: Sequence[Sample], listed: Mapping[str, str], source: str) -> dict[str, int]:
    """Turn a list of folds into each group's fold.

    Parameters
    ----------
    samples : sequence of Sample
        All of them.
    listed : mapping
        Folds as text, by "dataset/name".
    source : str
        What to call the list in an error.

    Raises
    ------
    TrainingError
        If a sample has no fold, a fold is no number, or a group is in two.
    """
    placed: dict[str, int] = {}
    for sample in samples:
        name = f"{sample.dataset}/{sample.name}"
        text = listed.get(name)
        if text is None:
            raise TrainingError(f"{name} is not in {source}")
        if not text.isdecimal():
            raise TrainingError(f"{name} has the fold {text!r} in {source}; a fold is a whole number")
        if placed.setdefault(sample.group, int(text)) != int(text):
            raise TrainingError(
                f"group {sample.group} is in the folds {placed[sample.group]} and {text} of {source}; "
                "keep a patient and its near-duplicates in one"
            )
    return placed
