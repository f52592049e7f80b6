"""Who trained a model, without the names: file names carry names of people."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sonoloop.errors import BundleError
from sonoloop.models.card import MAX_BESIDE_BYTES, read_bundle_file, shipped_folder

SPLIT = "split.json"
_PARTS = ("train", "validation", "test")
_DIGITS = 16
_FINGERPRINT = re.compile(r"(?:[0-9a-f]{64})?")


def without_names(split: bytes) -> bytes | None:
    """Replace names and groups by ids, so that the list may leave the house.

    An image and its near copies are still known by their hashes and fingerprints, and who belongs together
    is still told. Images that the model inside the package names are public, and keep their names.

    Parameters
    ----------
    split : bytes
        A bundle's ``split.json``: for each part a list of ``{"name", "group", "id", "pixels_hash",
        "fingerprint"}``, or of names.

    Returns
    -------
    bytes or None
        The same list, each entry with these five keys at most; None if it has another form, since nobody
        could say what is in it.
    """
    try:
        parts = json.loads(split)
        return _rename(parts, _read_public()) if isinstance(parts, dict) else None
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return None


def check_split(folder: Path) -> None:
    """Make sure that who trained a model can be read, before the model is let in; it may not say so at all.

    Parameters
    ----------
    folder : pathlib.Path
        A bundle.
    """
    if not (folder / SPLIT).is_file():
        return
    data = read_bundle_file(folder / SPLIT, MAX_BESIDE_BYTES)
    try:
        parts = json.loads(data)
        entries = [entry for part in _PARTS for entry in parts.get(part, []) if not isinstance(entry, str)]
        for entry in entries:
            _check_entry(entry)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise BundleError(
            f"{SPLIT} of the model, which says who trained it, cannot be used ({error}); export the model "
            "again"
        ) from error


def _check_entry(entry: Mapping[str, Any]) -> None:
    for key in ("name", "group", "id", "pixels_hash", "fingerprint"):
        if not isinstance(entry[key] if key == "name" else entry.get(key) or "", str):
            raise TypeError(f"{key} is no text")
    fingerprint = entry.get("fingerprint") or ""
    if not _FINGERPRINT.fullmatch(fingerprint):
        raise ValueError(f"{fingerprint[:80]!r} is no fingerprint")


def _rename(parts: Mapping[str, Any], public: Mapping[str, Mapping[str, str]]) -> bytes:
    groups: dict[str, str] = {}
    renamed: dict[str, list[dict[str, str]]] = {}
    count = 0
    for part in _PARTS:
        renamed[part] = []
        for given in parts.get(part, []):
            count += 1
            entry = {"name": given} if isinstance(given, str) else given
            known = str(entry.get("id") or "")
            if known in public:
                renamed[part].append(dict(public[known]))
                continue
            name = known[:_DIGITS] or f"image-{count}"
            kept = {key: str(entry[key]) for key in ("id", "pixels_hash", "fingerprint") if entry.get(key)}
            if group := str(entry.get("group") or ""):
                # called by its first image: a hash of a patient's number could be guessed
                kept["group"] = groups.setdefault(group, f"group-{name}")
            renamed[part].append({"name": name, **kept})
    return json.dumps(renamed, indent=1).encode()


def _read_public() -> dict[str, dict[str, str]]:
    path = shipped_folder() / SPLIT
    if not path.is_file():
        return {}
    listed = json.loads(path.read_text(encoding="utf-8"))
    return {entry["id"]: entry for part in _PARTS for entry in listed.get(part, []) if entry.get("id")}
