"""What an earlier run wrote into a folder of predictions, and what of it a new one takes away."""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterable
from pathlib import Path, PurePath

import numpy as np

from sonoloop.errors import ImageError, SonoloopError
from sonoloop.formats.mask_png import read_mask
from sonoloop.formats.predictions import TABLE, PredictionRow, read_predictions
from sonoloop.imaging.files import MASKS, fold_case


def mask_path(folder: Path, stem: PurePath) -> Path:
    """Return where the mask of an image goes, whose stem is from `plan_stems`."""
    return folder / MASKS / stem.parent / f"{stem.name}_mask.png"


def overlay_path(mask: Path) -> Path:
    """Return where the overlay that belongs to a mask goes."""
    return mask.with_name(mask.name.removesuffix("_mask.png") + "_overlay.png")


class EarlierRun:
    """The rows of a `predictions.csv`, each with its mask where that can be told.

    Parameters
    ----------
    folder : pathlib.Path
        Holds the table. Without one, or with one that cannot be read, there was no earlier run.
    """

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

        Raises
        ------
        SonoloopError
            If a file cannot be removed; the message names it.
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
