"""Which models on this machine say that they learned from given images."""

from __future__ import annotations

import json
from collections.abc import Collection
from pathlib import Path
from typing import Any

from sonoloop.errors import BundleError
from sonoloop.models.card import read_bundle_file, read_card
from sonoloop.models.library import Library
from sonoloop.models.manifest import SPLIT
from sonoloop.models.members import MAX_BESIDE_BYTES

# who was watched had a say in when the training ended
_PARTS = ("train", "validation")


def find_taught(library: Library, keys: Collection[str]) -> dict[str, str]:
    """Find the models whose own list of who trained them holds any of these images.

    A model that has no such list, or one that cannot be read, says nothing and is not found.

    Parameters
    ----------
    library : Library
        Where the models are; the one that ships is among them.
    keys : collection of str
        Ids and pixel hashes; see `sonoloop.values.Frame`.

    Returns
    -------
    dict
        By version the model's id, as users see it.
    """
    return {
        version: read_card(folder).model
        for version, folder in library.versions().items()
        if _read_keys(folder).intersection(keys)
    }


def _read_keys(folder: Path) -> set[str]:
    if not (folder / SPLIT).is_file():
        return set()
    try:
        parts = json.loads(read_bundle_file(folder / SPLIT, MAX_BESIDE_BYTES))
        return {key for part in _PARTS for entry in parts.get(part, []) for key in _keys_of(entry)}
    except (BundleError, ValueError, TypeError, AttributeError, RecursionError):
        return set()


def _keys_of(entry: Any) -> tuple[str, ...]:  # noqa: ANN401 - whatever JSON holds
    if not isinstance(entry, dict):
        return ()  # an older list has names alone
    return tuple(str(entry[name]) for name in ("id", "pixels_hash") if entry.get(name))
