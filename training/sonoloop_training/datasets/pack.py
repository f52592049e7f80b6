"""A pack: one file that holds datasets resized, so that they travel in one copy.

A zip file. `sonoloop-pack.json` comes first and says what it is, then come the images and their masks, by
number, and last `index.jsonl`, a line an image. Nothing in it is a path. It may come from elsewhere: whatever
it says is checked, and a pack that is damaged, or not what it says, is refused.
"""

from __future__ import annotations

import hashlib
import re
import weakref
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import TypeVar
from zipfile import ZIP_DEFLATED, ZIP_STORED, BadZipFile, ZipFile

import numpy as np
from numpy.typing import NDArray

from sonoloop.errors import ImageTruncatedError, TrainingError
from sonoloop.imaging.grey import channels_agree
from sonoloop.imaging.io import Study
from sonoloop.imaging.pictures import open_picture
from sonoloop.jobs.wire import build
from sonoloop.models.preprocess import Letterbox
from sonoloop.models.schema import check_fields, check_values, parse_json
from sonoloop.regular_files import open_regular
from sonoloop.values import CLASSES, ClassName, Frame
from sonoloop_training.datasets.groups import FindGroups
from sonoloop_training.datasets.mask_check import Masks, judge_union
from sonoloop_training.datasets.sample import Sample

