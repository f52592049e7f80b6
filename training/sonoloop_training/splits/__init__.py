"""Groups to training, validation and test."""

from sonoloop_training.splits.config import SplitConfig, apply_split, describe_folds
from sonoloop_training.splits.folds import (
    LEFT_OUT,
    make_folds,
    published_folds,
    read_folds,
    read_parts,
    split_by_fold,
    write_folds,
)
from sonoloop_training.splits.hashed import split, split_growing, split_leaky
from sonoloop_training.splits.leave_out import leave_out
from sonoloop_training.splits.parts import PARTS, Part, check_shares

__all__ = [
    "LEFT_OUT",
    "PARTS",
    "Part",
    "SplitConfig",
    "apply_split",
    "check_shares",
    "describe_folds",
    "leave_out",
    "make_folds",
    "published_folds",
    "read_folds",
    "read_parts",
    "split",
    "split_by_fold",
    "split_growing",
    "split_leaky",
    "write_folds",
]
