"""Scores without a model, and a small real store with two models for the gate."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from evaluation_models import save_model
from PIL import Image

from sonoloop.imaging.io import read_study
from sonoloop.imaging.phantom import phantom
from sonoloop.models.card import read_card
from sonoloop.models.library import Library
from sonoloop.store import CorrectionStore
from sonoloop.store.file_index import Places
from sonoloop.store.groups import place_frame
from sonoloop.store.metrics import FrameScore
from sonoloop.store.model_registry import register
from sonoloop.store.promotions import ensure_incumbent
from sonoloop.values import CLASSES, Correction


def outcomes(
    count: int,
    *,
    dice: float | Sequence[float] = 0.7,
    normals: int = 0,
    malignant: int | None = None,
    members: int = 1,
) -> list[FrameScore]:
    """Frames with a lesion, the first ones malignant (a third unless given), then normals without a mask.

    The classifier knows every class.
    """
    values = np.broadcast_to(np.asarray(dice, float), count)
    ill = count // 3 if malignant is None else malignant
    lesions = [
        FrameScore(
            frame=str(number),
            group=f"g{number // members}",
            label="malignant" if number < ill else "benign",
            lesion=True,
            dice=float(value),
            claimed=value > 0,
            malignant=0.9 if number < ill else 0.1,
        )
        for number, value in enumerate(values)
    ]
    return lesions + [
        FrameScore(
            frame=f"n{number}",
            group=f"n{number // members}",
            label="normal",
            lesion=False,
            dice=1.0,
            claimed=False,
            malignant=0.1,
        )
        for number in range(normals)
    ]


def changed(frames: Sequence[FrameScore], places: Sequence[int], **values: object) -> list[FrameScore]:
    """Change the outcomes at some places."""
    return [replace(one, **values) if place in places else one for place, one in enumerate(frames)]


def alarmed(frames: Sequence[FrameScore], count: int) -> list[FrameScore]:
    """Give the last frames, which are normal, a false alarm."""
    places = range(len(frames) - count, len(frames))
    return changed(frames, places, claimed=True, dice=0.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Project:
    """A store with frames that judge, and the versions of two models in a library."""

    store: CorrectionStore
    library: Library
    images: Path
    incumbent: str
    candidate: str
    revisions: tuple[str, ...]


def add_frames(store: CorrectionStore, images: Path, numbers: range) -> tuple[str, ...]:
    """Draw phantoms of every class in turn, a patient each, before a prediction was seen."""
    images.mkdir(parents=True, exist_ok=True)
    places = Places(store.url)
    revisions = []
    for number in numbers:
        label = CLASSES[number % 3]
        made = phantom(label, seed=number, shape=(96, 128))
        path = images / f"{number}.png"
        Image.fromarray(made.image).save(path)
        frame = read_study(path).frames[0]
        place_frame(store, frame, patient=str(number), role="test")
        places.remember(frame.id, path, pixels_hash=frame.pixels_hash)
        correction = Correction(
            frame_id=frame.id,
            pixels_hash=frame.pixels_hash,
            mask=made.mask.astype(np.uint8),
            label=label,
            annotator="reader-1",
        )
        revisions.append(store.accept(correction, parent=None).id)
    return tuple(revisions)


# goes when Python ends
_MADE = TemporaryDirectory(prefix="sonoloop-models-")


@functools.cache
def made_once(seed: int, name: str) -> Path:
    """Make a model that knows nothing; a library takes a copy of it."""
    return save_model(Path(_MADE.name) / name, seed=seed, name=name)


def make_project(store: CorrectionStore, folder: Path, *, count: int = 6) -> Project:
    """Have frames that judge in a store, and two models that know nothing, the first of them in use."""
    images, library = folder / "images", Library(folder / "models")
    revisions = add_frames(store, images, range(count))
    old = read_card(library.add(made_once(0, "old")))
    new = read_card(library.add(made_once(1, "new")))
    ensure_incumbent(store, version=old.version, model=old.model, who="reader-1")
    register(store, version=new.version, model=new.model, origin="tuned", who="reader-1", parent=old.version)
    return Project(
        store=store,
        library=library,
        images=images,
        incumbent=old.version,
        candidate=new.version,
        revisions=revisions,
    )
