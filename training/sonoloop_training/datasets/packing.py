"""Datasets to a pack: see `sonoloop_training.datasets.pack` for what is in it."""

from __future__ import annotations

import hashlib
import io
import json
import os
import shlex
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any
from zipfile import ZIP_DEFLATED, ZIP_STORED, ZipFile, ZipInfo

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from sonoloop import __version__
from sonoloop.atomic import find_obstacle, whole
from sonoloop.errors import TrainingError
from sonoloop.imaging.fingerprints import fingerprint
from sonoloop.imaging.grey import to_unit
from sonoloop.jobs.events import Event, Notice, Packed, Progress
from sonoloop.jobs.request import PackRequest
from sonoloop.models.manifest import hash_listing
from sonoloop_training.datasets.folder import DATASETS
from sonoloop_training.datasets.pack import (
    FORMAT,
    HEADER,
    INDEX,
    MOST_IMAGES,
    Contents,
    Entry,
    Origin,
    PackedSample,
    image_member,
    is_pack,
    mask_member,
    most_index,
    packed_shape,
)
from sonoloop_training.datasets.registry import list_layouts
from sonoloop_training.datasets.sample import Sample
from sonoloop_training.fit.batches import letterbox_pair

# grey levels are rounded to multiples of this, so that none is off by more than half of it; it divides 255:
# black stays black and white stays white
STEP = 5
# what an image may take on average, its mask and its line with it
MOST_BYTES = 25_000
_EVERY = 10
_DIGITS, _NAMED = 16, 5
_UNKNOWN_TERMS = "not known; ask whoever the images are from"
# the same data give the same bytes, whenever they are packed
_WHEN = (1980, 1, 1, 0, 0, 0)


def pack(wanted: PackRequest) -> Iterator[Event]:
    """Write a pack; whole, or not at all."""
    _check_out(wanted.out)
    found = list_layouts(wanted.folders)
    samples = [sample for _, own in found for sample in own]
    _check_samples(samples)
    contents = _describe(wanted, samples, {s.dataset: layout.terms for layout, own in found for s in own})
    writing = _Writing(wanted)
    try:
        with whole(wanted.out) as partial, ZipFile(partial, "w", ZIP_STORED) as archive:
            _write(archive, HEADER, json.dumps(asdict(contents), indent=1).encode())
            yield from writing.run(archive, samples)
            index = "".join(json.dumps(asdict(entry)) + "\n" for entry in writing.entries).encode()
            if len(index) > most_index(len(samples)):
                raise TrainingError("the tables say too much of the images to be packed; drop columns")
            _write(archive, INDEX, index, kind=ZIP_DEFLATED)
        size = wanted.out.stat().st_size
    except OSError as error:
        raise TrainingError(
            f"{wanted.out} cannot be written ({error.strerror or error}); make room, or give another --out"
        ) from error
    yield from writing.tell(size)
    yield Packed(
        path=str(wanted.out),
        datasets=dict(Counter(sample.dataset for sample in samples)),
        images=len(samples),
        resized=writing.resized,
        bytes=size,
    )


def _check_out(out: Path) -> None:
    if os.path.lexists(out) and not is_pack(out):
        raise TrainingError(f"{out} is there and is no pack; give another --out")
    if obstacle := find_obstacle(out.absolute().parent):
        raise TrainingError(f"{obstacle}; give another --out")
    if not out.absolute().parent.is_dir():
        raise TrainingError(f"there is no folder {out.absolute().parent}; make it, or give another --out")


def _check_samples(samples: Sequence[Sample]) -> None:
    packed = next((sample for sample in samples if isinstance(sample, PackedSample)), None)
    if packed is not None:
        raise TrainingError(
            f"{packed.pack.path} is a pack already; give the folders that its images are from"
        )
    if len(samples) > MOST_IMAGES:
        raise TrainingError(f"{len(samples):,} images are more than a pack holds ({MOST_IMAGES:,})")


def _describe(wanted: PackRequest, samples: Sequence[Sample], terms: Mapping[str, str]) -> Contents:
    # without what leads to a folder: that may name people
    line = ["sonoloop", "data", "pack", *(folder.resolve().name for folder in wanted.folders)]
    line += ["--size", str(wanted.size), *(["--lossless"] if wanted.lossless else [])]
    line += ["--keep-names"] if wanted.keep_names else []
    origins = []
    for dataset in terms:
        own = [sample for sample in samples if sample.dataset == dataset]
        listing = sorted([sample.key, sample.group, sample.label] for sample in own)
        origins.append(
            Origin(
                dataset=dataset,
                images=len(own),
                sha256=hash_listing({"images": listing}),
                terms=terms[dataset] or _UNKNOWN_TERMS,
            )
        )
    return Contents(
        format=FORMAT,
        size=wanted.size,
        images=len(samples),
        lossless=wanted.lossless,
        sonoloop=__version__,
        command=shlex.join(line),
        origins=tuple(origins),
    )


