"""A folder of predictions: `masks/` with their overlays, and `predictions.csv` with a row for each."""

from __future__ import annotations

import csv
import os
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self, TextIO

from PIL import Image

from sonoloop.errors import SonoloopError
from sonoloop.formats.earlier_run import EarlierRun, mask_path, overlay_path
from sonoloop.formats.mask_png import write_mask, write_png
from sonoloop.formats.predictions import COLUMNS, TABLE, PredictionRow
from sonoloop.imaging.files import MASKS, FoundImage, fold_case
from sonoloop.imaging.overlay import draw_overlay
from sonoloop.values import CLASSES, Frame, Prediction

_PARTIAL = "predictions.partial.csv"


def tell_apart(images: Sequence[FoundImage]) -> list[FoundImage]:
    """Give images from several places that share a relative path the folders by which they differ.

    Returns
    -------
    list of FoundImage
        The same images in the same order, no two with the same `relative`.

    Raises
    ------
    SonoloopError
        If two images still share one.
    """
    told = list(images)
    counts = Counter(fold_case(image.relative) for image in images)
    for shared in (key for key, count in counts.items() if count > 1):
        paths = {
            i: image.path.resolve() for i, image in enumerate(images) if fold_case(image.relative) == shared
        }
        try:
            above = os.path.commonpath(paths.values())
        except ValueError:  # two drives of Windows have nothing in common
            continue
        for i, path in paths.items():
            told[i] = FoundImage(images[i].path, path.relative_to(above))
    _refuse_shared((image, image.relative) for image in told)
    return told


def plan_stems(images: Sequence[FoundImage]) -> dict[FoundImage, Path]:
    """Plan where each mask goes: the image's relative path without its suffix.

    Where "a.png" and "a.jpg" are both there, they keep theirs.

    Parameters
    ----------
    images : sequence of FoundImage
        From `tell_apart`.

    Raises
    ------
    SonoloopError
        If two images still share a place.
    """
    counts = Counter(fold_case(image.relative.with_suffix("")) for image in images)
    stems = {}
    for image in images:
        bare = image.relative.with_suffix("")
        stems[image] = bare if counts[fold_case(bare)] == 1 else image.relative
    _refuse_shared(stems.items())
    return stems


class PredictionFolder:
    """Writes predictions into a folder, a mask and a row at a time.

    A row is written once its mask is on disk. The rows of a first run go straight into `predictions.csv`;
    where one is there already they go into a file beside it, which takes its place on leaving the context.
    The earlier run's pictures that the new table does not name go then; after an error its rows and pictures
    that were not replaced stay.

    Parameters
    ----------
    folder : pathlib.Path
        Made where it is not there; `check` it before.
    overlay : bool
        Whether to draw an overlay beside each mask.
    """

    def __init__(self, folder: Path, *, overlay: bool = False) -> None:
        self.folder = folder
        self._overlay = overlay
        self._path = folder / (_PARTIAL if (folder / TABLE).exists() else TABLE)
        self._file: TextIO | None = None
        self._earlier = EarlierRun(folder)
        self._images: set[str] = set()
        self._masks: list[Path] = []

    def check(self) -> None:
        """Make the folder and see that it can be written to.

        Raises
        ------
        SonoloopError
            If it cannot, or if it holds masks that `sonoloop predict` did not write.
        """
        trial = self.folder / ".sonoloop-write-test"
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            trial.touch()
            trial.unlink()
        except OSError as error:
            raise SonoloopError(
                f"cannot write into {self.folder} ({error.strerror}); choose another folder with --out"
            ) from error
        if not (self.folder / TABLE).exists() and any((self.folder / MASKS).rglob("*_mask.png")):
            raise SonoloopError(
                f"{self.folder / MASKS} holds masks that `sonoloop predict` did not write, and they are left "
                "as they are; choose another folder with --out"
            )

    def __enter__(self) -> Self:
        """Open the table."""
        try:
            self._file = self._path.open("w", newline="", encoding="utf-8", errors="backslashreplace")
        except OSError as error:
            raise SonoloopError(
                f"cannot write {self._path} ({error.strerror}); close it elsewhere"
            ) from error
        csv.writer(self._file).writerow(COLUMNS)
        self._file.flush()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Close the table and put it in its place; one without a row after an error is dropped."""
        kept = [] if error is None else self._earlier.rows_beside(self._images, self._masks)
        whole = self._close(kept if self._masks else [])
        if error is not None and not self._masks:
            self._path.unlink(missing_ok=True)
        elif self._path.name != TABLE and (whole or not kept):
            try:
                self._path.replace(self.folder / TABLE)
            except OSError as refused:
                raise SonoloopError(
                    f"cannot replace {self.folder / TABLE} ({refused.strerror}); close it in other programs. "
                    f"The rows are in {self._path.name}"
                ) from refused
            self._earlier.remove_masks(kept=kept, written=self._masks)

    def _close(self, kept: Sequence[PredictionRow]) -> bool:
        """Append rows of the earlier run and close; whether the disk took all."""
        if self._file is None:
            return False
        try:
            with self._file:
                csv.writer(self._file).writerows(row.to_dict().values() for row in kept)
        except OSError:  # where writing a row failed, closing fails again
            return False
        return True

    def write(self, frame: Frame, prediction: Prediction, row: PredictionRow, stem: Path) -> list[str]:
        """Write one prediction.

        Parameters
        ----------
        frame : Frame
            What it was made of.
        prediction : Prediction
            What was said of it.
        row : PredictionRow
            The same for the table.
        stem : pathlib.Path
            From `plan_stems`.

        Returns
        -------
        list of str
            The pictures written, relative to the folder: the mask, and the overlay if there is one.

        Raises
        ------
        SonoloopError
            If the disk refuses.
        """
        mask = mask_path(self.folder, stem)
        written = [mask]
        try:
            mask.parent.mkdir(parents=True, exist_ok=True)
            if self._overlay:
                picture = draw_overlay(frame.pixels, prediction.mask, overlay_lines(row))
                written.append(overlay_path(mask))
                write_png(written[-1], Image.fromarray(picture))
            else:
                self._earlier.remove_overlay(mask)
            write_mask(mask, prediction.mask)
            if self._file is not None:
                csv.writer(self._file).writerow(row.to_dict().values())
                self._file.flush()
        except OSError as error:
            raise SonoloopError(
                f"cannot write the prediction of {row.image} into {self.folder} ({error.strerror}); "
                "make room or choose another folder with --out"
            ) from error
        self._images.add(row.image.encode(errors="backslashreplace").decode())  # as the table has it
        self._masks.append(mask)
        return [path.relative_to(self.folder).as_posix() for path in written]


def overlay_lines(row: PredictionRow) -> list[str]:
    """Say in words what an overlay shows."""
    percent = {str(name): f"{getattr(row, f'p_{name}'):.0%}" for name in CLASSES}
    others = ", ".join(f"{name} {percent[name]}" for name in percent if name != row.predicted_class)
    found = "no lesion" if not row.lesions else f"{row.lesions} lesion{'s' if row.lesions > 1 else ''}"
    return [
        f"{row.predicted_class} {percent[row.predicted_class]} ({others})",
        f"{found}, expected Dice {row.expected_dice:.2f}",
        f"{row.model}, research use only, not for diagnosis",
    ]


def _refuse_shared(places: Iterable[tuple[FoundImage, Path]]) -> None:
    first: dict[str, FoundImage] = {}
    for image, place in places:
        other = first.setdefault(fold_case(place), image)
        if other is not image:
            raise SonoloopError(
                f"{other.path} and {image.path} would write the same mask; predict them into two folders"
            )
