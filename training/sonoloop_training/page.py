"""One HTML page that needs nothing else: headings, text, tables, figures and images."""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jinja2
import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image

from sonoloop.plain_text import shown

# Okabe and Ito's colours, told apart by colour-blind eyes too (jfly.uni-koeln.de/color)
CLASS_COLOURS = {"normal": "#009E73", "benign": "#0072B2", "malignant": "#D55E00"}
_FIGURE_STYLE = {
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
    with mpl.rc_context(_FIGURE_STYLE):  # type: ignore[arg-type]
        # no pyplot: it would look for a display and keep every figure
        yield Figure(figsize=(width, height), layout="constrained")


def figure_to_uri(figure: Figure) -> str:
    """Draw a figure as PNG on white, as a data URI."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", facecolor="white", metadata={"Software": None})
    return _uri(buffer.getvalue(), "png")


def image_to_uri(pixels: NDArray[np.uint8], *, side: int = 320) -> str:
    """Encode an image as JPEG, as a data URI."""
    if pixels.dtype != np.uint8 or not (pixels.ndim == 2 or (pixels.ndim == 3 and pixels.shape[2] == 3)):
        raise ValueError(f"pixels must be uint8 (H, W) or (H, W, 3), got {pixels.dtype} {pixels.shape}")
    image = Image.fromarray(pixels)
    image.thumbnail((side, side), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    image.save(buffer, format="JPEG", quality=82)
    return _uri(buffer.getvalue(), "jpeg")


def _uri(data: bytes, kind: str) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(data).decode('ascii')}"


# one number, or a dash for none
_NUMBER = re.compile(r"-?|[-+]?\d[\d,]*(\.\d+)?( ?%)?")


class Page:
    """A page that grows from top to bottom; every text given to it is escaped."""

    def __init__(self, title: str) -> None:
        self._title = title
        # the kind of each part, and what `page.html` asks for of that kind
        self._parts: list[tuple[str, Any]] = []

    def heading(self, text: str) -> None:
        """Begin a section."""
        self._parts.append(("heading", text))

    def paragraph(self, text: str) -> None:
        """Add a paragraph of plain text."""
        self._parts.append(("paragraph", text))

    def table(
        self, header: Sequence[str], rows: Iterable[Sequence[object]], caption: str | None = None
    ) -> None:
        """Add a table; columns of numbers are set to the right."""
        lines = [list(row) for row in rows]
        for line in lines:
            if len(line) != len(header):
                raise ValueError(f"a row has {len(line)} cells, the header {len(header)}: {line}")
        right = [
            bool(lines) and all(_NUMBER.fullmatch(str(line[column])) for line in lines)
            for column in range(len(header))
        ]
        self._parts.append(("table", {"header": header, "rows": lines, "right": right, "caption": caption}))

    def figure(self, figure: Figure, caption: str) -> None:
        """Add a matplotlib figure; its caption is also what a screen reader says."""
        self._parts.append(("figure", (figure_to_uri(figure), caption)))

    def images(
        self, images: Iterable[tuple[NDArray[np.uint8], str]], caption: str | None = None, *, side: int = 320
    ) -> None:
        """Add images side by side: uint8 (H, W) or (H, W, 3), each with its caption."""
        shown = [(image_to_uri(pixels, side=side), text) for pixels, text in images]
        self._parts.append(("images", {"shown": shown, "caption": caption}))

    def to_html(self) -> str:
        """Return the page as one document."""
        environment = jinja2.Environment(
            loader=jinja2.FileSystemLoader(Path(__file__).parent),
            autoescape=True,
            trim_blocks=True,
            lstrip_blocks=True,
            keep_trailing_newline=True,
            # names of files may turn a line around, or be no text
            finalize=lambda value: shown(value, keep="\n") if type(value) is str else value,
        )
        return environment.get_template("page.html").render(title=self._title, parts=self._parts)
