"""napari's own icons in the colour of the theme."""

from __future__ import annotations

from napari.resources import get_colorized_svg, get_icon_path
from napari.utils.theme import get_theme
from qtpy.QtGui import QIcon, QPixmap

_PIXELS = 64  # drawn large, so that it stays sharp on a scaled screen
_FAINT = 0.4


def themed_icon(name: str, theme: str) -> QIcon:
    """Return one of napari's icons in a theme's icon colour, fainter for a disabled button."""
    icon = QIcon(_draw(name, theme, 1))
    icon.addPixmap(_draw(name, theme, _FAINT), QIcon.Mode.Disabled)
    return icon


def _draw(name: str, theme: str, opacity: float) -> QPixmap:
    svg = get_colorized_svg(get_icon_path(name), get_theme(theme).icon.as_hex(), opacity)
    pixmap = QPixmap()
    pixmap.loadFromData(svg.encode(), "SVG")
    return pixmap if pixmap.isNull() else pixmap.scaledToHeight(_PIXELS)