HEADER, INDEX = "sonoloop-pack.json", "index.jsonl"
FORMAT = 1
# the side of what is packed, and how many images
LEAST_SIZE, MOST_SIZE, MOST_IMAGES = 32, 2048, 200_000
_MOST_BYTES = 1 << 36
_MOST_HEADER, _MOST_INDEX, _MOST_LINE = 1 << 20, 1 << 28, 1 << 16
# of a zip file's first member: what it begins with, and where its name stands
_MAGIC, _NAME = b"PK\x03\x04", 30
_HASH = re.compile("[0-9a-f]{64}")
_MOST_NAME = 300
# mm a pixel
_WIDEST = 100.0
_ENLARGED = (
    "a model is shown images of {shown} pixels, and the pack's are enlarged from {size}: it would do better "
    "on the files; judge it on them, or on a pack of --size {shown}"
)
# what a damaged zip file raises
_BROKEN = (BadZipFile, OSError, RuntimeError, NotImplementedError, EOFError, ValueError, KeyError, zlib.error)
T = TypeVar("T", "Contents", "Entry")


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """Where the images of one dataset came from."""

    dataset: str
    images: int
    # over who is in it, and with which class
    sha256: str
    # on what terms its owner gives it
    terms: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Contents:
    """What a pack holds."""

    format: int
    # the longest side that an image has, in pixels
    size: int
    images: int
    # whether grey levels are just those of the resized images; else they are rounded
    lossless: bool
    # how it was made: which Sonoloop, and which command
    sonoloop: str
    command: str
    origins: tuple[Origin, ...]

    def __post_init__(self) -> None:
        check_fields(self)
        check_values("", asdict(self))
        if self.format != FORMAT:
            raise ValueError(f"its format is {self.format}, and this Sonoloop reads {FORMAT}: update it")
        if not LEAST_SIZE <= self.size <= MOST_SIZE:
            raise ValueError(f"its size is {self.size}, not within {LEAST_SIZE} and {MOST_SIZE}")
        if not 1 <= self.images <= MOST_IMAGES:
            raise ValueError(f"it says that it holds {self.images:,} images, not 1 to {MOST_IMAGES:,}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One image of a pack; see `Sample` for what has the same name there."""

    name: str
    dataset: str
    label: str
    group: str
    computed: bool
    patient: str
    scanner: str
    overlay: bool | None
    spacing: tuple[float, ...] | None
    facts: Mapping[str, str]
    # of the image it was made from: its sides in pixels, and what it is known again by; see `Member`
    height: int
    width: int
    id: str
    pixels_hash: str
    fingerprint: str
    # of the bytes in the pack; no mask is kept where there is no lesion
    image_sha256: str
    mask_sha256: str

    def __post_init__(self) -> None:
        check_fields(self)
        check_values("", asdict(self))
        for name in ("name", "dataset", "group"):
            _check_name(name, getattr(self, name))
        if "/" in self.dataset + self.name or self.dataset.startswith(".") or self.dataset == "phantom":
            raise ValueError(f"the name {self.key!r} holds what a name may not")
        if not self.group.startswith(f"{self.dataset}/"):
            raise ValueError(f"the group {self.group!r} is none of {self.dataset}")
        if self.label not in CLASSES:
            raise ValueError(f"the class {self.label!r} is none of {', '.join(CLASSES)}")
        if min(self.height, self.width) < 1:
            raise ValueError(f"an image of {self.width} x {self.height} pixels does not exist")
        if self.spacing is not None and not (
            len(self.spacing) == 2 and all(0 < side < _WIDEST for side in self.spacing)
        ):
            raise ValueError(f"a pixel of {self.spacing} mm does not exist")
        for name in ("id", "pixels_hash", "fingerprint", "image_sha256"):
            if not _HASH.fullmatch(getattr(self, name)):
                raise ValueError(f"{name} is no hash")
        if self.mask_sha256 and not _HASH.fullmatch(self.mask_sha256):
            raise ValueError("mask_sha256 is no hash")

    @property
    def key(self) -> str:
        """How splits name the image: "dataset/name"."""
        return f"{self.dataset}/{self.name}"


def most_index(images: int) -> int:
    """Give the bytes that the index of so many images may have."""
    return min(_MOST_INDEX, images * _MOST_LINE)


def image_member(number: int) -> str:
    """Name an image in the zip file."""
    return f"images/{number:06}.webp"


def mask_member(number: int) -> str:
    """Name a mask in the zip file."""
    return f"masks/{number:06}.png"


def packed_shape(height: int, width: int, size: int) -> tuple[int, int]:
    """Give the height and width that an image has in a pack of that size; what is no larger stays."""
    if max(height, width) <= size:
        return height, width
    return Letterbox(height, width, size).content[2:]


@dataclass(frozen=True, slots=True, eq=False)
class Pack:
    """A pack that was opened and looked through; its images are read when they are asked for."""

    path: Path
    contents: Contents
    entries: tuple[Entry, ...]
    _archive: ZipFile = field(repr=False)

    @classmethod
    def open(cls, path: Path) -> Pack:
        """Open a pack; one that is damaged, or not what it says, is a `TrainingError`."""
        try:
            archive = _open(path)
        except _BROKEN as error:
            told = getattr(error, "strerror", None) or error
            raise _refuse(path, f"it cannot be read ({told})") from error
        try:
            contents = _build(Contents, read_member(archive, HEADER, _MOST_HEADER))
            index = read_member(archive, INDEX, most_index(contents.images))
            # counted before it is taken apart: it might have a line a byte
            if (listed := index.count(b"\n")) != contents.images:
                raise ValueError(f"it says that it holds {contents.images} images, and lists {listed}")
            entries = []
            for number, line in enumerate(index.split(b"\n")[:listed], 1):
                try:
                    entries.append(_build(Entry, line))
                except _WRONG as error:
                    raise ValueError(f"line {number} of its index: {error}") from error
            _check_entries(contents, entries)
            _check_members(archive, entries)
        except (*_BROKEN, *_WRONG) as error:
            raise _refuse(path, str(error)) from error
        return cls(path, contents, tuple(entries), archive)

    def read_image(self, number: int) -> NDArray[np.uint8]:
        """Read the grey levels of an image, (H, W)."""
        entry = self.entries[number]
        colour = self._read(image_member(number), entry.image_sha256, entry, "WEBP")
        if colour.shape[2:] != (3,) or not channels_agree(colour):
            raise self._damage(entry, "it is not grey")
        # a WebP has no grey of its own
        pixels = np.ascontiguousarray(colour[..., 0])
        height, width = packed_shape(entry.height, entry.width, self.contents.size)
        if pixels.shape != (height, width):
            raise self._damage(
                entry,
                f"it has {pixels.shape[1]} x {pixels.shape[0]} pixels, and by the index {width} x {height}",
            )
        return pixels

    def read_mask(self, number: int, shape: tuple[int, int]) -> NDArray[np.bool_]:
        """Read the lesions of an image, (H, W)."""
        entry = self.entries[number]
        if not entry.mask_sha256:
            return np.zeros(shape, np.bool_)
        mask = self._read(mask_member(number), entry.mask_sha256, entry, "PNG") > 0
        if mask.shape != shape:
            raise self._damage(entry, "its mask is of another size")
        return mask

    def _read(self, member: str, sha256: str, entry: Entry, form: str) -> NDArray[np.uint8]:
        most = 2 * self.contents.size**2 + (1 << 16)
        try:
            data = read_member(self._archive, member, most)
        except _BROKEN as error:
            raise self._damage(entry, str(error)) from error
        if hashlib.sha256(data).hexdigest() != sha256:
            raise self._damage(entry, "its bytes are others than the index says")
        with open_picture(data, form, entry.key, self.contents.size**2) as image:
            return np.array(image).astype(np.uint8)

    def _damage(self, entry: Entry, what: str) -> ImageTruncatedError:
        return ImageTruncatedError(
            f"{entry.key} in {self.path.name} is damaged: {what}; copy the pack again, or make it anew"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class PackedSample(Sample):
    """One image of a pack; its `image` and `masks` are names, and no files."""

    pack: Pack
    # its place in the pack
    number: int

    @property
    def is_resized(self) -> bool:
        """Whether the image was another before it was packed."""
        return max(self.entry.height, self.entry.width) > self.pack.contents.size

    @property
    def entry(self) -> Entry:
        """What the pack says of it."""
        return self.pack.entries[self.number]

    def study(self) -> Study:
        """Read the image; it is known by the hashes of the one that it was made from."""
        frame = Frame(
            pixels=self.pack.read_image(self.number),
            id=self.entry.id,
            pixels_hash=self.entry.pixels_hash,
            name=self.image.name,
        )
        return Study(path=self.image, name=self.image.name, frames=(frame,))

    def read_masks(self, frame: Frame) -> Masks:
        """Read its lesions, which are one mask, and say what is wrong with it."""
        union = self.pack.read_mask(self.number, frame.shape)
        return Masks(union=union, faults=tuple(judge_union(union, self.label)))


def is_pack(path: Path) -> bool:
    """Whether a path is a pack, by how it begins."""
    if not path.is_file():
        return False
    try:
        with open_regular(path, most=_MOST_BYTES) as file:
            start = file.read(_NAME + len(HEADER))
    except OSError:
        return False
    return start.startswith(_MAGIC) and start[_NAME:] == HEADER.encode()


def load_pack(
    root: Path, groups: Path | None = None, *, find_groups: FindGroups | None = None
) -> list[Sample]:
    """List a pack in the order in which it was made; its groups are those that it was made with."""
    pack = Pack.open(root)
    return [
        PackedSample(
            name=entry.name,
            dataset=entry.dataset,
            image=root / f"{entry.name}.png",
            masks=(root / f"{entry.name}_mask.png",) if entry.mask_sha256 else (),
            label=_class_of(entry),
            group=entry.group,
            computed=entry.computed,
            patient=entry.patient,
            scanner=entry.scanner,
            overlay=entry.overlay,
            spacing=None if entry.spacing is None else (entry.spacing[0], entry.spacing[1]),
            facts=entry.facts,
            fingerprint=entry.fingerprint,
            original=(entry.height, entry.width),
            pack=pack,
            number=number,
        )
        for number, entry in enumerate(pack.entries)
    ]


def packed_size(samples: Iterable[Sample]) -> int | None:
    """Give the size to which some of the samples were resized when they were packed; None where none was."""
    return min(
        (s.pack.contents.size for s in samples if isinstance(s, PackedSample) and s.is_resized), default=None
    )


def describe_packed(samples: Sequence[Sample], *, shown: int = 0) -> list[str]:
    """Say that figures are of resized images, where they are, and if networks are shown larger ones."""
    size, resized = packed_size(samples), sum(isinstance(s, PackedSample) and s.is_resized for s in samples)
    if size is None:
        return []
    return [
        f"{resized} of {len(samples)} images come from a pack, which holds them at {size} pixels: they are "
        "judged on its grid, not on their own",
        *([_ENLARGED.format(shown=shown, size=size)] if shown > size else []),
    ]


def read_member(archive: ZipFile, name: str, most: int) -> bytes:
    """Read what a zip file holds under a name, at most so many bytes."""
    if name not in archive.NameToInfo:
        raise ValueError(f"it lacks {name}")
    info = archive.getinfo(name)
    if info.compress_type not in (ZIP_STORED, ZIP_DEFLATED):
        raise ValueError(f"{name} is packed otherwise than usual")
    if info.file_size > most:
        raise ValueError(f"{name} has {info.file_size:,} bytes, more than {most:,}")
    with archive.open(info) as file:
        # one byte more than promised would show that the promise was false
        data = file.read(info.file_size + 1)
    if len(data) != info.file_size:
        raise ValueError(f"{name} is not whole")
    return data


# what JSON of another form raises
_WRONG = (ValueError, TypeError, KeyError, AttributeError, OverflowError)


def _open(path: Path) -> ZipFile:
    file = open_regular(path, most=_MOST_BYTES)
    try:
        archive = ZipFile(file)
    except BaseException:
        file.close()
        raise
    # it stays open as long as there are samples of it
    weakref.finalize(archive, file.close)
    return archive


def _build(kind: type[T], data: bytes) -> T:
    return build(kind, parse_json(data))


def _check_name(what: str, name: str) -> None:
    if not 0 < len(name) <= _MOST_NAME or not name.isprintable() or "\\" in name:
        raise ValueError(f"the {what} {name[:80]!r} is empty, too long, or holds what a name may not")


def _check_entries(contents: Contents, entries: Sequence[Entry]) -> None:
    """Look for what one image alone does not show."""
    keys = sorted(entry.key.casefold() for entry in entries)
    twice = next((one for one, other in pairwise(keys) if one == other), None)
    if twice is not None:
        raise ValueError(f"it lists {twice} twice")
    counted: dict[str, int] = {}
    for entry in entries:
        counted[entry.dataset] = counted.get(entry.dataset, 0) + 1
    told = {origin.dataset: origin.images for origin in contents.origins}
    if told != counted or len(told) != len(contents.origins):
        raise ValueError("it lists other images than it says")


def _check_members(archive: ZipFile, entries: Sequence[Entry]) -> None:
    """Look whether the images are there, before hours are spent on the others."""
    there, listed = archive.NameToInfo, {HEADER, INDEX}
    for number, entry in enumerate(entries):
        wanted = [image_member(number), *([mask_member(number)] if entry.mask_sha256 else [])]
        if missing := [name for name in wanted if name not in there]:
            raise ValueError(f"it lacks {missing[0]}, which is {entry.key}")
        listed.update(wanted)
    if len(archive.filelist) > len(listed):
        raise ValueError("it holds files that it does not list, or one twice")


def _class_of(entry: Entry) -> ClassName:
    return CLASSES[CLASSES.index(entry.label)]


def _refuse(path: Path, what: str) -> TrainingError:
    return TrainingError(
        f"{path} cannot be used as a pack: {what}; copy it again, or make it anew with `sonoloop data pack`"
    )
