"""A corrected frame, read again from its file, and known to be the same."""

from __future__ import annotations

from sonoloop.errors import ImageError, TrainingError
from sonoloop.imaging.io import read_study
from sonoloop.store.file_index import Place
from sonoloop.values import Frame


def reread(place: Place | None, pixels_hash: str) -> Frame:
    """Read a frame, and make sure that it is the one that was corrected.

    Parameters
    ----------
    place : Place, optional
        Where its file was last seen.
    pixels_hash : str
        Of the frame that was corrected.

    Raises
    ------
    TrainingError
        If the file is gone or cannot be read, or the pixels are others. File names carry names of people, and
        what is told is kept: there is none in it.
    """
    if place is None or not place.path.is_file():
        raise TrainingError(describe_missing(place))
    try:
        frames = read_study(place.path).frames
    except ImageError as error:
        told = str(error).replace(str(place.path), "its file").replace(place.path.name, "its file")
        raise TrainingError(told) from error
    if place.index >= len(frames):
        raise TrainingError(f"its file has {len(frames)} frames, and it was number {place.index}")
    frame = frames[place.index]
    if frame.pixels_hash != pixels_hash:
        raise TrainingError("its file has other pixels than when it was corrected")
    return frame


def describe_missing(place: Place | None) -> str:
    """Say that a frame's file is not there, without its name."""
    return "where its file is was never known on this machine" if place is None else "its file is gone"
