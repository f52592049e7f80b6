"""A folder of predictions: `masks/` with their overlays, and `predictions.csv` with a row for each."""

from __future__ import annotations

import csv
import errno
import hashlib
import io
import math
import os
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass, fields
from pathlib import Path, PurePath
from types import TracebackType
from typing import Any, Self

import numpy as np
from PIL import Image

from sonoloop.atomic import whole
from sonoloop.errors import ImageError, ModelError, OutputError, SonoloopError
from sonoloop.formats.folder_lock import FolderLock
from sonoloop.formats.mask_png import encode_mask, encode_png, read_mask
from sonoloop.formats.written_files import WrittenFiles, write_all
from sonoloop.imaging.image_files import MASKS, FoundImage, fold_case
from sonoloop.imaging.overlay import draw_overlay
from sonoloop.plain_text import from_cell, to_cells
from sonoloop.regular_files import read_regular
from sonoloop.values import CLASSES, Frame, Prediction

TABLE = "predictions.csv"
_PARTIAL = "predictions.partial.csv"
_MOST = 1 << 30
# what ends a run: the next image would fail as well
_OF_THE_DISK = ("EDQUOT", "EIO", "EMFILE", "ENFILE", "ENODEV", "ENOMEM", "ENOSPC", "ENXIO", "EROFS", "ESTALE")
_STAYS = "was not written by `sonoloop predict`, or was changed since, and stays as it is"
_REMEDY = "move it away, or choose another folder with --out"


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
    if not all(map(math.isfinite, (normal, benign, malignant, prediction.expected_dice))):
        raise ModelError(f"{prediction.model} gave it probabilities that are no numbers; use another model")
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
    kinds: dict[str, Callable[[str], Any]] = {"int": int, "float": float, "str": from_cell}
    try:
        with io.StringIO(read_regular(path, most=_MOST).decode(), newline="") as file:
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
        why = error.strerror if isinstance(error, OSError) else error
        raise SonoloopError(f"{path} cannot be read ({why}); check the path and the file") from error


def mask_path(folder: Path, stem: PurePath) -> Path:
    """Return where the mask of an image goes, whose stem is from `plan_stems`."""
    return folder / MASKS / stem.parent / f"{stem.name}_mask.png"


def overlay_path(mask: Path) -> Path:
    """Return where the overlay that belongs to a mask goes."""
    return mask.with_name(mask.name.removesuffix("_mask.png") + "_overlay.png")


