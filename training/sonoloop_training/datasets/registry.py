"""Which datasets lie in a folder, by their layout: a layout is one file, and one line in `LAYOUTS`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from sonoloop.errors import TrainingError
from sonoloop_training.datasets.breast import is_breast, load_breast
from sonoloop_training.datasets.busbra import is_busbra, load_busbra
from sonoloop_training.datasets.busi import (
    is_busi,
    is_huggingface,
    is_part_of_busi,
    load_busi,
    load_huggingface,
    parquet_files,
)
from sonoloop_training.datasets.folder import has_groups, is_folder, load_folder
from sonoloop_training.datasets.groups import FindGroups
from sonoloop_training.datasets.sample import Sample
from sonoloop_training.datasets.udiat import is_udiat, load_udiat


class Load(Protocol):
    """Lists a dataset: grouped as it says itself, else by a list of groups, else by `find_groups`."""

    def __call__(
        self, root: Path, groups: Path | None = None, *, find_groups: FindGroups | None = None
    ) -> list[Sample]:
        """Return its samples."""


@dataclass(frozen=True, slots=True)
class Layout:
    """How a dataset lies on disk."""

    # how it is named before people; empty for another form of one that is named
    title: str
    is_here: Callable[[Path], bool]
    load: Load
    # whether the dataset says itself which images belong together
    is_grouped: Callable[[Path], bool] = lambda root: False


# the first that is here is taken
LAYOUTS = (
    Layout("BUSI (benign, malignant, normal, or train with these)", is_busi, load_busi),
    Layout("BUS-BRA (bus_data.csv)", is_busbra, load_busbra, lambda root: True),
    Layout("BrEaST (its clinical table, or index.csv)", is_breast, load_breast, lambda root: True),
    Layout("Dataset B (original, GT)", is_udiat, load_udiat),
    Layout("images, masks and a CSV", is_folder, load_folder, has_groups),
    Layout("", is_huggingface, load_huggingface),
    Layout("", is_part_of_busi, load_busi),
)
_PACKED = frozenset({".zip", ".parquet"})
_GIVE = "give the folder with the datasets"


def find_datasets(data: Path, *, find_groups: FindGroups | None = None) -> list[Sample]:
    """List every dataset that is known by its layout: `data` itself, or else those one folder below."""
    check_folder(data)
    samples: list[Sample] = []
    homes: dict[str, Path] = {}
    for folder in dataset_folders(data):
        layout = find_layout(folder)
        found = layout.load(folder, find_groups=find_groups) if layout else []
        if found:
            dataset = found[0].dataset
            if dataset in homes:
                raise TrainingError(
                    f"{homes[dataset]} and {folder} are both {dataset!r}; move or rename one of them"
                )
            homes[dataset] = folder
            samples += found
    if not samples:
        *titles, last = (layout.title for layout in LAYOUTS if layout.title)
        raise TrainingError(f"{data} holds neither {', '.join(titles)} or {last}{_advise(data)}")
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
    return [data] if find_layout(data) else _children(data)


def find_layout(folder: Path) -> Layout | None:
    """Return the layout of `folder`, or None where it is no dataset."""
    return next((layout for layout in LAYOUTS if layout.is_here(folder)), None)


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
