"""Groups to training, validation and test, as the recipe's table ``[split]`` says."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from sonoloop_training.datasets import Sample
from sonoloop_training.splits.folds import (
    LEFT_OUT,
    has_folds,
    make_folds,
    published_folds,
    read_earlier,
    read_folds,
    read_parts,
    split_by_fold,
    write_folds,
)
from sonoloop_training.splits.parts import (
    PARTS,
    Part,
    check_shares,
    leave_out,
    split,
    split_growing,
    split_leaky,
)

__all__ = ["LEFT_OUT", "PARTS", "Part", "SplitConfig", "apply_split", "describe_folds", "write_folds"]

Method = Literal["hashed", "folds", "leave-scanner", "leave-dataset", "file", "grows", "leaky"]
_METHODS: tuple[Method, ...] = get_args(Method)


@dataclass(frozen=True, slots=True, kw_only=True)
class SplitConfig:
    """Who trains, who validates and who is tested."""

    # "hashed": groups of a closed dataset in the order of a keyed hash. "folds": one of `folds` stratified
    # group folds is tested. "leave-scanner", "leave-dataset": `left_out` is tested. "file": `file` says it.
    # "grows": each group for itself by a keyed hash, for data that are added to; whose part `file` has stays
    # there. "leaky": image by image, to measure what that hides
    method: Method = "hashed"
    # shares in [0, 1), together below 1. `test` counts for "hashed", "grows" and "leaky" only; "file" with
    # parts needs neither
    validation: float = 0.08
    test: float = 0.1
    # another key gives another split
    key: str = "sonoloop"
    # which fold is tested, from 1 on, and how many there are
    fold: int = 1
    folds: int = 5
    # the scanner or dataset, or several with commas between
    left_out: str = ""
    # folds or parts as JSON or CSV, see `sonoloop_training.splits.folds`. Where it is empty, "file" takes the
    # folds that the dataset was published with. For "grows" parts alone, those of an earlier split
    file: str = ""

    def __post_init__(self) -> None:
        if self.method not in _METHODS:
            raise ValueError(f"method must be one of {', '.join(_METHODS)}, got {self.method!r}")
        check_shares(self.validation, self.test)
        if self.folds < 2:
            raise ValueError(f"folds must be at least 2, got {self.folds}")
        if self.fold < 0:
            raise ValueError(f"fold must not be negative, got {self.fold}")
        if self.method.startswith("leave-") and not self.left_out:
            raise ValueError(f"{self.method} needs left_out: which {self.method.removeprefix('leave-')}")


def apply_split(config: SplitConfig, samples: Sequence[Sample]) -> dict[Part, list[Sample]]:
    """Split samples as the recipe says."""
    validation, key = config.validation, config.key
    folds = describe_folds(config, samples)
    if folds is not None:
        return split_by_fold(samples, folds, test=config.fold, validation=validation, key=key)
    if config.method == "file":
        return read_parts(Path(config.file), samples)
    if config.method.startswith("leave-"):
        kind = config.method.removeprefix("leave-")
        return leave_out(samples, **{kind: config.left_out}, validation=validation, key=key)
    if config.method == "grows":
        earlier = read_earlier(Path(config.file), samples) if config.file else None
        return split_growing(samples, validation=validation, test=config.test, key=key, earlier=earlier)
    divide = split_leaky if config.method == "leaky" else split
    return divide(samples, validation=validation, test=config.test, key=key)


def describe_folds(config: SplitConfig, samples: Sequence[Sample]) -> dict[str, int] | None:
    """Return each group's fold as `apply_split` takes it, or None where the method knows no folds.

    `sonoloop_training.splits.write_folds` keeps them, and the recipe's `file` takes them from there.
    """
    if config.method == "folds":
        return make_folds(samples, folds=config.folds, key=config.key)
    if config.method != "file":
        return None
    if not config.file:
        return published_folds(samples, folds=config.folds)
    path = Path(config.file)
    return read_folds(path, samples) if has_folds(path) else None
