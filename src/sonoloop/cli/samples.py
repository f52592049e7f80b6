"""`sonoloop samples`: the simulated images as files."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sonoloop.cli.console import say
from sonoloop.errors import SonoloopError


def samples(
    out: Annotated[
        Path, typer.Option("--out", help="Folder to write the images to; made where it is not there.")
    ],
) -> None:
    """Write the sample study: three simulated images, each with its true mask beside it."""
    from PIL import Image  # noqa: PLC0415 - only what this command needs

    from sonoloop.formats.mask_png import write_mask, write_png  # noqa: PLC0415
    from sonoloop.imaging.phantom import sample_study  # noqa: PLC0415

    try:
        out.mkdir(parents=True, exist_ok=True)
        for phantom in sample_study():
            write_png(out / f"phantom-{phantom.label}.png", Image.fromarray(phantom.image))
            write_mask(out / f"phantom-{phantom.label}_mask.png", phantom.mask)
            say(str(out / f"phantom-{phantom.label}.png"))
    except OSError as error:
        raise SonoloopError(f"cannot write into {out} ({error.strerror}); choose another folder") from error
