"""The masks of an image, read with their alpha, and what speaks against taking them as they are.

`sonoloop data check`, an import and training read masks by the one function `read_masks`.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from sonoloop.errors import ImageError
from sonoloop.imaging.grey import to_grey
from sonoloop.imaging.io import read_channels
from sonoloop.imaging.page import Page, narrow_colour
from sonoloop.values import ClassName, Frame

FaultKind = Literal[
    "image unreadable",
    "mask unreadable",
    "mask missing",
    "mask of several pages",
    "mask empty",
    "mask of another size",
    "mask on normal",
    "mask is the image",
    "mask along the border",
    "mask over half",
    "mask not binary",
    "mask file empty",
    "mask an outline",
    "mask in specks",
    "mask tiny",
    "mask of another image",
]
# with these there is no mask to take
_UNUSABLE = frozenset(
    {
        "image unreadable",
        "mask unreadable",
        "mask missing",
        "mask of several pages",
        "mask empty",
        "mask of another size",
        "mask on normal",
    }
)
# of a file that is missing or damaged nobody can say that it is right: it is left out, and the rest goes on
_LOST = frozenset({"image unreadable", "mask unreadable", "mask missing"})

# Bounds, as shares. Of the 2,101 masks with a lesion of BUSI, BUS-BRA and BrEaST, 7 cover more than half,
# 0.576 at most, and none of these fills its box by more than 0.84; implants cover 0.50 of the border and
# touch three sides; none has more than 3 regions or holes or fewer than 511 pixels; filling holes adds
# 0.1 % at most; each is 13 pixels wide somewhere.
_HALF, _ALWAYS = 0.5, 0.6
_BOX = 0.9
_BORDER = 0.6
_SIDES = 4
_REGIONS = 16
_FILLED = 1.5
_THIN = 2
_LEAST = 16
# more than what is worn away to see whether a mask is a line
_AROUND = _THIN + 1

_LOSSY = frozenset({".jpg", ".jpeg"})
_CUT = 127
# what the compression of a JPEG leaves lies within a block of the edge
_BLOCK = 9
_GREY = (64, 191)
_GREY_MOST, _GREY_APART = 0.1, 0.002
_EIGHT = np.ones((3, 3), np.bool_)


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """What is wrong with an image or a mask."""

    kind: FaultKind
    # what exactly, with the file's name; empty where the kind says it all
    detail: str = ""
    # what was raised when it was read
    error: ImageError | None = None

    @property
    def usable(self) -> bool:
        """Whether the mask can be taken as it is all the same."""
        return self.kind not in _UNUSABLE

    @property
    def odd(self) -> bool:
        """Whether it is to be told, and taken on a person's word alone."""
        return self.kind not in _LOST


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Masks:
    """The union of an image's masks, (H, W), and what is wrong with them."""

    union: NDArray[np.bool_]
    faults: tuple[Fault, ...]


def read_masks(paths: Sequence[Path], frame: Frame, label: ClassName) -> Masks:
    """Read the masks of a frame; whatever is wrong is in the faults, nothing is raised for it."""
    union = np.zeros(frame.shape, np.bool_)
    faults: list[Fault] = []
    empty: list[str] = []
    whole = True
    for path in paths:
        try:
            pages = read_channels(path)
        except ImageError as error:
            faults.append(Fault(kind="mask unreadable", detail=str(error), error=error))
            whole = False
            continue
        found = _check_file(path, pages, frame)
        if found is not None:
            faults.append(found)
            whole = False
            continue
        mask, told = find_lesion(pages[0].pixels, lossy=path.suffix.lower() in _LOSSY)
        if _is_image(path, pages[0], frame):
            faults.append(Fault(kind="mask is the image", detail=f"{path.name} holds the image itself"))
        elif told:
            faults.append(Fault(kind="mask not binary", detail=f"{path.name} has {told}"))
        elif _hides(pages[0]):
            told = f"{path.name} has a palette that shows others of its numbers as it shows 0"
            faults.append(Fault(kind="mask not binary", detail=told))
        if not mask.any():
            empty.append(path.name)
        union |= mask
    if not paths and label != "normal":
        faults.append(Fault(kind="mask missing"))
    elif whole or union.any():
        if label != "normal" and union.any():
            faults += [
                Fault(kind="mask file empty", detail=f"{name} is empty, others are not") for name in empty
            ]
        faults += judge_union(union, label)
    return Masks(union=union, faults=tuple(faults))


