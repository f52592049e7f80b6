"""Who trained a model, who validated it and who tested it: what a bundle's ``split.json`` says."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal, get_args

from sonoloop.errors import BundleError, TrainingError
from sonoloop.models.card import MAX_BESIDE_BYTES, read_bundle_file
from sonoloop.models.schema import parse_json
from sonoloop.regular_files import read_regular
from sonoloop.values import Frame

SPLIT = "split.json"
Part = Literal["train", "validation", "test"]
PARTS: tuple[Part, ...] = get_args(Part)
_DIGITS = 16
_FINGERPRINT = re.compile(r"(?:[0-9a-f]{64})?")
# what reading JSON of any form may raise
_WRONG_FORM = (ValueError, TypeError, KeyError, AttributeError, RecursionError)


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """An image of a manifest; what an older list does not tell is empty.

    Parameters
    ----------
    name : str
        "dataset/name".
    group : str
        Who belongs together; see `sonoloop_training.datasets.Sample`.
    id, pixels_hash : str
        See `sonoloop.values.Frame`.
    fingerprint : str
        See `sonoloop.imaging.fingerprints.fingerprint`.
    """

    name: str
    group: str = ""
    id: str = ""
    pixels_hash: str = ""
    fingerprint: str = ""

    @property
    def hashes(self) -> tuple[str, ...]:
        """The hashes by which it is known again: of its bytes and of its pixels."""
        return tuple(filter(None, (self.id, self.pixels_hash)))

    def to_dict(self) -> dict[str, str]:
        """Return what is known of it."""
        return {name: value for name in _KEYS if (value := getattr(self, name))}

    @classmethod
    def from_json(cls, entry: Any) -> Member:  # noqa: ANN401 - whatever JSON holds
        """Read an entry; an older list has names alone."""
        if isinstance(entry, str):
            return cls(name=entry)
        values = {"name": entry["name"]} | {key: entry.get(key) or "" for key in _KEYS[1:]}
        for key, value in values.items():
            if not isinstance(value, str):
                raise TypeError(f"{key} is no text")
        if not _FINGERPRINT.fullmatch(values["fingerprint"]):
            raise ValueError(f"{values['fingerprint'][:80]!r} is no fingerprint")
        return cls(**values)


_KEYS = tuple(field.name for field in fields(Member))
_CALIBRATION = "calibration"


def is_other(frame: Frame, member: Member | None) -> bool:
    """Whether a frame is another image than the one listed by its name: neither bytes nor pixels agree.

    False where no hash is listed, and for a re-saved copy of the same pixels.
    """
    return member is not None and bool(member.hashes) and not {frame.id, frame.pixels_hash} & {*member.hashes}


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """The images of each part, and those that its numbers alone were fitted on, by `sonoloop calibrate`."""

    train: tuple[Member, ...] = ()
    validation: tuple[Member, ...] = ()
    test: tuple[Member, ...] = ()
    calibration: tuple[Member, ...] = ()

    def __getitem__(self, part: Part) -> tuple[Member, ...]:
        """Return the members of a part."""
        members: tuple[Member, ...] = getattr(self, part)
        return members

    @property
    def known(self) -> tuple[Member, ...]:
        """Those that it learned from, and those that had a say in when the training ended."""
        return self.train + self.validation

    @property
    def sha256(self) -> str:
        """The hash of who is where; 64 hex digits."""
        return hash_listing(self.to_dict())

    def to_dict(self) -> dict[str, list[dict[str, str]]]:
        """Return the members by part, as JSON can hold them."""
        listing: dict[str, list[dict[str, str]]]
        listing = {part: [member.to_dict() for member in self[part]] for part in PARTS}
        if self.calibration:
            listing[_CALIBRATION] = [member.to_dict() for member in self.calibration]
        return listing

    def to_json(self) -> bytes:
        """Return the content of a ``split.json``."""
        return json.dumps(self.to_dict(), indent=1).encode()

    @classmethod
    def from_json(cls, text: str | bytes) -> Manifest:
        """Read the content of a ``split.json``: for each part a list of members, or of names."""
        told = parse_json(text)
        parts = {part: told.get(part, []) for part in (*PARTS, _CALIBRATION)}
        for part, entries in parts.items():
            if not isinstance(entries, list):
                raise TypeError(f"{part} is no list")
        return cls(**{part: tuple(map(Member.from_json, entries)) for part, entries in parts.items()})

    def without_names(self, public: Manifest) -> Manifest:
        """Replace names and groups by ids, so that the list may leave the house: file names name people.

        An image and its near copies are still known by their hashes and fingerprints, and who belongs
        together is still told. Images of `public` keep their names.
        """
        known = {member.id: member for part in PARTS for member in public[part] if member.id}
        parts: dict[str, tuple[Member, ...]] = {part: self[part] for part in PARTS}
        parts[_CALIBRATION] = self.calibration
        renamed: dict[str, list[Member]] = {part: [] for part in parts}
        groups: dict[str, str] = {}
        for number, (part, member) in enumerate(((p, m) for p in parts for m in parts[p]), start=1):
            if member.id in known:
                renamed[part].append(known[member.id])
                continue
            name = member.id[:_DIGITS] or f"image-{number}"
            # called by its first image: a hash of a patient's number could be guessed
            group = member.group and groups.setdefault(member.group, f"group-{name}")
            renamed[part].append(replace(member, name=name, group=group))
        return Manifest(**{part: tuple(members) for part, members in renamed.items()})


def read_manifest(path: Path) -> Manifest:
    """Read a split: a list for each of "train", "validation" and "test"; see `Member` for its entries."""
    try:
        return Manifest.from_json(read_regular(path, most=MAX_BESIDE_BYTES))
    except OSError as error:
        raise TrainingError(f"cannot read the split {path} ({error.strerror}); check the path") from error
    except _WRONG_FORM as error:
        raise TrainingError(
            f'{path} is no split; it should be {{"train": [...], "validation": [...], "test": [...]}} '
            'with entries such as {"name": "busi/benign (1)"}'
        ) from error


def bundle_manifest(folder: Path) -> Manifest | None:
    """Read who trained the model in a bundle's folder; None where it does not say."""
    # a link that leads nowhere, and what is no file, are not nothing
    if not os.path.lexists(folder / SPLIT):
        return None
    try:
        return Manifest.from_json(read_bundle_file(folder / SPLIT, MAX_BESIDE_BYTES))
    except _WRONG_FORM as error:
        raise BundleError(
            f"{SPLIT} of the model, which says who trained it, cannot be used ({error}); export the model "
            "again"
        ) from error


def hash_listing(listing: Mapping[Any, Any]) -> str:
    """SHA-256 of what JSON can hold, such as who is where; 64 hex digits."""
    return hashlib.sha256(json.dumps(listing, sort_keys=True).encode()).hexdigest()
