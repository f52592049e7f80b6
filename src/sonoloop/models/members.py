"""The files of a bundle's folder: which belong to it, copied so that they last, and checked by hash."""

from __future__ import annotations

import hashlib
import os
import re
from pathlib import Path

from sonoloop.errors import BundleError
from sonoloop.models.card import CARD, MAX_CARD_BYTES, MAX_WEIGHTS_BYTES, WEIGHTS, Card, read_card

MAX_BESIDE_BYTES = 64 << 20
_BESIDE = re.compile(r"(?!(?:con|prn|aux|nul|com\d|lpt\d)\.)[a-z0-9][a-z0-9_-]{0,60}\.(?:json|toml)")
_BLOCK = 1 << 20


def most_bytes(name: str) -> int | None:
    """Say how large a file of a bundle may be.

    Parameters
    ----------
    name : str
        Of the file, without folders.

    Returns
    -------
    int or None
        Bytes; None for what is no part of a bundle. A model works with its card and weights alone; JSON and
        TOML files beside them, such as ``split.json``, come along.
    """
    if name == CARD:
        return MAX_CARD_BYTES
    if name == WEIGHTS:
        return MAX_WEIGHTS_BYTES
    return MAX_BESIDE_BYTES if _BESIDE.fullmatch(name) else None


def copy_members(source: Path, target: Path) -> None:
    """Copy the files of a bundle to a folder that is there and empty; links are followed by nobody.

    Raises
    ------
    BundleError
        If a file is too large.
    OSError
        If one cannot be read or written.
    """
    for path in sorted(source.iterdir()):
        most = most_bytes(path.name)
        if most is None or path.is_symlink() or not path.is_file():
            continue
        if path.stat().st_size > most:
            raise BundleError(
                f"{path.name} of the model {source.name} has {path.stat().st_size:,} bytes, "
                f"more than {most:,}"
            )
        with path.open("rb") as file, (target / path.name).open("xb") as copy:
            while block := file.read(_BLOCK):
                copy.write(block)
            copy.flush()
            os.fsync(copy.fileno())
    sync_folder(target)


def verify_files(folder: Path) -> Card:
    """Check a bundle by its hashes, without building its network.

    Returns
    -------
    Card
        Its card.

    Raises
    ------
    BundleError
        If a file is missing, or the weights are not those that the card names.
    """
    card = read_card(folder)
    digest = hashlib.sha256()
    try:
        with (folder / WEIGHTS).open("rb") as file:
            while block := file.read(_BLOCK):
                digest.update(block)
    except OSError as error:
        raise BundleError(
            f"the model {folder.name} has no readable {WEIGHTS} ({error.strerror}); "
            f"a bundle is a folder with {CARD} and {WEIGHTS}"
        ) from error
    if digest.hexdigest() != card.weights_sha256:
        raise BundleError(
            f"the weights of the model {folder.name} are not those its card names; copy or install it again"
        )
    return card


def sync_folder(folder: Path) -> None:
    """Have the disk keep a folder's list of files: a rename itself must survive power loss."""
    if os.name != "posix":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
