"""`sonoloop samples`: the simulated images as files."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from sonoloop.cli.console import say
from sonoloop.errors import SonoloopError
from sonoloop.regular_files import read_regular


def samples(
    out: Annotated[
        Path, typer.Option("--out", help="Folder to write the images to; made where it is not there.")
    ],
) -> None:
    """Write the sample study: three simulated images, each with its true mask beside it."""
    from PIL import Image  # noqa: PLC0415 - only what this command needs

    from sonoloop.atomic import whole  # noqa: PLC0415
    from sonoloop.formats.mask_png import encode_mask, encode_png  # noqa: PLC0415
    from sonoloop.imaging.phantom import sample_study  # noqa: PLC0415

    try:
        out.mkdir(parents=True, exist_ok=True)
        pictures: dict[Path, bytes] = {}
        for phantom in sample_study():
            pictures[out / f"phantom-{phantom.label}.png"] = encode_png(Image.fromarray(phantom.image))
            pictures[out / f"phantom-{phantom.label}_mask.png"] = encode_mask(phantom.mask)
        for path, data in pictures.items():
            if os.path.lexists(path) and not _holds(path, data):
                raise SonoloopError(
                    f"{path} is another file than the sample and would be lost; move it away, or choose "
                    "another folder"
                )
        for path, data in pictures.items():
            with whole(path, durable=False) as partial:
                partial.write_bytes(data)
            if not path.stem.endswith("_mask"):
                say(str(path))
    except OSError as error:
        raise SonoloopError(f"cannot write into {out} ({error.strerror}); choose another folder") from error


def _holds(path: Path, data: bytes) -> bool:
    try:
        return read_regular(path, most=len(data)) == data
    except OSError:
        return False
