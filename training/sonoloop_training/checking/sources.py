"""The datasets of a folder as they lie there: nothing grouped, nothing left out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from sonoloop.errors import SonoloopError
from sonoloop_training.datasets import (
    Sample,
    find_datasets,
    load_busi,
    load_folder,
    load_huggingface,
    load_udiat,
)
from sonoloop_training.datasets.folder import has_groups
from sonoloop_training.datasets.groups_ import find_group_list
from sonoloop_training.datasets.registry import Reader, check_folder, dataset_folders, find_reader

# readers that take a list of groups; any other groups by patient and leaves nothing out
_LISTED: dict[object, Callable[[Path, Path], list[Sample]]] = {
    load: load for load in (load_busi, load_folder, load_huggingface, load_udiat)
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """One dataset.

    Parameters
    ----------
    root : pathlib.Path
        Its folder.
    samples : tuple of Sample
        All of them, those too that training leaves out; empty if it could not be listed.
    grouped : bool
        Whether the dataset itself says what belongs together: by its patients, or the groups of its table.
    listed : pathlib.Path, optional
        The list of near-duplicates that training would use; never where the dataset is grouped.
    error : str
        Why it could not be listed; empty if it was.
    """

    root: Path
    samples: tuple[Sample, ...]
    grouped: bool = False
    listed: Path | None = None
    error: str = ""

    @property
    def dataset(self) -> str:
        """The dataset's name; the folder's if it could not be listed."""
        return self.samples[0].dataset if self.samples else self.root.resolve().name


def find_sources(data: Path) -> list[Source]:
    """List every dataset that is known by its layout: `data` itself, or else those one folder below.

    Raises
    ------
    TrainingError
        If there is none, or `data` is no folder.
    """
    check_folder(data)
    sources = [_list(folder, reader) for folder in dataset_folders(data) if (reader := find_reader(folder))]
    if not sources:
        # says which layouts are known
        find_datasets(data)
    return sources


def _list(root: Path, reader: Reader) -> Source:
    load = _LISTED.get(reader)
    try:
        samples = _list_ungrouped(root, load) if load else reader(root, find_groups=None)
        grouped = load is None or (load is load_folder and has_groups(root))
    except SonoloopError as error:
        return Source(root=root, samples=(), error=str(error))
    listed = None if grouped else find_group_list(samples, root)
    return Source(root=root, samples=tuple(samples), grouped=grouped, listed=listed)


def _list_ungrouped(root: Path, load: Callable[[Path, Path], list[Sample]]) -> list[Sample]:
    with TemporaryDirectory() as folder:
        # the list beside the images has loaders leave out contradictions, which are to be shown
        nothing = Path(folder) / "groups.json"
        nothing.write_text('{"groups": []}', encoding="utf-8")
        return load(root, nothing)
