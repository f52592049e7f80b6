"""Tissue moved within an image and between images: lesions painted out, lesions put elsewhere, other looks.

Images without a lesion are few, and those that there are may all be from one hospital. A lesion that is
painted out leaves the same image, its shadow with it, as one that has none; one that is put into another
image is found by what it is, and not by where it came from. After Ghiasi et al., Simple Copy-Paste is a
Strong Data Augmentation Method for Instance Segmentation, CVPR 2021; the look is exchanged as in Yang and
Soatto, FDA: Fourier Domain Adaptation for Semantic Segmentation, CVPR 2020.

Images are float (1, S, S) in [0, 1], letterboxed in black; masks are uint8 (1, S, S), 1 in a lesion. What is
random comes from torch's generator.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own abbreviation

# what belongs to a lesion beside its mask, as a share of its larger side: its margin
_MARGIN = 0.12
_TRIES = 24
# how far from its depth a lesion is put, and tissue is taken, as shares of the side
_DEEPER, _NEAR_DEPTH = 0.25, 0.04
# pixels of tissue beside a lesion that are enough to cover it, and their share of its width
_LEAST, _LEAST_SHARE = 8, 0.12
# how much smaller and larger a lesion becomes, and by how much brightness follows a new place
_SIZES, _GAINS = (0.3, 1.1), (0.6, 1.6)
# spatial frequencies from 0 to so many whose amplitudes are exchanged at most, and the largest share
_FREQUENCIES, _SHARE = 3, 0.6

Box = tuple[int, int, int, int]


def paint_out(image: torch.Tensor, mask: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Cover every lesion with tissue from its left and right, mirrored at its sides as often as needed.

    Layers of tissue lie, and echoes fade, along depth: so each row is filled with what lies about as deep.
    Unchanged where too little tissue is beside it.
    """
    if not mask.any():
        return image, mask
    top, left, bottom, right = box = _grow(_box(mask), mask, _margin(mask))
    lit = _box(image > 0)
    width, least = right - left, max(_LEAST, round(_LEAST_SHARE * (right - left)))
    strips = [
        image[..., lit[1] : left].flip(-1) if left - lit[1] >= least else None,
        image[..., right : lit[3]] if lit[3] - right >= least else None,
    ]
    if strips == [None, None]:
        return image, mask
    # what comes from one side, and from which column on from the other, with a soft seam
    seam = 0 if strips[0] is None else width if strips[1] is None else _draw(width // 4, 3 * width // 4)
    columns = torch.arange(width)
    ours = (
        torch.sigmoid((seam - columns) / (0.03 * width + 1)) if 0 < seam < width else (columns < seam).float()
    )
    around = _cut(image, box)[_ring(_cut(mask, box))]
    tissue = torch.zeros_like(_cut(image, box))
    for strip, away, share in zip(strips, (columns, width - 1 - columns), (ours, 1 - ours), strict=True):
        if strip is None:
            continue
        # there and back again over the strip, a little deeper or not as deep, or one would see the mirror
        reach = strip.shape[-1]
        turn = away % (2 * reach)
        place = torch.where(turn < reach, turn, 2 * reach - 1 - turn)
        deeper = _draw(-min(top, _reach(mask)), min(mask.shape[-2] - bottom, _reach(mask)))
        part = strip[..., top + deeper : bottom + deeper, :][..., place]
        tissue = tissue + part * _gain(around, part) * share
    return _lay(image, tissue, _soften(_cut(mask, box)), box), torch.zeros_like(mask)


def put_in(
    image: torch.Tensor, mask: torch.Tensor, donor: torch.Tensor, donor_mask: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Put a donor's lesions, larger or smaller, at about their depth beside those that are there.

    Unchanged where the donor has none or there is no room.
    """
    if not donor_mask.any():
        return image, mask
    box = _grow(_box(donor_mask), donor_mask, _margin(donor_mask))
    scale = float(torch.empty(()).uniform_(*_SIZES))
    size = [max(4, round(scale * (box[i + 2] - box[i]))) for i in (0, 1)]
    lesion = F.interpolate(
        _cut(donor, box)[None], size, mode="bilinear", align_corners=False, antialias=True
    )[0]
    shape = F.interpolate(_cut(donor_mask, box)[None].float(), size, mode="nearest")[0].to(mask.dtype)
    lit = _box(image > 0)
    depth = (box[0] + box[2]) / 2 / mask.shape[-2]
    for _ in range(_TRIES):
        centre = (depth + float(torch.empty(()).uniform_(-_DEEPER, _DEEPER))) * mask.shape[-2]
        row, column = round(centre - size[0] / 2), _draw(lit[1], max(lit[1], lit[3] - size[1]))
        target = (row, column, row + size[0], column + size[1])
        if not _inside(target, lit) or _cut(mask, target).any():
            continue
        ring = _ring(shape)
        lesion = lesion * _gain(_cut(image, target)[ring], lesion[ring])
        put = mask.clone()
        put[..., target[0] : target[2], target[1] : target[3]] |= shape
        return _lay(image, lesion, _soften(shape), target), put
    return image, mask


def exchange_look(image: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """Take the amplitudes of the lowest spatial frequencies, in part, from another image; phases stay."""
    spectrum = torch.fft.rfft2(image)
    amplitude, theirs = spectrum.abs(), torch.fft.rfft2(other).abs()
    reach = _draw(1, _FREQUENCIES)
    share = float(torch.empty(()).uniform_(0, _SHARE))
    for rows in (slice(0, reach), slice(-reach + 1, None) if reach > 1 else slice(0, 0)):
        mixed = share * theirs[..., rows, :reach] + (1 - share) * amplitude[..., rows, :reach]
        amplitude[..., rows, :reach] = mixed
    looks: torch.Tensor = torch.fft.irfft2(torch.polar(amplitude, spectrum.angle()), s=image.shape[-2:])
    # the black around stays black
    return looks.clamp(0, 1) * (image > 0)


def _margin(mask: torch.Tensor) -> int:
    top, left, bottom, right = _box(mask)
    return 2 + round(_MARGIN * max(bottom - top, right - left))


def _reach(mask: torch.Tensor) -> int:
    return round(_NEAR_DEPTH * mask.shape[-2])


def _box(where: torch.Tensor) -> Box:
    """Give the rows and columns that hold what is true: top, left, and bottom, right behind the last."""
    rows, columns = (torch.nonzero(where[0].any(axis))[:, 0] for axis in (1, 0))
    if not len(rows):
        return 0, 0, 0, 0
    return int(rows[0]), int(columns[0]), int(rows[-1]) + 1, int(columns[-1]) + 1


def _grow(box: Box, within: torch.Tensor, margin: int) -> Box:
    height, width = within.shape[-2:]
    top, left, bottom, right = box
    return (
        max(0, top - margin),
        max(0, left - margin),
        min(height, bottom + margin),
        min(width, right + margin),
    )


def _inside(box: Box, outer: Box) -> bool:
    return outer[0] <= box[0] and outer[1] <= box[1] and box[2] <= outer[2] and box[3] <= outer[3]


def _cut(image: torch.Tensor, box: Box) -> torch.Tensor:
    return image[..., box[0] : box[2], box[1] : box[3]]


def _ring(shape: torch.Tensor) -> torch.Tensor:
    """Say where a lesion's box shows what is around it."""
    return shape == 0


def _soften(shape: torch.Tensor) -> torch.Tensor:
    """Cover a lesion and half of its margin, and fade out towards the edge of its box; float in [0, 1]."""
    reach = max(1, round(_MARGIN / 2 * max(shape.shape[-2:])))
    cover = F.max_pool2d(shape[None].float(), 2 * reach + 1, 1, reach)
    cover = F.avg_pool2d(cover, 2 * reach + 1, 1, reach, count_include_pad=True)
    return cover[0]


def _gain(around: torch.Tensor, tissue: torch.Tensor) -> float:
    """Say by what tissue is multiplied to be as bright as what will be around it."""
    if not around.numel() or not tissue.numel():
        return 1.0
    low, high = _GAINS
    return min(high, max(low, float((around.mean() + 0.02) / (tissue.mean() + 0.02))))


def _lay(image: torch.Tensor, part: torch.Tensor, cover: torch.Tensor, box: Box) -> torch.Tensor:
    laid = image.clone()
    under = _cut(image, box)
    laid[..., box[0] : box[2], box[1] : box[3]] = (under * (1 - cover) + part * cover).clamp(0, 1)
    return laid


def _draw(first: int, last: int) -> int:
    """Draw a whole number between two, both included."""
    return int(torch.randint(first, max(first, last) + 1, ()))
