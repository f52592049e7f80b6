"""Which datasets lie in a folder, by their layout."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from sonoloop.errors import TrainingError
from sonoloop.values import CLASSES
from sonoloop_training.datasets.busbra import TABLE, load_busbra
from sonoloop_training.datasets.busi import load_busi, load_huggingface, parquet_files, part_folders
from sonoloop_training.datasets.folder import load_folder
from sonoloop_training.datasets.groups import FindGroups
from sonoloop_training.datasets.sample import Sample, class_folders, file_in, subfolder
from sonoloop_training.datasets.udiat import load_udiat


class Reader(Protocol):
    """Lists a dataset; `find_groups` computes near-duplicates where nothing else groups the images."""

    def __call__(self, root: Path, *, find_groups: FindGroups | None) -> list[Sample]:
        """Return its samples."""


_LAYOUTS = (
    "BUSI (benign, malignant, normal, or train with these), BUS-BRA (bus_data.csv), "
    "Dataset B (original, GT) or images, masks and a CSV"
)
_PACKED = frozenset({".zip", ".parquet"})
_GIVE = "give the folder with the datasets"


def find_datasets(data: Path, *, find_groups: FindGroups | None = None) -> list[Sample]:
    """List every dataset that is known by its layout: `data` itself, or else those one folder below."""
    check_folder(data)
    samples: list[Sample] = []
    homes: dict[str, Path] = {}
    for folder in dataset_folders(data):
        reader = find_reader(folder)
        found = reader(folder, find_groups=find_groups) if reader else []
        if found:
            dataset = found[0].dataset
            if dataset in homes:
                raise TrainingError(
                    f"{homes[dataset]} and {folder} are both {dataset!r}; move or rename one of them"
                )
            homes[dataset] = folder
            samples += found
    if not samples:
        raise TrainingError(f"{data} holds neither {_LAYOUTS}{_advise(data)}")
    return samples


def check_folder(data: Path) -> None:
    """Refuse what is no folder; a packed dataset is to be unpacked first."""
    if data.is_file():
        packed = data.suffix.lower() in _PACKED
        raise TrainingError(f"{data} is a file; {_unpacking(data) if packed else _GIVE}")
    if not data.is_dir():
        raise TrainingError(f"there is no folder {data}; {_GIVE}")


def dataset_folders(data: Path) -> list[Path]:
    """Return the folders that may hold a dataset: `data` if it does, else those one folder below."""
    return [data] if find_reader(data) else _children(data)


def find_reader(folder: Path) -> Reader | None:
    """Return what reads a dataset with the layout of `folder`, or None where it is no dataset."""
    if file_in(folder, TABLE):
        return _load_busbra
    if len(class_folders(folder)) == len(CLASSES):
        return load_busi
    if subfolder(folder, "original") and subfolder(folder, "GT"):
        return load_udiat
    if subfolder(folder, "images") and subfolder(folder, "masks"):
        return load_folder
    if part_folders(folder):
        return load_huggingface
    # not whole: it says which folder is missing
    return load_busi if len(class_folders(folder)) == len(CLASSES) - 1 else None


def _load_busbra(root: Path, *, find_groups: FindGroups | None) -> list[Sample]:
    return load_busbra(root)  # grouped by patient


def _children(data: Path) -> list[Path]:
    # hidden folders are no datasets: one that is being unpacked is hidden until it is whole
    return sorted(path for path in data.iterdir() if path.is_dir() and not path.name.startswith("."))


def _advise(data: Path) -> str:
    """Say what to unpack, where nothing but packed datasets was found."""
    packed = [path for path in sorted(data.iterdir()) if path.suffix.lower() == ".zip"]
    packed += [path for path in (data, *_children(data)) if parquet_files(path)]
    return f"; {_unpacking(packed[0])}" if packed else ""


def _unpacking(packed: Path) -> str:
    return f"unpack it first: sonoloop data unpack {packed} --out FOLDER"
