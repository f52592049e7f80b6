"""A folder of predictions: `masks/` with their overlays, and `predictions.csv` with a row for each."""

from __future__ import annotations

import contextlib
import csv
import os
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path, PurePath
from types import TracebackType
from typing import Any, Self, TextIO

import numpy as np
from PIL import Image

from sonoloop.errors import ImageError, SonoloopError
from sonoloop.formats.mask_png import read_mask, write_mask, write_png
from sonoloop.imaging.image_files import MASKS, FoundImage, fold_case
from sonoloop.imaging.overlay import draw_overlay
from sonoloop.values import CLASSES, Frame, Prediction

TABLE = "predictions.csv"


@dataclass(frozen=True, slots=True, kw_only=True)
class PredictionRow:
    """One row of `predictions.csv`."""

    # relative to the input, with forward slashes
    image: str
    width: int
    height: int
    p_normal: float
    p_benign: float
    p_malignant: float
    predicted_class: str
    lesions: int
    lesion_area_px: int
    expected_dice: float
    model: str
    # what predicting took: an image's share of its batch, reading and writing not counted
    seconds: float

    def to_dict(self) -> dict[str, Any]:
        """Return the values by column."""
        return asdict(self)


COLUMNS = tuple(field.name for field in fields(PredictionRow))


def describe(prediction: Prediction, *, image: str, seconds: float) -> PredictionRow:
    """Describe a prediction in a row, probabilities rounded to four digits."""
    normal, benign, malignant = (round(float(p), 4) for p in prediction.classes)
    height, width = prediction.mask.shape
    return PredictionRow(
        image=image,
        width=width,
        height=height,
        p_normal=normal,
        p_benign=benign,
        p_malignant=malignant,
        predicted_class=prediction.label,
        lesions=prediction.lesions,
        lesion_area_px=int(np.count_nonzero(prediction.mask)),
        expected_dice=round(prediction.expected_dice, 4),
        model=prediction.model,
        seconds=round(seconds, 3),
    )


def read_predictions(path: Path) -> list[PredictionRow]:
    """Read a `predictions.csv`, or that of a folder."""
    path = path / TABLE if path.is_dir() else path
    kinds = {"int": int, "float": float, "str": str}
    try:
        with path.open(newline="", encoding="utf-8") as file:
            table = csv.DictReader(file)
            missing = sorted(set(COLUMNS) - set(table.fieldnames or ()))
            if missing:
                raise SonoloopError(
                    f"{path} lacks {', '.join(missing)}; give a table that `sonoloop predict` wrote"
                )
            rows = []
            for number, row in enumerate(table, start=2):
                try:
                    values = {f.name: kinds[str(f.type)](row[f.name]) for f in fields(PredictionRow)}
                except (TypeError, ValueError) as error:
                    raise SonoloopError(
                        f"line {number} of {path} does not fit its columns: {error}"
                    ) from error
                rows.append(PredictionRow(**values))
            return rows
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise SonoloopError(f"{path} cannot be read: {error}") from error


def mask_path(folder: Path, stem: PurePath) -> Path:
    """Return where the mask of an image goes, whose stem is from `plan_stems`."""
    return folder / MASKS / stem.parent / f"{stem.name}_mask.png"


def overlay_path(mask: Path) -> Path:
    """Return where the overlay that belongs to a mask goes."""
    return mask.with_name(mask.name.removesuffix("_mask.png") + "_overlay.png")


class EarlierRun:
    """The rows of a folder's `predictions.csv`, if there is one, each with its mask where it is known."""

    def __init__(self, folder: Path) -> None:
        rows: list[PredictionRow] = []
        # a table that is not ours names nothing that may be touched
        with contextlib.suppress(SonoloopError):
            if (folder / TABLE).is_file():
                rows = read_predictions(folder)
        self._masks = [(row, _find_mask(folder, row)) for row in rows]
        self._known = _folded(mask for _, mask in self._masks)

    def remove_overlay(self, mask: Path) -> None:
        """Remove the overlay beside a mask of that run which is about to be replaced."""
        if fold_case(mask) in self._known:
            overlay_path(mask).unlink(missing_ok=True)

    def rows_beside(self, images: Collection[str], masks: Collection[Path]) -> list[PredictionRow]:
        """Return the rows of other images than these, whose masks are none of these."""
        written = _folded(masks)
        return [
            row
            for row, mask in self._masks
            if row.image not in images and not (mask and fold_case(mask) in written)
        ]

    def remove_masks(self, *, kept: Collection[PredictionRow], written: Collection[Path]) -> None:
        """Remove the masks and overlays of that run, except those of kept rows and those written since.

        A mask that no longer holds what its row says was changed by a person, and stays.
        """
        rows = set(kept)
        spared = _folded(written) | _folded(mask for row, mask in self._masks if row in rows)
        for row, mask in self._masks:
            if mask is None or fold_case(mask) in spared or not _holds(mask, row):
                continue
            try:
                mask.unlink()
                overlay_path(mask).unlink(missing_ok=True)
            except OSError as error:
                raise SonoloopError(
                    f"cannot remove {mask} of the earlier run ({error.strerror}); remove it yourself"
                ) from error


def _find_mask(folder: Path, row: PredictionRow) -> Path | None:
    image = Path(row.image)
    if not image.name or image.anchor or ".." in image.parts:
        return None
    # the table does not tell whether another image made this one keep its suffix
    there = [path for stem in (image.with_suffix(""), image) if (path := mask_path(folder, stem)).is_file()]
    return there[0] if len(there) == 1 else None


def _holds(mask: Path, row: PredictionRow) -> bool:
    try:
        values = read_mask(mask)
    except ImageError:
        return False
    held = values.shape, int(values.max()), int(np.count_nonzero(values))
    return held == ((row.height, row.width), row.lesions, row.lesion_area_px)


def _folded(masks: Iterable[Path | None]) -> set[str]:
    return {fold_case(mask) for mask in masks if mask}


_PARTIAL = "predictions.partial.csv"


def tell_apart(images: Sequence[FoundImage]) -> list[FoundImage]:
    """Give images from several places that share a relative path the folders by which they differ."""
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

    Where "a.png" and "a.jpg" are both there, they keep theirs. The images are from `tell_apart`.
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
    that were not replaced stay. `check` makes the folder.
    """

    def __init__(self, folder: Path, *, overlay: bool = False) -> None:
        self.folder = folder
        self._overlay = overlay
        self._file: TextIO | None = None

    def check(self) -> None:
        """Make the folder and see that it can be written to."""
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
        """Open the table; what is in the folder now is of an earlier run."""
        self._path = self.folder / (_PARTIAL if (self.folder / TABLE).exists() else TABLE)
        self._earlier = EarlierRun(self.folder)
        self._images: set[str] = set()
        self._masks: list[Path] = []
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
        """Write a prediction where `plan_stems` says; give the pictures written, relative to the folder."""
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
