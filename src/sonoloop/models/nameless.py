"""Who trained a model, without the names: file names carry names of people."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from sonoloop.models.places import shipped_folder

SPLIT = "split.json"
_PARTS = ("train", "validation", "test")
_DIGITS = 16


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
