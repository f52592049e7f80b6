"""A part of an image's width as an image of its own: with the lesion, or beside it.

Images without a lesion are few, and in the public sets all from one hospital. What lies beside a lesion is
breast without one, from every scanner. Cut images with the lesion keep their class, so that a cut alone tells
nothing.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own abbreviation

from sonoloop.values import CLASSES

_NARROWEST, _WIDEST = 0.4, 0.75
# next to a lesion lie its margin and its shadow
_MARGIN = 0.05


def cut_strip(image: torch.Tensor, mask: torch.Tensor, label: int) -> tuple[torch.Tensor, torch.Tensor, int]:
    """Cut a random strip that holds the whole lesion or none of it.

    Parameters
    ----------
    image : torch.Tensor
        float (1, S, S) in [0, 1], letterboxed: black borders.
    mask : torch.Tensor
        uint8 (1, S, S).
    label : int
        Index into `CLASSES`.

    Returns
    -------
    tuple
        Image and mask with the strip centred and as large as fits, and the label: normal where the strip lies
        beside the lesion. Unchanged where no such strip was drawn.
    """
    side = image.shape[-1]
    lit = torch.nonzero(image[0].amax(0) > 0)[:, 0]
    if len(lit) < side // 4:
        return image, mask, label
    first, last = int(lit[0]), int(lit[-1]) + 1
    width = int((last - first) * torch.empty(()).uniform_(_NARROWEST, _WIDEST))
    start = int(torch.randint(first, max(first, last - width) + 1, ()))
    stop = start + width
    rows = torch.nonzero(image[0, :, start:stop].amax(1) > 0)[:, 0]
    if len(rows) == 0:
        return image, mask, label
    lesion = torch.nonzero(mask[0].amax(0))[:, 0]
    if len(lesion):
        left, right = int(lesion[0]), int(lesion[-1]) + 1
        margin = int(_MARGIN * (last - first))
        if stop <= left - margin or start >= right + margin:
            label = CLASSES.index("normal")
        elif not (start <= left and right <= stop):
            return image, mask, label
    image, mask = image[..., start:stop], mask[..., start:stop]
    top, bottom = int(rows[0]), int(rows[-1]) + 1
    return _fit(image[:, top:bottom], side, "bilinear"), _fit(mask[:, top:bottom], side, "nearest"), label


def _fit(part: torch.Tensor, side: int, mode: str) -> torch.Tensor:
    height, width = part.shape[-2:]
    scale = side / max(height, width)
    size = (max(1, round(height * scale)), max(1, round(width * scale)))
    smooth = {"align_corners": False} if mode == "bilinear" else {}
    grown = F.interpolate(part[None].float(), size, mode=mode, **smooth)[0].to(part.dtype)
    above, before = (side - size[0]) // 2, (side - size[1]) // 2
    return F.pad(grown, (before, side - size[1] - before, above, side - size[0] - above))
