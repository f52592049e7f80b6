"""`sonoloop open`: napari with the panel docked."""

from __future__ import annotations

import os
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import typer

from sonoloop.errors import SonoloopError

_QT_BINDINGS = ("PyQt6", "PySide6", "PyQt5", "PySide2")


def open_images(
    paths: Annotated[
        list[Path] | None,
        typer.Argument(metavar="[PATH]...", help="Images or folders; the sample study if none."),
    ] = None,
    predict: Annotated[bool, typer.Option(help="Predict the first image at once.")] = True,
    store: Annotated[
        str | None,
        typer.Option("--store", help="File or URL of the correction store; the preferences' if not given."),
    ] = None,
) -> None:
    """Open images in napari with the Annotate panel docked."""
    for path in paths or ():
        if not path.exists():
            raise SonoloopError(f"there is no file or folder {path}; check the path")
    store = check_window(store)
    from sonoloop.gui import open_viewer  # noqa: PLC0415 - seconds, and only this command needs it

    open_viewer(paths or None, predict=predict, store=store)


def check_window(store: str | None) -> str | None:
    """Refuse where no window can open; give the store as it is found from anywhere."""
    if not has_display():
        raise SonoloopError(
            "there is no display to open a window on; run it on a desktop, or use `sonoloop predict` here"
        )
    if not any(find_spec(binding) for binding in _QT_BINDINGS):
        raise SonoloopError(
            'napari needs a Qt binding to open a window; run: pip install "napari-sonoloop[annotate]"'
        )
    return store if store is None or "://" in store else str(Path(store).absolute())


def has_display() -> bool:
    """Whether a window can open; only X11 and Wayland may be without one."""
    if sys.platform in ("win32", "darwin"):
        return True
    return any(os.environ.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY"))