@dataclass(slots=True)
class _Writing:
    """What was written so far."""

    wanted: PackRequest
    entries: list[Entry] = field(default_factory=list)
    resized: int = 0
    odd: list[str] = field(default_factory=list)
    # what stands for groups that are not to be named, and the names that were given
    groups: dict[str, str] = field(default_factory=dict)
    given: Counter[str] = field(default_factory=Counter)

    def run(self, archive: ZipFile, samples: Sequence[Sample]) -> Iterator[Progress]:
        """Write images and masks."""
        for number, sample in enumerate(samples):
            if number % _EVERY == 0:
                yield Progress(stage="Packing", done=number, total=len(samples))
            self._add(archive, number, sample)
        yield Progress(stage="Packing", done=len(samples), total=len(samples))

    def tell(self, size: int) -> Iterator[Notice]:
        """Say what whoever packs should know."""
        nameless = sorted({entry.dataset for entry in self.entries if self._hides(entry.dataset)})
        if nameless:
            yield Notice(
                message=f"images and patients of {', '.join(nameless)} have numbers in place of names, and a "
                "split draws them anew; --keep-names keeps names, and every column of the table"
            )
        if self.odd:
            more = ", ..." if len(self.odd) > _NAMED else ""
            yield Notice(
                message=f"{len(self.odd)} masks look odd and are packed as they are "
                f"({', '.join(self.odd[:_NAMED])}{more}); sonoloop data check says why"
            )
        if size > MOST_BYTES * len(self.entries) and not self.wanted.lossless:
            yield Notice(
                message=f"an image takes {size / len(self.entries) / 1000:.1f} KB on average; with a smaller "
                "--size it takes less"
            )

    def _hides(self, dataset: str) -> bool:
        """Whether names stay here: those of a person's own files may name people."""
        return dataset not in DATASETS and not self.wanted.keep_names

    def _add(self, archive: ZipFile, number: int, sample: Sample) -> None:
        size = self.wanted.size
        frame, masks = sample.look()
        sample.check(masks)
        if masks.faults:
            self.odd.append(sample.key)
        pixels, mask = shrink(frame.pixels, masks.union, size)
        if masks.union.any() and not mask.any():
            raise TrainingError(
                f"the lesion of {sample.key} is too small to be seen at {size} pixels; give a larger --size"
            )
        if not self.wanted.lossless:
            pixels = (np.rint(pixels / STEP) * STEP).astype(np.uint8)
        self.resized += pixels.shape != frame.shape
        image = _encode(pixels, format="WEBP", lossless=True, method=4, quality=90)
        drawn = _encode(mask, format="PNG", optimize=True) if mask.any() else b""
        _write(archive, image_member(number), image)
        if drawn:
            _write(archive, mask_member(number), drawn)
        spacing = None
        if frame.spacing is not None:
            ratios = (before / after for before, after in zip(frame.shape, pixels.shape, strict=True))
            spacing = tuple(side * ratio for side, ratio in zip(frame.spacing, ratios, strict=True))
        named = self._name(sample, frame.id)
        try:
            entry = Entry(
                name=named.name,
                dataset=sample.dataset,
                label=sample.label,
                group=named.group,
                computed=sample.computed,
                patient=named.patient,
                scanner=sample.scanner,
                overlay=sample.overlay,
                spacing=spacing,
                facts=dict(named.facts),
                height=frame.shape[0],
                width=frame.shape[1],
                id=frame.id,
                pixels_hash=frame.pixels_hash,
                fingerprint=fingerprint(frame.pixels),
                image_sha256=hashlib.sha256(image).hexdigest(),
                mask_sha256=hashlib.sha256(drawn).hexdigest() if drawn else "",
            )
        except ValueError as error:
            raise TrainingError(f"{sample.key} cannot be packed: {error}; rename or correct it") from error
        self.entries.append(entry)

    def _name(self, sample: Sample, frame_id: str) -> Sample:
        """Give a sample the name, group and facts that leave the house."""
        if not self._hides(sample.dataset):
            return sample
        name = frame_id[:_DIGITS]
        self.given[name] += 1
        if self.given[name] > 1:
            name = f"{name}-{self.given[name]}"
        # called by its first image: a hash of a patient's number could be guessed
        group = self.groups.setdefault(sample.group, f"{sample.dataset}/group-{name}")
        return replace(sample, name=name, group=group, patient="", facts={})


def shrink(
    pixels: NDArray[np.generic], mask: NDArray[np.bool_], size: int
) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """Resize an image as a network of that size gets it, without the borders; what is no larger stays."""
    if max(pixels.shape) <= size:
        eight = pixels if pixels.dtype == np.uint8 else np.rint(to_unit(pixels) * 255)
        return np.asarray(eight, np.uint8), mask
    image, drawn = letterbox_pair(pixels, mask, size)
    height, width = packed_shape(pixels.shape[0], pixels.shape[1], size)
    top, left = (size - height) // 2, (size - width) // 2
    inside = (slice(top, top + height), slice(left, left + width))
    return image[inside].numpy(), drawn[inside].numpy() > 0


def _encode(pixels: NDArray[np.uint8] | NDArray[np.bool_], **options: Any) -> bytes:  # noqa: ANN401 - Pillow's
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, **options)
    return buffer.getvalue()


def _write(archive: ZipFile, name: str, data: bytes, kind: int = ZIP_STORED) -> None:
    archive.writestr(ZipInfo(name, _WHEN), data, compress_type=kind)