def judge_union(union: NDArray[np.bool_], label: ClassName) -> list[Fault]:
    """Say what is wrong with all the lesions of an image of a class, taken together."""
    if not union.any():
        return [] if label == "normal" else [Fault(kind="mask empty")]
    if label == "normal":
        return [Fault(kind="mask on normal", detail=f"{union.mean():.1%} of the frame")]
    return _check_shape(union)


def explain(fault: Fault, image: str, label: str) -> str:
    """Say what is wrong with the masks of an image of a class, and what to do about it."""
    match fault.kind:
        case "mask missing":
            # an empty mask would teach that there is no lesion
            return f"{image} is {label} and has no mask; add it, or move it away"
        case "mask empty":
            return f"{image} is {label} and its mask is empty; draw the lesion, or correct the class"
        case "mask on normal":
            return f"{image} is normal and has a lesion in its mask; correct the class, or empty the mask"
        case _:
            # one of a mask's own file names that
            return f"{image}: {fault.detail}" if fault.detail.startswith("its mask") else fault.detail


def find_lesion(array: NDArray[Any], *, lossy: bool = False) -> tuple[NDArray[np.bool_], str]:
    """Find the lesion in a mask's page, (H, W) or (H, W, C), and say what of its levels is odd.

    A pixel is lesion where it is opaque and above the background, which is 0, or 127 in a `lossy` one. Where
    the colour is one all over what is opaque, alpha alone is the shape.
    """
    if array.ndim == 2 and array.dtype.kind in "bu" and not lossy:
        # most masks, so that it has to be quick
        lesion = np.greater(array, 0)
        return lesion, "" if (array[lesion] == array.max()).all() else _count_levels(array[..., None])
    channels = array[..., None] if array.ndim == 2 else array
    colour, alpha = channels, None
    if channels.shape[2] in (2, 4):
        colour, alpha = channels[..., :-1], channels[..., -1]
    if lossy:
        levels = colour.max(-1)
        mask = np.greater(levels, _CUT)
        return mask, _grey_apart(levels, mask)
    above: NDArray[np.bool_] = np.asarray((colour > 0).any(-1))
    if alpha is None or alpha.min() == alpha.max():
        shape = np.ones(above.shape, np.bool_) if alpha is None or alpha.max() > 0 else above & False
        mask = above & shape
    else:
        shape = np.asarray(alpha > alpha.min(), np.bool_)
        mask = shape if _is_one(colour[shape]) else above & shape
    odd = not _is_one(colour[mask]) or bool((~(colour[shape] >= 0)).any())
    if alpha is not None:
        # edges that fade, and what is half transparent
        odd |= not _is_one(alpha[shape][:, None]) or (not shape.all() and bool((alpha[~shape] != 0).any()))
    return mask, _count_levels(channels) if odd else ""


def _is_one(colours: NDArray[Any]) -> bool:
    """Whether colours (N, C) are all the same."""
    return bool((colours == colours[:1]).all())


def _count_levels(channels: NDArray[Any]) -> str:
    if channels.dtype.kind == "f" and np.isnan(channels).any():
        return "pixels that are no numbers (NaN)"
    if channels.shape[2] == 1:
        return f"{len(np.unique(channels))} levels"
    if channels.dtype != np.uint8:
        return "several colours"
    packed = np.zeros(channels.shape[:2], np.uint32)
    for number in range(channels.shape[2]):
        packed = packed << np.uint32(8) | channels[..., number]
    return f"{len(np.unique(packed))} colours"


def _hides(page: Page) -> bool:
    """Whether a palette shows numbers that are used in the colour of 0, which is the background."""
    if page.values is None or page.values.all():
        return False
    is_zero = page.values.ravel() == 0
    colours = page.pixels.reshape(is_zero.size, -1)
    return bool((colours[~is_zero] == colours[is_zero.argmax()]).all(-1).any())


def _grey_apart(levels: NDArray[Any], mask: NDArray[np.bool_]) -> str:
    """Look for grey in a JPEG that is more than what the compression leaves at the lesion's edge."""
    near = ndimage.binary_dilation(mask, _EIGHT, iterations=_BLOCK) & ~ndimage.binary_erosion(
        mask, _EIGHT, iterations=_BLOCK
    )
    grey = (levels >= _GREY[0]) & (levels <= _GREY[1])
    share = float(grey.mean())
    if share > _GREY_MOST:
        return f"{share:.0%} of grey"
    apart = float((grey & ~near).mean())
    return f"{apart:.1%} of grey away from its edges" if apart > _GREY_APART else ""


