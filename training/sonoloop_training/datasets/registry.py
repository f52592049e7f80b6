"""Which datasets lie in a folder, by their layout: a layout is one file, and one line in `LAYOUTS`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
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
from sonoloop_training.datasets.pack import is_pack, load_pack
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

    # how it is named before people; empty for another form of one that is named, and for what is no folder
    title: str
    is_here: Callable[[Path], bool]
    load: Load
    # on what terms its owner gives it, where that is known
    terms: str = ""
    # whether the dataset says itself which images belong together
    is_grouped: Callable[[Path], bool] = lambda root: False


_BUSI = "CC BY 4.0; Al-Dhabyani et al., Data in Brief 28, 104863, 2020, doi 10.1016/j.dib.2019.104863"
_BUSBRA = "free to use with its citation; Gómez-Flores et al., Medical Physics 51, 2024, doi 10.1002/mp.16812"
_BREAST = (
    "CC BY 4.0; Pawłowska et al., Scientific Data 11, 148, 2024, doi 10.1038/s41597-024-02984-z; The Cancer "
    "Imaging Archive, doi 10.7937/9WKK-Q141"
)
_UDIAT = "by agreement with its authors, not to be passed on; Yap et al., IEEE JBHI 22, 1218-1226, 2018"

# the first that is here is taken
LAYOUTS = (
    Layout("BUSI (benign, malignant, normal, or train with these)", is_busi, load_busi, _BUSI),
    Layout("BUS-BRA (bus_data.csv)", is_busbra, load_busbra, _BUSBRA, lambda root: True),
    Layout("BrEaST (its clinical table, or index.csv)", is_breast, load_breast, _BREAST, lambda root: True),
    Layout("Dataset B (original, GT)", is_udiat, load_udiat, _UDIAT),
    Layout("images, masks and a CSV", is_folder, load_folder, is_grouped=has_groups),
    # a file: no folder is one
    Layout("", is_pack, load_pack, is_grouped=lambda root: True),
    Layout("", is_huggingface, load_huggingface, _BUSI),
    Layout("", is_part_of_busi, load_busi, _BUSI),
)
_PACKED = frozenset({".zip", ".parquet"})
_GIVE = "give the folder with the datasets, or a pack of them"


def find_datasets(data: Path, *, find_groups: FindGroups | None = None) -> list[Sample]:
    """List every dataset that is known by its layout: `data` itself, or else those one folder below."""
    found = list_layouts([data], find_groups=find_groups)
    return [sample for _, samples in found for sample in samples]


def list_layouts(
    places: Sequence[Path], *, find_groups: FindGroups | None = None
) -> list[tuple[Layout, list[Sample]]]:
    """List the datasets of several places as `find_datasets` does, each with its layout."""
    found: list[tuple[Layout, list[Sample]]] = []
    homes: dict[str, Path] = {}
    for data in places:
        check_folder(data)
        before = len(found)
        for folder in dataset_folders(data):
            layout = find_layout(folder)
            samples = layout.load(folder, find_groups=find_groups) if layout else []
            for dataset in dict.fromkeys(sample.dataset for sample in samples):
                if dataset in homes:
                    raise TrainingError(
                        f"{homes[dataset]} and {folder} are both {dataset!r}; move or rename one of them"
                    )
                homes[dataset] = folder
            if layout and samples:
                found.append((layout, samples))
        if len(found) == before:
            raise _tell_layouts(data)
    return found


def _tell_layouts(data: Path) -> TrainingError:
    *titles, last = (layout.title for layout in LAYOUTS if layout.title)
    return TrainingError(f"{data} holds neither {', '.join(titles)} or {last}{_advise(data)}")


def check_folder(data: Path) -> None:
    """Refuse what is neither a folder nor a pack; an archive is to be unpacked first."""
    if data.is_file():
        if find_layout(data) is not None:
            return
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
