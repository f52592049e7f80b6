"""A dataset as a whole: its images inspected, its near-duplicates grouped, and figures of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from sonoloop.errors import ImageError, SonoloopError, UnsupportedImageError
from sonoloop.imaging.fingerprints import Sketch, sketch
from sonoloop.imaging.grey import check_frame
from sonoloop.jobs.events import Progress
from sonoloop.values import CLASSES
from sonoloop_training.checking.burned_in import has_overlay
from sonoloop_training.datasets import Sample, find_datasets
from sonoloop_training.datasets.groups import Pair, find_group_list, group_pairs, match_sketches, read_groups
from sonoloop_training.datasets.mask_check import Fault, hash_mask
from sonoloop_training.datasets.mask_check import find_shared as find_shared_masks
from sonoloop_training.datasets.registry import Layout, check_folder, dataset_folders, find_layout

_PLACES = 48
_EVERY = 20


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Inspection:
    """What a sample's files hold; of an unreadable image nothing but its faults is known."""

    sample: Sample
    faults: tuple[Fault, ...]
    # height and width
    shape: tuple[int, int] | None = None
    # such as "8-bit grey", "8-bit colour" (where the channels differ)
    depth: str = ""
    # connected, in all its masks, and the share of the frame that they cover
    lesions: int = 0
    area: float = 0.0
    # where they lie, (48, 48) over the whole frame; only if there are any
    places: NDArray[np.bool_] | None = None
    # whether something looks burned in
    overlay: bool = False
    sketch: Sketch | None = None
    # hashes of the image's pixels, and of the union of its masks where there is a lesion
    pixels_hash: str = ""
    mask_hash: str = ""


