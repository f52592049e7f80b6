"""`sonoloop annotate`: napari with a queue of frames to go through."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sonoloop.cli.open import check_window
from sonoloop.errors import SonoloopError


def annotate(
    paths: Annotated[
        list[Path],
        typer.Argument(
            metavar="FOLDER|TABLE...",
            help="Folders, images, or a CSV table with a column path; patient, class, group and name may "
            "stand beside it.",
        ),
    ],
    store: Annotated[
        str | None,
        typer.Option("--store", help="File or URL of the correction store; the preferences' if not given."),
    ] = None,
) -> None:
    """Go through the images of a folder or a table in napari, one after another."""
    for path in paths:
        if not path.exists():
            raise SonoloopError(f"there is no file or folder {path}; check the path")
    store = check_window(store)
    from sonoloop.gui import open_viewer  # noqa: PLC0415 - seconds, and only this command needs it
    from sonoloop.gui.annotate.queue_list import list_frames  # noqa: PLC0415 - the same

    open_viewer(queue=list_frames(paths), store=store)
