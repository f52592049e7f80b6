"""Groups to training, validation and test."""

from sonoloop_training.splits.config import METHODS, SplitConfig, apply_split
from sonoloop_training.splits.folds import make_folds, published_folds, split_by_fold, write_folds
from sonoloop_training.splits.hashed import split, split_growing, split_leaky
from sonoloop_training.splits.leave_out import groups_on_both_sides, leave_out
from sonoloop_training.splits.listed import read_folds, read_parts
from sonoloop_training.splits.parts import PARTS, Part, check_shares

__all__ = [
    "METHODS",
    "PARTS",
    "Part",
    "SplitConfig",
    "apply_split",
    "check_shares",
    "groups_on_both_sides",
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