def inspect_sample(sample: Sample) -> Inspection:
    """Read a sample's image and masks; whatever is wrong is in its `faults`, nothing is raised for it."""
    try:
        study = sample.study()
        if len(study.frames) > 1:
            raise UnsupportedImageError(
                f"{study.name} has {len(study.frames)} frames, and its mask is of one"
            )
        pixels = check_frame(study.frames[0]).pixels
    except ImageError as error:
        return Inspection(sample=sample, faults=(Fault(kind="image unreadable", detail=str(error)),))
    if study.notes:
        return Inspection(sample=sample, faults=(Fault(kind="image unreadable", detail=study.notes[0]),))
    shape: tuple[int, int] = pixels.shape
    masks = sample.read_masks(study.frames[0])
    mask, faults = masks.union, masks.faults
    lesions = int(ndimage.label(mask, np.ones((3, 3)))[1])
    places = Image.fromarray(mask.astype(np.uint8) * 255).resize((_PLACES, _PLACES), Image.Resampling.BOX)
    return Inspection(
        sample=sample,
        faults=faults,
        shape=shape,
        depth=f"{pixels.dtype.itemsize * 8}-bit {'grey' if study.colour is None else 'colour'}",
        lesions=lesions,
        area=float(mask.mean()),
        places=np.asarray(places) >= 128 if lesions else None,
        overlay=has_overlay(pixels),
        sketch=sketch(pixels),
        pixels_hash=study.frames[0].pixels_hash,
        mask_hash=hash_mask(mask) if lesions else "",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """One dataset: its folder, and all its samples, those too that training leaves out."""

    root: Path
    samples: tuple[Sample, ...]
    # whether the dataset itself says what belongs together: by its patients, or the groups of its table
    grouped: bool = False
    # the list of near-duplicates that training would use; never where the dataset is grouped
    listed: Path | None = None
    # why it could not be listed; empty if it was
    error: str = ""

    @property
    def dataset(self) -> str:
        """The dataset's name; the folder's if it could not be listed."""
        return self.samples[0].dataset if self.samples else self.root.resolve().name


def find_sources(data: Path) -> list[Source]:
    """List every dataset that is known by its layout: `data` itself, or else those one folder below."""
    check_folder(data)
    sources = [
        source
        for folder in dataset_folders(data)
        if (layout := find_layout(folder))
        for source in _list(folder, layout)
    ]
    if not sources:
        # says which layouts are known
        find_datasets(data)
    return sources


def _list(root: Path, layout: Layout) -> list[Source]:
    """List the datasets that lie in one place: a folder holds one, a pack may hold several."""
    try:
        with TemporaryDirectory() as folder:
            # the list beside the images has loaders leave out contradictions, which are to be shown
            nothing = Path(folder) / "groups.json"
            nothing.write_text('{"groups": []}', encoding="utf-8")
            samples = layout.load(root, nothing)
        grouped = layout.is_grouped(root)
    except SonoloopError as error:
        return [Source(root=root, samples=(), error=str(error))]
    listed = None if grouped else find_group_list(samples, root)
    return [
        Source(root=root, samples=own, grouped=grouped, listed=listed)
        for dataset in dict.fromkeys(sample.dataset for sample in samples)
        if (own := tuple(sample for sample in samples if sample.dataset == dataset))
    ]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Survey:
    """What is known of a dataset: its samples inspected, in order, and near-duplicates by their places."""

    source: Source
    inspections: tuple[Inspection, ...]
    pairs: tuple[Pair, ...]
    groups: tuple[tuple[int, ...], ...]
    # what each sample would be split by, were it to train: its patient or group as the dataset says, or its
    # group in the list beside the images; empty where near-duplicates would be computed
    split_groups: tuple[str, ...]

    @property
    def readable(self) -> tuple[Inspection, ...]:
        """The samples whose image could be read."""
        return tuple(item for item in self.inspections if item.shape is not None)


@dataclass(frozen=True, slots=True, kw_only=True)
class SharedPair:
    """Two near-duplicates in two datasets, by the survey's place and the image's in it; the lower first."""

    one: tuple[int, int]
    other: tuple[int, int]
    mirrored: bool


def find_shared(surveys: Sequence[Survey]) -> Generator[Progress, None, list[SharedPair]]:
    """Find the near-duplicates that lie in two datasets."""
    if len(surveys) < 2:
        return []
    places = [(number, place) for number, one in enumerate(surveys) for place in range(len(one.inspections))]
    sketches = [surveys[number].inspections[place].sketch for number, place in places]
    pairs = yield from match_sketches(sketches, [number for number, _ in places])
    return [SharedPair(one=places[p.one], other=places[p.other], mirrored=p.mirrored) for p in pairs]


def survey_source(source: Source) -> Generator[Progress, None, Survey]:
    """Inspect every sample of a dataset and find its near-duplicates."""
    inspections = []
    total = len(source.samples)
    for done, sample in enumerate(source.samples):
        if done % _EVERY == 0:
            yield Progress(stage=f"Reading {source.dataset}", done=done, total=total)
        inspections.append(inspect_sample(sample))
    inspections = _add_shared(inspections)
    sketches = [item.sketch for item in inspections]
    pairs = yield from match_sketches(sketches)
    return Survey(
        source=source,
        inspections=tuple(inspections),
        pairs=tuple(pairs),
        groups=tuple(map(tuple, group_pairs(pairs, sketches))),
        split_groups=_split_groups(source),
    )


def _add_shared(inspections: Sequence[Inspection]) -> list[Inspection]:
    """Add to each image that its mask is another's too."""
    names = {item.sample.key: item.sample.name for item in inspections}
    known = ((item.sample.key, item.pixels_hash, item.mask_hash) for item in inspections if item.mask_hash)
    shared = find_shared_masks(known, names)
    return [
        replace(item, faults=(*item.faults, shared[item.sample.key])) if item.sample.key in shared else item
        for item in inspections
    ]


def _split_groups(source: Source) -> tuple[str, ...]:
    if source.grouped:
        return tuple(sample.group for sample in source.samples)
    if source.listed is None:
        return ()
    listed = read_groups(source.listed).group
    return tuple(listed.get(sample.name.casefold(), sample.name) for sample in source.samples)


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """Figures of the images of one class, or of all; but for `images` of those that can be read."""

    images: int
    readable: int
    # least, median and most, in pixels; empty where there is no image, as `areas`
    widths: tuple[float, ...]
    heights: tuple[float, ...]
    # quartiles of the share of the frame that lesions cover, over the images with a lesion
    areas: tuple[float, ...]
    # how many images of each depth, and with so many lesions
    depths: Mapping[str, int]
    lesions: Mapping[int, int]
    overlays: int
    near_duplicates: int


def summarise(survey: Survey) -> dict[str, Summary]:
    """Return the figures of each of `CLASSES`, and of "all"."""
    twins = {survey.inspections[member].sample.name for members in survey.groups for member in members}
    parts: dict[str, Sequence[Inspection]] = {
        label: [item for item in survey.inspections if item.sample.label == label] for label in CLASSES
    }
    parts["all"] = survey.inspections
    return {name: _summarise(items, twins) for name, items in parts.items()}


def summary_rows(survey: Survey) -> list[tuple[str, ...]]:
    """Return the figures for people: what, then each of `CLASSES` and all."""
    parts = list(summarise(survey).values())

    def row(what: str, values: Sequence[object]) -> tuple[str, ...]:
        return (what, *(str(value) for value in values))

    return [
        row("images", [part.images for part in parts]),
        row("that cannot be read", [part.images - part.readable for part in parts]),
        row("width (px; least, median, most)", [_span(part.widths) for part in parts]),
        row("height (px; least, median, most)", [_span(part.heights) for part in parts]),
        row(
            "depth", [", ".join(f"{n} {depth}" for depth, n in part.depths.items()) or "-" for part in parts]
        ),
        row("images with 0, 1, 2, more lesions", [_lesion_counts(part.lesions) for part in parts]),
        row(
            "lesion area (% of the frame; quartiles)",
            [", ".join(f"{100 * area:.1f}" for area in part.areas) or "-" for part in parts],
        ),
        row("with burned-in overlays", [_share(part.overlays, part.readable) for part in parts]),
        row("with a near-duplicate", [_share(part.near_duplicates, part.readable) for part in parts]),
    ]


def _summarise(items: Sequence[Inspection], twins: set[str]) -> Summary:
    readable = [item for item in items if item.shape]
    heights, widths = (
        zip(*(item.shape for item in readable if item.shape), strict=True) if readable else ((), ())
    )
    areas = [item.area for item in readable if item.lesions]
    return Summary(
        images=len(items),
        readable=len(readable),
        widths=_quantiles(widths, (0, 0.5, 1)),
        heights=_quantiles(heights, (0, 0.5, 1)),
        areas=_quantiles(areas, (0.25, 0.5, 0.75)),
        depths=dict(Counter(item.depth for item in readable).most_common()),
        lesions=dict(sorted(Counter(item.lesions for item in readable).items())),
        overlays=sum(item.overlay for item in readable),
        near_duplicates=sum(item.sample.name in twins for item in items),
    )


def _quantiles(values: Sequence[Any], shares: tuple[float, ...]) -> tuple[float, ...]:
    return tuple(float(value) for value in np.quantile(values, shares)) if len(values) else ()


def _span(values: tuple[float, ...]) -> str:
    return ", ".join(f"{value:.0f}" for value in values) or "-"


def _lesion_counts(lesions: Mapping[int, int]) -> str:
    more = sum(images for count, images in lesions.items() if count > 2)
    return ", ".join(str(lesions.get(count, 0)) for count in range(3)) + f", {more}"


def _share(count: int, total: int) -> str:
    return f"{count} ({count / total:.0%})" if total else "-"