class EarlierRun:
    """What earlier runs left in a folder: the rows, each with its mask where it is known, and the files.

    Raises
    ------
    SonoloopError
        If the folder holds what would be lost.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.files = WrittenFiles(folder)
        self._refuse_others()
        self.rows = self._rows_of(TABLE)
        # of a run that was killed, or stood before a full disk
        self._broken_off = self._rows_of(_PARTIAL)
        self._masks: dict[PredictionRow, Path | None] = {}

    def finish(self) -> None:
        """Bring the table to where the run before came that broke off, and know what older versions wrote."""
        if not self.files.is_begun and self.files.files():
            self.files.compact()
        if os.path.lexists(self._folder / _PARTIAL):
            images, masks = self._split(self._broken_off)
            self.rows = [*self._broken_off, *self.rows_beside(images, masks)]
            data = encode_rows([COLUMNS, *(row.to_dict().values() for row in self.rows)])
            self.files.tell({self._folder / TABLE: hashlib.sha256(data).hexdigest()})
            with whole(self._folder / TABLE, durable=False) as temporary:
                temporary.write_bytes(data)
            (self._folder / _PARTIAL).unlink()
        # before this run's images take the place of others
        self._masks = {row: self.files.mask_of(row.image) for row in self.rows}

    def rows_beside(self, images: Collection[str], masks: Collection[Path]) -> list[PredictionRow]:
        """Return the rows of other images than these, whose masks are none of these."""
        written = _folded(masks)
        return [
            row for row in self.rows if row.image not in images and not written & _folded(self._masks_of(row))
        ]

    def rows_at(self, masks: Collection[Path]) -> list[PredictionRow]:
        """Return the rows whose masks are these, and are still as they were written."""
        there = _folded(masks)
        return [
            row
            for row in self.rows
            if (mask := self._masks[row]) and fold_case(mask) in there and self.files.is_ours(mask)
        ]

    def remove_files(self, *, kept: Collection[PredictionRow], written: Collection[Path], all_: bool) -> None:
        """Remove the masks and overlays of earlier runs, except those of kept rows and those written since.

        Unless `all_`, only those of rows that are not kept. What a person changed stays.
        """
        kept = set(kept)
        spared = _folded(self._pictures(kept)) | _folded(written)
        rows = [row for row in self.rows if row not in kept]
        left = []
        for path in self.files.files() if all_ else self._pictures(rows):
            is_picture = path.is_relative_to(self._folder / MASKS)
            if not is_picture or fold_case(path) in spared or not self.files.is_ours(path):
                continue
            try:
                path.unlink(missing_ok=True)
            except OSError as error:
                left.append(f"{path} ({error.strerror})")
        if left:
            more = f" and {len(left) - 3} more" if len(left) > 3 else ""
            raise SonoloopError(
                f"cannot remove {', '.join(left[:3])}{more} of the earlier run; remove them yourself"
            )

    def _pictures(self, rows: Iterable[PredictionRow]) -> list[Path]:
        masks = [mask for row in rows if (mask := self._masks[row])]
        return [*masks, *map(overlay_path, masks)]

    def _split(self, rows: Sequence[PredictionRow]) -> tuple[set[str], list[Path]]:
        images = {row.image for row in rows}
        return images, [mask for image in images if (mask := self.files.mask_of(image))]

    def _masks_of(self, row: PredictionRow) -> list[Path]:
        known = self._masks.get(row) or self.files.mask_of(row.image)
        return [known] if known else _possible_masks(self._folder, row)

    def _refuse_others(self) -> None:
        masks = self._folder / MASKS
        if os.path.lexists(masks) and not masks.is_dir():
            raise SonoloopError(f"{masks} is no folder, and masks would go into it; {_REMEDY}")
        if self.files.is_begun or os.path.lexists(self._folder / TABLE):
            return
        for kind in ("mask", "overlay"):
            for picture in masks.rglob(f"*_{kind}.png"):
                raise SonoloopError(
                    f"{masks} holds pictures that `sonoloop predict` did not write, as {picture.name}; they "
                    "stay as they are: choose another folder with --out"
                )

    def _rows_of(self, name: str) -> list[PredictionRow]:
        """Read a table if there is one; it has to be ours."""
        table = self._folder / name
        if not os.path.lexists(table):
            return []
        if self.files.is_ours(table):
            return read_predictions(table)
        if table.is_file() and not table.is_symlink() and table.stat().st_size == 0:
            return []  # a full disk left it, and nothing is lost with it
        if self.files.is_begun or table.is_symlink():
            raise SonoloopError(f"{table} {_STAYS}; {_REMEDY}")
        try:
            rows = read_predictions(table)
        except SonoloopError as error:
            raise SonoloopError(f"{table} {_STAYS}; {_REMEDY}") from error
        # older versions wrote no manifest; that masks hold what the rows say tells their table from others
        adopted = [self._adopt(row) for row in rows]
        if rows and not any(adopted):
            raise SonoloopError(f"{table} {_STAYS}; {_REMEDY}")
        self.files.adopt(table)
        return rows

    def _adopt(self, row: PredictionRow) -> bool:
        masks = [mask for mask in _possible_masks(self._folder, row) if mask.is_file()]
        # the table does not tell whether another image made this one keep its suffix
        if len(masks) != 1 or masks[0].is_symlink() or not _holds(masks[0], row):
            return False
        self.files.adopt(masks[0], image=row.image)
        overlay = overlay_path(masks[0])
        if overlay.is_file() and not overlay.is_symlink():
            self.files.adopt(overlay)
        return True


def _possible_masks(folder: Path, row: PredictionRow) -> list[Path]:
    image = Path(row.image)
    if not image.name or image.anchor or ".." in image.parts:
        return []
    return [mask_path(folder, stem) for stem in (image.with_suffix(""), image)]


def _holds(mask: Path, row: PredictionRow) -> bool:
    try:
        values = read_mask(mask)
    except ImageError:
        return False
    held = values.shape, int(values.max()), int(np.count_nonzero(values))
    return held == ((row.height, row.width), row.lesions, row.lesion_area_px)


def _folded(paths: Iterable[Path]) -> set[str]:
    return {fold_case(path) for path in paths}


def tell_apart(images: Sequence[FoundImage]) -> list[FoundImage]:
    """Give images from several places that share a relative path the folders by which they differ."""
    told = list(images)
    counts = Counter(fold_case(image.relative) for image in images)
    for shared in (key for key, count in counts.items() if count > 1):
        paths = {
            i: image.path.resolve() for i, image in enumerate(images) if fold_case(image.relative) == shared
        }
        if len({path.parent for path in paths.values()}) == 1:
            continue  # of one folder, and they differ in their case alone
        try:
            above = os.path.commonpath(paths.values())
        except ValueError:  # two drives of Windows have nothing in common
            continue
        for i, path in paths.items():
            told[i] = FoundImage(images[i].path, path.relative_to(above))
    return told


def plan_stems(images: Sequence[FoundImage]) -> tuple[dict[FoundImage, Path], dict[FoundImage, OutputError]]:
    """Plan where each mask goes: the image's relative path without its suffix; and which have no place.

    Where "a.png" and "a.jpg" are both there, they keep theirs. An image has none where another one has it:
    names that differ in their case alone are one to many disks. The images are from `tell_apart`.
    """
    counts = Counter(fold_case(image.relative.with_suffix("")) for image in images)
    stems: dict[FoundImage, Path] = {}
    refused: dict[FoundImage, OutputError] = {}
    first: dict[str, FoundImage] = {}
    for image in images:
        bare = image.relative.with_suffix("")
        stem = bare if counts[fold_case(bare)] == 1 else image.relative
        # rows and masks are both known by their names
        keys = {fold_case(stem), fold_case(image.relative)}
        other = next((first[key] for key in keys if key in first), None)
        if other is None:
            stems[image] = stem
            first |= dict.fromkeys(keys, image)
        else:
            refused[image] = OutputError(
                f"{image.path} would write the same mask as {other.path}; predict them into two folders, or "
                "rename one"
            )
    return stems, refused


def encode_rows(rows: Iterable[Iterable[object]]) -> bytes:
    """Return rows as they stand in a table."""
    text = io.StringIO(newline="")
    csv.writer(text).writerows(map(to_cells, rows))
    return text.getvalue().encode()


class Table:
    """A table while it is written: a row is in it whole, or not at all, and the manifest knows it."""

    def __init__(self, path: Path, files: WrittenFiles) -> None:
        self.path = path
        self._files = files
        data = encode_rows([COLUMNS])
        digest = hashlib.sha256(data)
        files.tell({path: digest.hexdigest()})
        self._file = path.open("xb", buffering=0)
        self._states = [(0, hashlib.sha256()), (len(data), digest)]
        try:
            write_all(self._file.fileno(), data)
        except OSError:
            self.drop()
            raise

    @property
    def digest(self) -> str:
        """The SHA-256 of what it holds."""
        return self._states[-1][1].hexdigest()

    def append(
        self,
        rows: Iterable[PredictionRow],
        *,
        files: Mapping[Path, str] | None = None,
        image: str | None = None,
    ) -> None:
        """Add rows, and tell the manifest of them and of the files that come with them."""
        data = encode_rows(row.to_dict().values() for row in rows)
        size, digest = self._states[-1][0], self._states[-1][1].copy()
        digest.update(data)
        self._files.tell({**(files or {}), self.path: digest.hexdigest()}, image=image)
        try:
            write_all(self._file.fileno(), data)
        except OSError:
            self._cut(size)
            raise
        self._states = [self._states[-1], (size + len(data), digest)]
        self._files.confirm(self.path, digest.hexdigest())

    def take_back(self) -> None:
        """Take back what was added last; nothing else can be taken back then."""
        self._states = self._states[:1]
        self._cut(self._states[0][0])
        self._files.confirm(self.path, self.digest)

    def close(self) -> None:
        """Close it; some disks say only then that they are full."""
        self._file.close()

    def drop(self) -> None:
        """Remove it."""
        with suppress(OSError):
            self._file.close()
        with suppress(OSError):
            self.path.unlink()

    def _cut(self, size: int) -> None:
        with suppress(OSError):
            self._file.truncate(size)
            self._file.seek(size)


class PredictionFolder:
    """Writes predictions into a folder, a mask and a row at a time; one run at a time.

    A row is written once its mask is on disk. The rows of a first run go straight into `predictions.csv`;
    where one is there already they go into a file beside it, which takes its place on leaving the context.
    The earlier run's pictures that the new table does not name go then; after an error its rows and pictures
    that were not replaced stay. What the manifest does not know, or a person changed, is never replaced.
    `check` makes the folder.
    """

    def __init__(self, folder: Path, *, overlay: bool = False) -> None:
        self.folder = folder
        self._overlay = overlay
        # what should be known though nothing failed
        self.notices: list[str] = []

    def check(self) -> None:
        """Make the folder, and see that it can be written to and that nothing in it would be lost."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            lock = FolderLock(self.folder)
            try:
                EarlierRun(self.folder)
            finally:
                lock.release()
            if not lock.holds:
                self.notices.append(
                    f"the disk of {self.folder} has no locks: see that nothing else predicts into this folder"
                )
        except OSError as error:
            raise SonoloopError(
                f"cannot write into {self.folder} ({error.strerror}); choose another folder with --out"
            ) from error

    def __enter__(self) -> Self:
        """Lock the folder and open the table; what is in the folder now is of an earlier run."""
        self._images: set[str] = set()
        self._written: list[Path] = []
        # masks that could not be written
        self._refused: list[Path] = []
        with ExitStack() as stack:
            try:
                self._lock = FolderLock(self.folder)
                stack.callback(self._lock.release)
                self._earlier = EarlierRun(self.folder)
                self._earlier.finish()
                self._is_first = not self._earlier.files.is_begun
                name = _PARTIAL if os.path.lexists(self.folder / TABLE) else TABLE
                self._table = Table(self.folder / name, self._earlier.files)
            except OSError as error:
                raise self._fail(f"cannot write into {self.folder}", error) from error
            stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Close the table and put it in its place; one without a row after an error is dropped."""
        try:
            if error is not None and not self._written:
                self._table.drop()
                if self._is_first and not any(map(os.path.lexists, self._earlier.files.files())):
                    self._earlier.files.drop()
            else:
                self._finish(error)
        except (OSError, SonoloopError):
            # the first error is the one to tell
            if error is None:
                raise
        finally:
            self._lock.release()

    def _finish(self, error: BaseException | None) -> None:
        earlier, table = self._earlier, self.folder / TABLE
        if error is None:
            kept = [row for row in earlier.rows_at(self._refused) if row.image not in self._images]
        else:
            kept = earlier.rows_beside(self._images, self._written)
        try:
            if kept:
                self._table.append(kept)
            self._table.close()
            if self._table.path != table:
                earlier.files.tell({table: self._table.digest})
                self._table.path.replace(table)
                earlier.files.confirm(table, self._table.digest)
        except OSError as refused:
            with suppress(OSError):
                self._table.close()
            raise self._fail(
                f"cannot replace {table}, whose rows stay; those of this run are in {self._table.path.name}",
                refused,
            ) from refused
        earlier.remove_files(kept=kept, written=self._written, all_=error is None)
        with suppress(OSError):  # what it holds now is longer, and true
            earlier.files.compact()

    def write(self, frame: Frame, prediction: Prediction, row: PredictionRow, stem: Path) -> list[str]:
        """Write a prediction where `plan_stems` says; give the pictures written, relative to the folder.

        Raises
        ------
        OutputError
            If this one cannot be written, and others might.
        SonoloopError
            If the disk takes no more.
        """
        mask = mask_path(self.folder, stem)
        pictures = {mask: encode_mask(prediction.mask)}
        if self._overlay:
            picture = draw_overlay(frame.pixels, prediction.mask, overlay_lines(row))
            pictures[overlay_path(mask)] = encode_png(Image.fromarray(picture))
        digests = {path: hashlib.sha256(data).hexdigest() for path, data in pictures.items()}
        has_row = False
        try:
            self._refuse_others(pictures)
            mask.parent.mkdir(parents=True, exist_ok=True)
            with ExitStack() as staged:
                # the stack leaves the last one first, and the mask comes after its overlay
                for path, data in pictures.items():
                    staged.enter_context(whole(path, durable=False)).write_bytes(data)
                self._append(row, digests)
                has_row = True
                if not self._overlay and self._earlier.files.is_ours(overlay_path(mask)):
                    overlay_path(mask).unlink()
        except (OSError, UnicodeError, OutputError) as error:
            if has_row:
                self._table.take_back()
                # it came to its place before the mask could not
                self._remove(overlay_path(mask), pictures.get(overlay_path(mask)))
            self._refused.append(mask)
            if isinstance(error, OutputError):
                raise
            why = error.strerror if isinstance(error, OSError) else "the disk takes no such name"
            if isinstance(error, OSError) and errno.errorcode.get(error.errno or 0) in _OF_THE_DISK:
                raise self._fail(f"cannot write the prediction of {row.image}", error) from error
            raise OutputError(
                f"its mask cannot be written as {mask.relative_to(self.folder)} ({why}); rename the image, "
                "or choose another folder with --out"
            ) from error
        for path, digest in digests.items():
            self._earlier.files.confirm(path, digest)
        self._images.add(row.image)
        self._written += pictures
        return [path.relative_to(self.folder).as_posix() for path in pictures]

    def _append(self, row: PredictionRow, digests: Mapping[Path, str]) -> None:
        try:
            self._table.append([row], files=digests, image=row.image)
        except OSError as error:
            raise self._fail(f"cannot write the prediction of {row.image}", error) from error

    def _remove(self, path: Path, data: bytes | None) -> None:
        with suppress(OSError):
            if data is not None and path.read_bytes() == data:
                path.unlink()

    def _refuse_others(self, pictures: Iterable[Path]) -> None:
        for path in pictures:
            if os.path.lexists(path) and not self._earlier.files.is_ours(path):
                raise OutputError(f"{path} {_STAYS}; {_REMEDY}")

    def _fail(self, what: str, error: OSError) -> SonoloopError:
        return SonoloopError(
            f"{what} ({error.strerror or error}); make room on the disk of {self.folder}, or choose another "
            "folder with --out"
        )


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
