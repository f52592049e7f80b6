"""Datasets on disk, as samples with a class, masks and a group; one file a layout."""

from sonoloop_training.datasets.breast import load_breast
from sonoloop_training.datasets.busbra import load_busbra
from sonoloop_training.datasets.busi import load_busi, load_huggingface
from sonoloop_training.datasets.folder import DATASETS, load_folder
from sonoloop_training.datasets.groups import FindGroups
from sonoloop_training.datasets.registry import find_datasets
from sonoloop_training.datasets.sample import Sample
from sonoloop_training.datasets.udiat import load_udiat

__all__ = [
    "DATASETS",
    "FindGroups",
    "Sample",
    "find_datasets",
    "load_breast",
    "load_busbra",
    "load_busi",
    "load_folder",
    "load_huggingface",
    "load_udiat",
]
