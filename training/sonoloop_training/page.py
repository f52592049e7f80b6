"""One HTML page that needs nothing else: headings, text, tables, figures and images."""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from html import escape

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image

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
_STYLE = """
:root { color-scheme: light dark; --ink: #1b1f24; --paper: #ffffff; --quiet: #57606a; --line: #d0d7de;
  --band: #f6f8fa; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e6edf3; --paper: #0d1117; --quiet: #9198a1; --line: #3d444d; --band: #161b22; } }
body { margin: 0 auto; max-width: 72rem; padding: 1.5rem; color: var(--ink); background: var(--paper);
  font: 15px/1.5 system-ui, sans-serif; }
h1 { margin: 0 0 .2rem; font-size: 1.6rem; }
h2 { margin: 2.2rem 0 .6rem; padding-bottom: .2rem; font-size: 1.2rem; border-bottom: 1px solid var(--line); }
p { max-width: 48rem; }
.notice, figcaption, caption { color: var(--quiet); font-size: .87rem; }
.scroll { overflow-x: auto; }
table { margin: .8rem 0; border-collapse: collapse; font-variant-numeric: tabular-nums; }
caption { padding-bottom: .3rem; text-align: left; }
th, td { padding: .25rem .8rem .25rem 0; text-align: left; vertical-align: top;
  border-bottom: 1px solid var(--line); overflow-wrap: break-word; }
th { white-space: nowrap; }
.number { text-align: right; white-space: nowrap; }
figure { margin: .8rem 0; }
figure img { max-width: 100%; height: auto; border-radius: 4px; }
.images { display: flex; flex-wrap: wrap; gap: .8rem; }
.images figure { margin: 0; max-width: 15rem; padding: .5rem; background: var(--band); border-radius: 6px; }
.images img { display: block; margin-bottom: .3rem; max-height: 13rem; }
"""


class Page:
    """A page that grows from top to bottom; every text given to it is escaped.

    Parameters
    ----------
    title : str
        The page's name and first heading.
    """

    def __init__(self, title: str) -> None:
        self._title = escape(title)
        self._parts: list[str] = []

    def heading(self, text: str) -> None:
        """Begin a section."""
        self._parts.append(f"<h2>{escape(text)}</h2>")

    def paragraph(self, text: str) -> None:
        """Add a paragraph of plain text."""
        self._parts.append(f"<p>{escape(text)}</p>")

    def table(
        self, header: Sequence[str], rows: Iterable[Sequence[object]], caption: str | None = None
    ) -> None:
        """Add a table; cells that hold a number are set to the right."""
        lines = [list(row) for row in rows]
        for line in lines:
            if len(line) != len(header):
                raise ValueError(f"a row has {len(line)} cells, the header {len(header)}: {line}")
        right = [
            bool(lines) and all(_is_number(line[column]) for line in lines) for column in range(len(header))
        ]
        above = f"<caption>{escape(caption)}</caption>" if caption else ""
        head = _row("th", header, right)
        body = "\n".join(_row("td", line, right) for line in lines)
        self._parts.append(
            f'<div class="scroll"><table>{above}<thead>{head}</thead>\n<tbody>{body}</tbody></table></div>'
        )

    def figure(self, figure: Figure, caption: str) -> None:
        """Add a matplotlib figure; its caption is also what a screen reader says."""
        self._parts.append(_picture(figure_to_uri(figure), caption))

    def images(
        self, images: Iterable[tuple[NDArray[np.uint8], str]], caption: str | None = None, *, side: int = 320
    ) -> None:
        """Add images side by side: uint8 (H, W) or (H, W, 3), each with its caption."""
        shown = "\n".join(_picture(image_to_uri(pixels, side=side), text) for pixels, text in images)
        above = f'<p class="notice">{escape(caption)}</p>' if caption else ""
        self._parts.append(f'{above}<div class="images">{shown}</div>')

    def to_html(self) -> str:
        """Return the page as one document."""
        body = "\n".join(self._parts)
        return (
            '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
            '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
            f"<title>{self._title}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n<h1>{self._title}</h1>\n"
            '<p class="notice">Made by Sonoloop. For research use only, not for diagnosis.</p>\n'
            f"{body}\n</body>\n</html>\n"
        )


def _is_number(value: object) -> bool:
    return _NUMBER.fullmatch(str(value)) is not None


def _row(tag: str, cells: Sequence[object], right: Sequence[bool]) -> str:
    kinds = [' class="number"' if number else "" for number in right]
    shown = "".join(
        f"<{tag}{kind}>{escape(str(cell))}</{tag}>" for cell, kind in zip(cells, kinds, strict=True)
    )
    return f"<tr>{shown}</tr>"


def _picture(uri: str, caption: str) -> str:
    text = escape(caption)
    return f'<figure><img src="{uri}" alt="{text}"><figcaption>{text}</figcaption></figure>'
