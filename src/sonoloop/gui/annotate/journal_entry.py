"""An entry of the journal: a frame's work as it was captured, and what becomes of the file that keeps it.

All of this runs in the journal's thread and knows no layer and no Qt.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from sonoloop.drafts import Draft, DraftFolder
from sonoloop.gui.annotate.layers import Source
from sonoloop.gui.words import shorten
from sonoloop.values import ClassName, Label

if TYPE_CHECKING:
    from sonoloop.store.revisions import Revision


@dataclass(frozen=True, slots=True, eq=False)
class Content:
    """What is seen of a person's work on a frame: the mask, None where there is no layer, and the classes."""

    mask: NDArray[np.uint8] | None
    label: Label | None
    lesions: Mapping[int, ClassName]

    def drawn(self, shape: tuple[int, int]) -> NDArray[np.uint8]:
        """Give the mask, an empty one where there is no layer."""
        return np.zeros(shape, np.uint8) if self.mask is None else self.mask

    def begins(self, other: Content) -> bool:
        """Whether another goes on from this."""
        return _same_mask(self.mask, other.mask) and self.label in {None, other.label}

    def is_work(self, written: NDArray[np.uint8] | None, stored: Content | None) -> bool:
        """Whether a person did what is neither stored nor what the program put on the canvas."""
        if stored is not None and self.label == stored.label and _same_mask(self.mask, stored.mask):
            return _classes_of_drawn(self) != _classes_of_drawn(stored)
        return self.label is not None or not _same_mask(self.mask, written)


def _same_mask(one: NDArray[np.uint8] | None, other: NDArray[np.uint8] | None) -> bool:
    """Whether two masks show the same; none shows what an empty one does."""
    if one is None or other is None:
        return not any(mask is not None and mask.any() for mask in (one, other))
    return np.array_equal(one, other)


def _classes_of_drawn(content: Content) -> dict[int, ClassName]:
    """Give the classes of the lesions that are drawn; those of erased ones wait for an undo."""
    if content.mask is None or not content.lesions:
        return {}
    drawn = np.bincount(content.mask.ravel(), minlength=256) > 0
    return {number: name for number, name in sorted(content.lesions.items()) if drawn[number]}


def stored_content(revision: Revision, annotator: str) -> Content:
    """Give what the canvas shows of a stored correction: another annotator's class is not taken over."""
    correction = revision.correction
    own = correction.annotator == annotator
    lesions: Mapping[int, ClassName] = getattr(correction, "lesions", {})
    return Content(correction.mask, correction.label if own else None, dict(lesions) if own else {})


@dataclass(slots=True, eq=False)
class DraftFile:
    """What is known of a frame's draft file; the journal's thread alone uses it.

    `written` is when this journal last wrote it, and `digest` tells apart what it holds.
    """

    frame_id: str | None = None
    pixels_hash: str = ""
    written: datetime | None = None
    digest: str | None = None

    def identify(self, source: Source) -> str:
        """Find the frame's id, once: of an array it is the hash of its pixels."""
        if self.frame_id is None:
            frame = source.frame()
            self.frame_id, self.pixels_hash = frame.id, frame.pixels_hash
        return self.frame_id


@dataclass(frozen=True, slots=True, eq=False)
class Entry:
    """What a worker needs to keep a frame, captured in the GUI thread."""

    source: Source
    shape: tuple[int, int]
    content: Content
    written: NDArray[np.uint8] | None
    stored: Content | None
    annotator: str
    model: str | None
    seen: bool
    shown: frozenset[str]  # frames of which a prediction was shown
    parent: str | None
    basis: datetime | None


def read_draft(folder: DraftFolder, file: DraftFile, source: Source) -> Draft | None:
    """Read a frame's draft; one of other pixels is kept aside, and named."""
    frame_id = file.identify(source)
    draft = folder.read(frame_id)
    if draft is None:
        return None
    if draft.pixels_hash != file.pixels_hash or draft.mask.shape != np.shape(source.plane)[:2]:
        folder.set_aside(frame_id, f"of {shorten(source.name)} was drawn on other pixels than it has now")
        return None
    file.digest = _digest(Content(draft.mask, draft.label, draft.lesions))
    return draft


def keep(folder: DraftFolder, file: DraftFile, entry: Entry) -> bool | None:
    """Write what a frame holds by now, or drop it where nothing is left; say whether it has a draft now."""
    frame_id = file.identify(entry.source)
    if not entry.content.is_work(entry.written, entry.stored):
        return _drop(folder, file, entry.basis)
    digest = _digest(entry.content)
    if digest == file.digest:
        return None
    if not _is_known(folder, file, entry.basis):
        folder.set_aside(frame_id, f"of {shorten(entry.source.name)} was there, and is not written over")
    draft = draft_of(entry, frame_id, file.pixels_hash)
    folder.write(draft)
    file.digest, file.written = digest, draft.written
    return True


def drop_stored(folder: DraftFolder, file: DraftFile, stored: Content, basis: datetime | None) -> bool | None:
    """Drop a draft of which the store has all."""
    return _drop(folder, file, basis) if file.digest == _digest(stored) else None


def _drop(folder: DraftFolder, file: DraftFile, basis: datetime | None) -> bool | None:
    """Drop a draft, unless it is one that nobody has seen; say that there is none."""
    if file.frame_id is None or not _is_known(folder, file, basis):
        return None
    folder.drop(file.frame_id)
    file.digest = file.written = None
    return False


def set_aside(folder: DraftFolder, file: DraftFile, why: str) -> None:
    """Keep a draft under another name: another goes on in its place."""
    if file.frame_id is not None:
        folder.set_aside(file.frame_id, why)
        file.digest = file.written = None


def _is_known(folder: DraftFolder, file: DraftFile, basis: datetime | None) -> bool:
    """Whether no draft lies there, or one that this journal wrote or put on the canvas."""
    assert file.frame_id is not None
    there = folder.head(file.frame_id)
    return there is None or there.written in {file.written, basis}


def draft_of(entry: Entry, frame_id: str, pixels_hash: str) -> Draft:
    """Make the draft of what was captured just now."""
    path, index = entry.source.file or (None, 0)
    return Draft(
        frame_id=frame_id,
        pixels_hash=pixels_hash,
        mask=entry.content.drawn(entry.shape),
        annotator=entry.annotator,
        label=entry.content.label,
        lesions=_classes_of_drawn(entry.content),
        model=entry.model,
        seen=entry.seen or frame_id in entry.shown,
        parent=entry.parent,
        path=path,
        index=index,
        written=datetime.now(UTC),
    )


def _digest(content: Content) -> str:
    digest = hashlib.sha256(repr((content.label, _classes_of_drawn(content))).encode())
    if content.mask is not None and content.mask.any():
        digest.update(np.ascontiguousarray(content.mask).data)
    return digest.hexdigest()
