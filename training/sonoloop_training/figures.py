"""Figures and images as data URIs, and the look that every figure shares."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator
from contextlib import contextmanager

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image

# Okabe and Ito's colours, told apart by colour-blind eyes too (jfly.uni-koeln.de/color)
CLASS_COLOURS = {"normal": "#009E73", "benign": "#0072B2", "malignant": "#D55E00"}
_STYLE = {
    "font.size": 9.0,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 10.0,
    "figure.dpi": 110.0,
    "legend.frameon": False,
}


@contextmanager
def new_figure(width: float = 6.0, height: float = 3.4) -> Iterator[Figure]:
    """Give an empty figure in the shared style, sides in inches; draw on it inside the ``with``."""
    with mpl.rc_context(_STYLE):  # type: ignore[arg-type]
        # no pyplot: it would look for a display and keep every figure
        yield Figure(figsize=(width, height), layout="constrained")


def figure_to_uri(figure: Figure) -> str:
    """Draw a figure as PNG on white, as a data URI."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", facecolor="white", metadata={"Software": None})
    return _uri(buffer.getvalue(), "png")


def image_to_uri(pixels: NDArray[np.uint8], *, side: int = 320) -> str:
    """Encode an image as JPEG, as a data URI.

    Parameters
    ----------
    pixels : numpy.ndarray
        uint8, grey (H, W) or colour (H, W, 3).
    side : int
        Longest side in pixels; larger images are shrunk to it.

    Raises
    ------
    ValueError
        If the pixels are not of that kind.
    """
    if pixels.dtype != np.uint8 or not (pixels.ndim == 2 or (pixels.ndim == 3 and pixels.shape[2] == 3)):
        raise ValueError(f"pixels must be uint8 (H, W) or (H, W, 3), got {pixels.dtype} {pixels.shape}")
    image = Image.fromarray(pixels)
    image.thumbnail((side, side), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    image.save(buffer, format="JPEG", quality=82)
    return _uri(buffer.getvalue(), "jpeg")


def _uri(data: bytes, kind: str) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(data).decode('ascii')}"
