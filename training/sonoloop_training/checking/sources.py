"""The datasets of a folder as they lie there: nothing grouped, nothing left out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from sonoloop.errors import SonoloopError, TrainingError
from sonoloop_training.datasets import (
    Sample,
    find_datasets,
    load_busi,
    load_folder,
    load_huggingface,
    load_udiat,
)
from sonoloop_training.datasets.find import Reader, find_reader
from sonoloop_training.datasets.groups import find_group_list

# readers that take a list of groups; any other groups by patient and leaves nothing out
_GROUPED: dict[object, Callable[[Path, Path], list[Sample]]] = {
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
    listed : pathlib.Path, optional
        The list of near-duplicates that training would use.
    error : str
        Why it could not be listed; empty if it was.
    """

    root: Path
    samples: tuple[Sample, ...]
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
        If there is none.
    """
    if not data.is_dir():
        raise TrainingError(f"there is no folder {data}; give the folder with the dataset")
    folders = [data] if find_reader(data) else sorted(path for path in data.iterdir() if path.is_dir())
    sources = [_list(folder, reader) for folder in folders if (reader := find_reader(folder))]
    if not sources:
        # says which layouts are known
        find_datasets(data)
    return sources


def _list(root: Path, reader: Reader) -> Source:
    grouped = _GROUPED.get(reader)
    try:
        samples = _list_ungrouped(root, grouped) if grouped else reader(root, find_groups=None)
    except SonoloopError as error:
        return Source(root=root, samples=(), error=str(error))
    listed = None if any(sample.patient for sample in samples) else find_group_list(root)
    return Source(root=root, samples=tuple(samples), listed=listed)


def _list_ungrouped(root: Path, load: Callable[[Path, Path], list[Sample]]) -> list[Sample]:
    with TemporaryDirectory() as folder:
        # the list beside the images has loaders leave out contradictions, which are to be shown
        nothing = Path(folder) / "groups.json"
        nothing.write_text('{"groups": []}', encoding="utf-8")
        return load(root, nothing)