def _check_file(path: Path, pages: Sequence[Page], frame: Frame) -> Fault | None:
    if len(pages) > 1:
        return Fault(
            kind="mask of several pages", detail=f"{path.name} has {len(pages)} pages, and a mask is one"
        )
    shape = pages[0].pixels.shape[:2]
    if shape == frame.shape:
        return None
    sizes = ", its image ".join(f"{width} x {height}" for height, width in (shape, frame.shape))
    turned = "; it lies on its side" if shape == frame.shape[::-1] else ""
    return Fault(kind="mask of another size", detail=f"{path.name} is {sizes}{turned}")


def _is_image(path: Path, page: Page, frame: Frame) -> bool:
    if frame.path is not None and path.samefile(frame.path):
        return True
    # as an image is read
    grey = to_grey(narrow_colour([page])[0].pixels)
    return grey.dtype == frame.pixels.dtype and bool(np.array_equal(grey, frame.pixels))


def _check_shape(mask: NDArray[np.bool_]) -> list[Fault]:
    """Look for what no lesion is like."""
    faults: list[Fault] = []

    def tell(kind: FaultKind, detail: str) -> None:
        faults.append(Fault(kind=kind, detail=detail))

    area = int(np.count_nonzero(mask))
    pixels = mask.size
    share = area / pixels
    sides = (mask[0], mask[-1], mask[:, 0], mask[:, -1])
    border = float(np.concatenate(sides).mean())
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    box = area / ((rows[-1] - rows[0] + 1) * (columns[-1] - columns[0] + 1))
    if border > _BORDER or sum(bool(side.any()) for side in sides) == _SIDES:
        inverted = "; is it inverted?" if share > _HALF else ""
        tell("mask along the border", f"its mask covers {border:.0%} of the frame's border{inverted}")
    if share > _ALWAYS or (share > _HALF and box > _BOX):
        tell("mask over half", f"its mask covers {share:.0%} of the frame")
    # beyond it there is nothing to see
    mask = mask[max(0, rows[0] - _AROUND) : rows[-1] + 1 + _AROUND]
    mask = mask[:, max(0, columns[0] - _AROUND) : columns[-1] + 1 + _AROUND]
    regions = int(ndimage.label(mask, _EIGHT)[1])
    filled = ndimage.binary_fill_holes(mask)
    holes = int(ndimage.label(filled & ~mask)[1])
    if regions > _REGIONS:
        tell("mask in specks", f"its mask lies in {regions} regions")
    elif holes > _REGIONS:
        tell("mask in specks", f"its mask has {holes} holes")
    elif filled.sum() > _FILLED * area:
        tell("mask an outline", "its mask is an outline that is not filled")
    elif area < _LEAST:
        tell("mask tiny", f"its mask covers {area} pixels of {pixels:,}")
    elif not ndimage.binary_erosion(mask, _EIGHT, iterations=_THIN, border_value=1).any():
        tell("mask an outline", f"its mask is a line, nowhere wider than {2 * _THIN} pixels")
    return faults


def hash_mask(mask: NDArray[np.bool_]) -> str:
    """Hash a mask's shape and pixels."""
    return hashlib.sha256(f"{mask.shape}".encode() + np.packbits(mask).tobytes()).hexdigest()


def find_shared(known: Iterable[tuple[str, str, str]], names: Mapping[str, str]) -> dict[str, Fault]:
    """Find masks that images of other pixels have too, by the image's key.

    `known` has the key, the pixels and the mask of each, as hashes; `names` what each is called.
    """
    by_mask: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    for key, pixels, mask in known:
        by_mask[mask][pixels].append(key)
    shared: dict[str, Fault] = {}
    for images in by_mask.values():
        for pixels, keys in images.items():
            others = [names[key] for other, same in images.items() if other != pixels for key in same]
            if others:
                more = f" and {len(others) - 1} more" if len(others) > 1 else ""
                told = f"its mask is the very mask of {others[0]}{more}"
                shared |= dict.fromkeys(keys, Fault(kind="mask of another image", detail=told))
    return shared
