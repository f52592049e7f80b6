"""Existing masks into a store, as the corrections of whoever drew them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from sonoloop.errors import ImageError, TrainingError
from sonoloop.imaging.orientation import turn_back
from sonoloop.jobs.events import Event, Imported, Progress, Unreadable
from sonoloop.store import CorrectionStore
from sonoloop.store.file_index import Places
from sonoloop.store.groups import place_frame, was_withdrawn
from sonoloop.store.near_duplicates import SketchIndex
from sonoloop.store.references import offer_reference
from sonoloop.store.revisions import hash_pixels
from sonoloop.store.turned import as_known
from sonoloop.values import CLASSES, Correction, Frame
from sonoloop_training.datasets import Sample, load_busbra, load_busi
from sonoloop_training.finetune.replay import patient_number

Outcome = Literal["new", "known", "kept"]

# the near copies of BUSI are found as those of every other frame
_READERS: Mapping[str, Callable[[Path], list[Sample]]] = {
    "busi": lambda folder: load_busi(folder, find_groups=lambda samples: {}),
    "busbra": load_busbra,
}
_EVERY = 5


def import_dataset(
    folder: Path,
    form: str,
    *,
    store: str | None = None,
    annotator: str | None = None,
    role: Literal["train", "test"] | None = None,
) -> Iterator[Event]:
    """Store the masks of a dataset as corrections that were made without a prediction.

    What is done stays when it breaks off, and the same command goes on. Nothing is stored twice, whatever
    file its pixels come from. An image that a person, the annotator or another, has corrected otherwise stays
    as they left it, and so does a reference from another source.
    """
    if form not in _READERS:
        raise TrainingError(f"there is no format {form!r}; there are {', '.join(_READERS)}")
    if not folder.is_dir():
        raise TrainingError(f"there is no folder {folder}; give the dataset's own folder")
    samples = _READERS[form](folder)
    annotator = annotator or form
    outcomes: Counter[str] = Counter()
    classes: Counter[str] = Counter()
    roles: Counter[str] = Counter()
    groups: dict[str, str] = {}
    stage = f"Importing {form}"
    with CorrectionStore(store) as opened:
        places, index = Places(opened.url), SketchIndex()
        for done, sample in enumerate(samples):
            if done % _EVERY == 0:
                yield Progress(stage=stage, done=done, total=len(samples))
            try:
                frame, mask = sample.read()
            except (ImageError, TrainingError) as error:
                outcomes["unreadable"] += 1
                yield Unreadable(image=sample.image.name, error=str(error))
                continue
            known = as_known(opened, frame)
            if known is not frame:
                frame, mask = known, turn_back(mask, frame.orientation)
            patient = patient_number(sample) or None
            gone = was_withdrawn(opened, frame, patient=patient)
            # also where it is gone: its pixels may be here without the patient's number
            placed = place_frame(opened, frame, patient=patient, role=role, index=index)
            if gone:
                outcomes["unreadable"] += 1
                yield Unreadable(image=sample.image.name, error="it was withdrawn from the store")
                continue
            places.remember(frame.id, sample.image, index=0, pixels_hash=frame.pixels_hash)
            outcome = _store(opened, sample, frame, mask, annotator)
            outcomes[outcome] += 1
            if outcome != "kept":
                offer_reference(opened, frame.id, sample.label, source=form)
            classes[sample.label] += 1
            roles[placed.role] += 1
            if placed.role != "neither":
                groups[placed.group_id] = placed.role
    yield Progress(stage=stage, done=len(samples), total=len(samples))
    by_group = Counter(groups.values())
    yield Imported(
        dataset=form,
        annotator=annotator,
        images=len(samples),
        new=outcomes["new"],
        known=outcomes["known"],
        kept=outcomes["kept"],
        unreadable=outcomes["unreadable"],
        by_class={label: classes[label] for label in CLASSES},
        roles={name: roles[name] for name in ("train", "test", "neither")},
        groups={name: by_group[name] for name in ("train", "test")},
    )


def _store(
    store: CorrectionStore, sample: Sample, frame: Frame, mask: NDArray[np.bool_], annotator: str
) -> Outcome:
    numbered = number_regions(mask)
    # of another file of the same pixels too; and the newest head counts, so that one more would replace it
    head = store.head(frame.id, annotator) or store.newest(frame.id, pixels_hash=frame.pixels_hash)
    if head is not None:
        same = head.mask_sha256 == hash_pixels(numbered) and head.correction.label == sample.label
        # what a person made of it is theirs
        return "known" if same else "kept"
    store.accept(
        Correction(
            frame_id=frame.id,
            pixels_hash=frame.pixels_hash,
            mask=numbered,
            label=sample.label,
            annotator=annotator,
        ),
        parent=None,
    )
    return "new"


def number_regions(mask: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """Give each 8-connected region of a mask a number, the largest 1; every pixel of it stays."""
    regions, count = ndimage.label(mask, structure=np.ones((3, 3), np.bool_))
    areas = np.bincount(regions.ravel(), minlength=count + 1)[1:]
    numbers = np.zeros(count + 1, np.uint8)
    # specks beyond what a byte can number share the last one
    numbers[1 + np.argsort(-areas, kind="stable")] = np.minimum(np.arange(1, count + 1), 255)
    numbered: NDArray[np.uint8] = numbers[regions]
    return numbered
