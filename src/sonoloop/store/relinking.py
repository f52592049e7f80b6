"""Finding the files of a store's frames again after they were moved, renamed or saved anew."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy import not_, select

from sonoloop.errors import ImageError
from sonoloop.imaging.files import find_images
from sonoloop.imaging.io import read_study
from sonoloop.store.file_index import Place, Places
from sonoloop.store.revisions import is_withdrawn
from sonoloop.store.tables import FRAMES

if TYPE_CHECKING:
    from sonoloop.store.corrections import CorrectionStore


@dataclass(frozen=True, slots=True, kw_only=True)
class Searching:
    """How far a search is: images looked at, of all, and frames found in them."""

    done: int
    total: int
    found: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Relinked:
    """What a search came to.

    Parameters
    ----------
    images, unreadable : int
        Files looked at, and how many of them could not be read.
    found : tuple of str
        Ids of the frames whose files are known now and were not before.
    resaved : tuple of str
        Those among them whose file has other bytes and the same pixels.
    missing : tuple of str
        Ids of the frames that were asked for and have no file, neither where it was nor where was searched.
    """

    images: int
    unreadable: int
    found: tuple[str, ...]
    resaved: tuple[str, ...]
    missing: tuple[str, ...]


def known_frames(store: CorrectionStore) -> dict[str, str]:
    """Name the frames of a store that a search may look for: all but those that were withdrawn.

    Parameters
    ----------
    store : CorrectionStore
        Open.

    Returns
    -------
    dict
        The pixels hash of each, as `relink` takes it.
    """
    with store.reading() as connection:
        query = select(FRAMES.c.id, FRAMES.c.pixels_hash).where(not_(is_withdrawn(FRAMES.c.id)))
        return {row.id: row.pixels_hash for row in connection.execute(query)}


def relink(places: Places, folder: Path, known: Mapping[str, str]) -> Iterator[Searching | Relinked]:
    """Look for frames whose files were moved, renamed, saved anew or changed, by either hash.

    A frame whose file is where it was and still has its pixels stays there.

    Parameters
    ----------
    places : Places
        Where what is found is noted.
    folder : pathlib.Path
        Searched with its subfolders.
    known : mapping
        The pixels hash of each frame id that is looked for, as from `known_frames`.

    Yields
    ------
    Searching or Relinked
        A step an image, and the result last. What was found so far is kept if the caller stops.

    Raises
    ------
    ImageMissingError
        If there is no such folder.
    """
    images = find_images([folder])
    by_pixels: dict[str, list[str]] = {}
    for frame_id, pixels_hash in known.items():
        by_pixels.setdefault(pixels_hash, []).append(frame_id)
    found: set[str] = set()
    resaved: set[str] = set()
    there: set[str] = set()
    unreadable = 0
    for done, image in enumerate(images):
        yield Searching(done=done, total=len(images), found=len(found | resaved))
        try:
            frames = read_study(image.path).frames
        except ImageError:
            unreadable += 1
            continue
        for index, frame in enumerate(frames):
            same = [frame.id] if frame.id in known else []
            others = [one for one in by_pixels.get(frame.pixels_hash, []) if one not in {*same, *found}]
            for frame_id in (*same, *others):
                place = places.find(frame_id)
                here = place is not None and (place.path, place.index) == (image.path.absolute(), index)
                if frame_id not in there and (here or _is_there(place, frame.pixels_hash)):
                    there.add(frame_id)
                if frame_id in there - found - resaved:
                    continue
                places.remember(frame_id, image.path, index=index, pixels_hash=frame.pixels_hash)
                there.add(frame_id)
                (found if frame_id in same else resaved).add(frame_id)
    yield Searching(done=len(images), total=len(images), found=len(found | resaved))
    yield Relinked(
        images=len(images),
        unreadable=unreadable,
        found=tuple(sorted(found | resaved)),
        resaved=tuple(sorted(resaved - found)),
        missing=tuple(sorted(frame_id for frame_id in known if not _is_file(places.find(frame_id)))),
    )


def _is_file(place: Place | None) -> bool:
    return place is not None and place.path.is_file()


def _is_there(place: Place | None, pixels_hash: str) -> bool:
    """Whether a frame's file is where it was, with the pixels that it had."""
    if place is None or not place.path.is_file():
        return False
    try:
        frames = read_study(place.path).frames
    except ImageError:
        return False
    return place.index < len(frames) and frames[place.index].pixels_hash == pixels_hash
