"""Existing masks into a store, as the corrections of whoever drew them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from sonoloop.errors import ImageError, TrainingError
from sonoloop.imaging.orientation import turn_back
from sonoloop.jobs.events import Event, Imported, OddMask, Progress, Unreadable
from sonoloop.store import CorrectionStore
from sonoloop.store.database import check_who, is_file, read_location
from sonoloop.store.file_index import Places
from sonoloop.store.groups import place_frame, was_withdrawn
from sonoloop.store.leases import lease, renewed
from sonoloop.store.near_duplicates import SketchIndex
from sonoloop.store.references import offer_reference
from sonoloop.store.revisions import hash_pixels
from sonoloop.store.sqlite_file import is_there
from sonoloop.store.stored_orientation import as_known
from sonoloop.values import CLASSES, Correction, Frame
from sonoloop_training.datasets import Sample, load_busbra, load_busi
from sonoloop_training.datasets.mask_check import explain, find_shared, hash_mask

Outcome = Literal["new", "known", "kept"]

# the near copies of BUSI are found as those of every other frame
_READERS: Mapping[str, Callable[[Path], list[Sample]]] = {
    "busi": lambda folder: load_busi(folder, find_groups=lambda samples: {}),
    "busbra": load_busbra,
}
_LEASE = "import"
_EVERY = 5
_LOOKED_EVERY = 20


def import_dataset(
    folder: Path,
    form: str,
    *,
    store: str | None = None,
    annotator: str | None = None,
    role: Literal["train", "test"] | None = None,
    accept_odd: bool = False,
) -> Iterator[Event]:
    """Store the masks of a dataset as corrections that were made without a prediction.

    All masks are looked at first; where some look odd nothing is stored unless they are accepted, and those
    that cannot be used are left out even then. What is done stays when it breaks off, and the same command
    goes on. Nothing is stored twice, whatever file its pixels come from. An image that a person, the
    annotator or another, has corrected otherwise stays as they left it, and so does a reference from another
    source. One import at a time works on a store.
    """
    if form not in _READERS:
        raise TrainingError(f"there is no format {form!r}; there are {', '.join(_READERS)}")
    if not folder.is_dir():
        raise TrainingError(f"there is no folder {folder}; give the dataset's own folder")
    annotator = check_who(annotator or form)
    location = read_location(store)
    if not is_file(location) or is_there(Path(str(location.database))):
        # one that cannot be used is said before all masks are looked at
        CorrectionStore(store).close()
    samples = _READERS[form](folder)
    odd = yield from _look(samples, form)
    if odd and not accept_odd:
        raise TrainingError(
            f"the masks of {len(odd)} of {len(samples)} images look odd, and nothing was stored: mend them, "
            "or import again with --accept-odd to store them as they are"
        )
    what = f"an import of {form} by {annotator}"
    with (
        CorrectionStore(store) as opened,
        lease(opened, _LEASE, what=what) as held,
        renewed(held.renew) as check_lease,
    ):
        importing = _Import(opened, form, annotator, role, Places(opened.url), SketchIndex())
        yield from importing.run(samples, odd, check_lease)


def _look(samples: Sequence[Sample], form: str) -> Generator[Event, None, set[str]]:
    """Tell of every mask that looks odd, and name their images by their keys."""
    odd: set[str] = set()
    known: list[tuple[str, str, str]] = []
    names = {sample.key: sample.image.name for sample in samples}
    stage = f"Looking at the masks of {form}"
    for done, sample in enumerate(samples):
        if done % _LOOKED_EVERY == 0:
            yield Progress(stage=stage, done=done, total=len(samples))
        try:
            frame, masks = sample.look()
        except (ImageError, TrainingError):
            continue  # told when it is left out
        if masks.union.any():
            known.append((sample.key, frame.pixels_hash, hash_mask(masks.union)))
        for fault in masks.faults:
            if fault.odd:
                odd.add(sample.key)
                yield OddMask(image=sample.image.name, what=explain(fault, sample.image.name, sample.label))
    for key, fault in find_shared(known, names).items():
        odd.add(key)
        yield OddMask(image=names[key], what=f"{names[key]}: {fault.detail}")
    yield Progress(stage=stage, done=len(samples), total=len(samples))
    return odd


@dataclass(frozen=True, slots=True)
class _Import:
    """The way of a dataset's samples into a store."""

    store: CorrectionStore
    form: str
    annotator: str
    role: Literal["train", "test"] | None
    places: Places
    index: SketchIndex

    def run(
        self, samples: Sequence[Sample], odd: Set[str], check_lease: Callable[[], None]
    ) -> Iterator[Event]:
        """Store what can be used of it."""
        outcomes: Counter[str] = Counter()
        classes: Counter[str] = Counter()
        roles: Counter[str] = Counter()
        groups: dict[str, str] = {}
        stage = f"Importing {self.form}"
        for done, sample in enumerate(samples):
            check_lease()
            if done % _EVERY == 0:
                yield Progress(stage=stage, done=done, total=len(samples))
            try:
                frame, mask = sample.read()
            except (ImageError, TrainingError) as error:
                outcomes["unreadable"] += 1
                yield Unreadable(image=sample.image.name, error=str(error))
                continue
            known = as_known(self.store, frame)
            if known is not frame:
                frame, mask = known, turn_back(mask, frame.orientation)
            patient = sample.patient_key or None
            gone = was_withdrawn(self.store, frame, patient=patient)
            # also where it is gone: its pixels may be here without the patient's number
            placed = place_frame(self.store, frame, patient=patient, role=self.role, index=self.index)
            if gone:
                outcomes["unreadable"] += 1
                yield Unreadable(image=sample.image.name, error="it was withdrawn from the store")
                continue
            self.places.remember(frame.id, sample.image, index=0, pixels_hash=frame.pixels_hash)
            outcome = self._keep(sample, frame, mask)
            outcomes[outcome] += 1
            outcomes["odd"] += sample.key in odd
            if outcome != "kept":
                offer_reference(self.store, frame.id, sample.label, source=self.form)
            classes[sample.label] += 1
            roles[placed.role] += 1
            if placed.role != "neither":
                groups[placed.group_id] = placed.role
        yield Progress(stage=stage, done=len(samples), total=len(samples))
        by_group = Counter(groups.values())
        yield Imported(
            dataset=self.form,
            annotator=self.annotator,
            images=len(samples),
            new=outcomes["new"],
            known=outcomes["known"],
            kept=outcomes["kept"],
            unreadable=outcomes["unreadable"],
            odd=outcomes["odd"],
            by_class={label: classes[label] for label in CLASSES},
            roles={name: roles[name] for name in ("train", "test", "neither")},
            groups={name: by_group[name] for name in ("train", "test")},
        )

    def _keep(self, sample: Sample, frame: Frame, mask: NDArray[np.bool_]) -> Outcome:
        numbered = number_regions(mask)
        # of another file of the same pixels too; and the newest head counts: one more would replace it
        said, stored = self.store.accept_first(
            Correction(
                frame_id=frame.id,
                pixels_hash=frame.pixels_hash,
                mask=numbered,
                label=sample.label,
                annotator=self.annotator,
            )
        )
        if stored:
            return "new"
        same = said.mask_sha256 == hash_pixels(numbered) and said.correction.label == sample.label
        # what a person made of it is theirs
        return "known" if same else "kept"


def number_regions(mask: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """Give each 8-connected region of a mask a number, the largest 1; every pixel of it stays."""
    regions, count = ndimage.label(mask, structure=np.ones((3, 3), np.bool_))
    areas = np.bincount(regions.ravel(), minlength=count + 1)[1:]
    numbers = np.zeros(count + 1, np.uint8)
    # specks beyond what a byte can number share the last one
    numbers[1 + np.argsort(-areas, kind="stable")] = np.minimum(np.arange(1, count + 1), 255)
    numbered: NDArray[np.uint8] = numbers[regions]
    return numbered
