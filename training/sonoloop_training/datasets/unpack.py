"""A dataset as downloaded to the plain folder that `find_datasets` reads."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from zipfile import BadZipFile, ZipFile

from sonoloop.errors import TrainingError
from sonoloop.jobs.events import Event, Progress, Unpacked
from sonoloop_training.datasets.archive import Limits, check_path, list_members, read_member
from sonoloop_training.datasets.parquet import image_files, measure
from sonoloop_training.datasets.registry import find_reader
from sonoloop_training.datasets.sample import Sample

_STAGE = "Unpacking"
_PAUSE = 0.2  # seconds between two events


def unpack(source: Path, out: Path, *, limits: Limits | None = None) -> Iterator[Event]:
    """Write a dataset's images to a new folder; whole, or not at all.

    Parameters
    ----------
    source : pathlib.Path
        A zip file, a Parquet file, or a folder with Parquet files.
    out : pathlib.Path
        The folder to make; it must not be there yet.
    limits : Limits, optional
        How much is unpacked at most.

    Yields
    ------
    Event
        `Progress`, and `Unpacked` at the end.

    Raises
    ------
    TrainingError
        If `out` is there, the source is no dataset or damaged, something in it is unsafe or too much, or the
        disk is full. Then nothing is left behind.
    """
    if out.exists() or out.is_symlink():
        raise TrainingError(f"{out} is there already; give another --out")
    if not out.parent.is_dir():
        raise TrainingError(f"there is no folder {out.parent}; make it, or give another --out")
    limits = limits or Limits()
    try:
        # beside its place, since a rename does not cross disks
        with tempfile.TemporaryDirectory(prefix=f".{out.name}-", dir=out.parent) as scratch:
            folder = Path(scratch) / out.name
            folder.mkdir()
            yield from _write(source, folder, limits)
            samples = _check(folder, source)
            if out.exists():
                raise TrainingError(f"{out} was made by another program meanwhile; give another --out")
            folder.rename(out)
    except OSError as error:
        raise TrainingError(
            f"{out} cannot be written ({error.strerror or error}); give another --out"
        ) from error
    masks = sum(len(sample.masks) for sample in samples)
    yield Unpacked(path=str(out), dataset=samples[0].dataset, images=len(samples), masks=masks)


def _write(source: Path, folder: Path, limits: Limits) -> Iterator[Event]:
    if source.is_dir():
        paths = sorted(source.rglob("*.parquet"))
        if not paths and any(source.rglob("*.arrow")):
            raise TrainingError(
                f"{source} was saved by the library datasets in its own form; load it there with "
                "load_from_disk, write it with to_parquet, and unpack that"
            )
        if not paths:
            raise TrainingError(
                f"{source} holds no Parquet files; give a zip file, or train on the folder as it is"
            )
        yield from _write_parquet(paths, folder, limits)
    elif not source.is_file():
        raise TrainingError(f"there is no file or folder {source}; check the path")
    elif source.suffix.lower() == ".parquet":
        yield from _write_parquet([source], folder, limits)
    else:
        yield from _write_zip(source, folder, limits)


def _write_zip(source: Path, folder: Path, limits: Limits) -> Iterator[Event]:
    try:
        archive = ZipFile(source)
    except (BadZipFile, OSError, ValueError, NotImplementedError) as error:
        raise TrainingError(f"{source} is no zip file, or damaged ({error}); download it again") from error
    with archive:
        members = list_members(archive, limits, source.name)
        files = ((path, read_member(archive, info, source.name)) for info, path in members)
        yield from _write_files(files, folder, limits, total=len(members))


def _write_parquet(paths: Sequence[Path], folder: Path, limits: Limits) -> Iterator[Event]:
    name = paths[0].name if len(paths) == 1 else paths[0].parent.name
    rows, size = measure(paths)
    if rows > limits.members:
        raise TrainingError(f"{name} has {rows} rows, more than {limits.members}; is it a dataset?")
    if size > limits.total_bytes:
        raise TrainingError(
            f"{name} unpacks to {size / 1e9:.1f} GB, more than {limits.total_bytes / 1e9:g} GB"
        )
    files = ((check_path(str(path), name), data) for path, data in image_files(paths))
    yield from _write_files(files, folder, limits, total=rows)


def _write_files(
    files: Iterator[tuple[PurePosixPath, bytes]], folder: Path, limits: Limits, *, total: int
) -> Iterator[Event]:
    written, said = 0, 0.0
    for done, (path, data) in enumerate(files, start=1):
        written += len(data)
        if len(data) > limits.file_bytes or written > limits.total_bytes:
            raise TrainingError(f"{path} makes the dataset too large to unpack ({written / 1e9:.1f} GB)")
        target = folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            with target.open("xb") as file:
                file.write(data)
        except FileExistsError as error:
            raise TrainingError(f"the dataset has {path} twice; remove one of them") from error
        if time.monotonic() - said > _PAUSE:
            said = time.monotonic()
            yield Progress(stage=_STAGE, done=min(done, total), total=total)
    yield Progress(stage=_STAGE, done=total, total=total)


def _check(folder: Path, source: Path) -> Sequence[Sample]:
    """Return the samples of what was written, if it is a dataset with masks."""
    reader = find_reader(folder)
    if reader is None:
        raise TrainingError(
            f"{source} holds no dataset with a layout that Sonoloop knows; see docs/datasets.md"
        )
    samples = reader(folder, find_groups=lambda found: {sample.name: sample.name for sample in found})
    if not any(sample.masks for sample in samples if sample.label != "normal"):
        raise TrainingError(f"{source} holds no masks of lesions; give the dataset with its masks")
    return samples
