"""A bundle as one zip file, to carry to another machine."""

from __future__ import annotations

import hashlib
import re
import shutil
import stat
import zlib
from pathlib import Path, PurePosixPath
from zipfile import ZIP_DEFLATED, ZIP_STORED, BadZipFile, ZipFile, ZipInfo

from sonoloop.atomic import whole
from sonoloop.errors import BundleError
from sonoloop.models.card import (
    CARD,
    MAX_BESIDE_BYTES,
    MAX_CARD_BYTES,
    MAX_WEIGHTS_BYTES,
    WEIGHTS,
    Card,
    read_card,
)
from sonoloop.models.manifest import SPLIT, without_names

_BESIDE = re.compile(r"(?!(?:con|prn|aux|nul|com\d|lpt\d)\.)[a-z0-9][a-z0-9_-]{0,60}\.(?:json|toml)")


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
    """Copy the files of a bundle to a folder that is there and empty; links are followed by nobody."""
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
            shutil.copyfileobj(file, copy)


def verify_files(folder: Path) -> Card:
    """Check a bundle by its hashes, without building its network.

    Returns
    -------
    Card
        Its card.
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


MAX_MEMBERS = 1000
_BLOCK = 1 << 20
# what may leave the house; anything else beside a model stays
_LEAVES = (CARD, WEIGHTS, SPLIT, "history.json")
# any date will do: the same model gives the same file
_DATE = (2020, 1, 1, 0, 0, 0)


def pack(folder: Path, target: Path) -> Path:
    """Write a bundle to a zip file; whole, or not at all.

    Beside the card and the weights it holds the training's history, and who trained the model without names
    (see `sonoloop.models.manifest.without_names`), and nothing else.

    Parameters
    ----------
    folder : pathlib.Path
        A bundle, verified.
    target : pathlib.Path
        The file to make; it must not be there yet.

    Returns
    -------
    pathlib.Path
        The file.
    """
    if target.exists():
        raise BundleError(f"{target} is there already; give another file")
    model = read_card(folder).model
    try:
        with whole(target) as temporary, ZipFile(temporary, "w") as archive:
            for name in _LEAVES:
                _write_member(archive, folder / name, f"{model}/{name}")
    except OSError as error:
        raise BundleError(f"{target} cannot be written ({error.strerror}); give another file") from error
    return target


def unpack(source: Path, folder: Path) -> None:
    """Write the one bundle that a zip file holds to a folder that is there and empty.

    Only the files that `pack` writes are taken, under their own names, whatever their paths say, and
    `read_bundle` judges them. The archive is refused whole for one member that is unsafe.

    Parameters
    ----------
    source : pathlib.Path
        The zip file.
    folder : pathlib.Path
        Where to.
    """
    try:
        archive = ZipFile(source)
    except FileNotFoundError as error:
        raise BundleError(f"there is no file or folder {source}; check the path") from error
    except (BadZipFile, OSError, ValueError, NotImplementedError) as error:
        raise BundleError(
            f"{source.name} is no zip file, or damaged ({error}); export or copy it again"
        ) from error
    with archive:
        for info, name in _list_members(archive, source.name):
            _read_member(archive, info, folder / name, source.name)


def _write_member(archive: ZipFile, path: Path, member: str) -> None:
    if not path.is_file():
        return
    info = ZipInfo(member, _DATE)
    info.external_attr = (stat.S_IFREG | 0o644) << 16
    # half-precision weights do not become smaller
    info.compress_type = ZIP_STORED if path.name == WEIGHTS else ZIP_DEFLATED
    if path.name == SPLIT:
        listed = without_names(path.read_bytes())
        if listed is not None:
            archive.writestr(info, listed)
        return
    with path.open("rb") as file, archive.open(info, "w") as copy:
        while block := file.read(_BLOCK):
            copy.write(block)


def _list_members(archive: ZipFile, name: str) -> list[tuple[ZipInfo, str]]:
    infos = [info for info in archive.infolist() if not info.is_dir()]
    if len(infos) > MAX_MEMBERS:
        raise BundleError(f"{name} has {len(infos)} files, more than {MAX_MEMBERS}; is it a model?")
    paths = [(info, _check_member(info, name)) for info in infos]
    cards = [path for _, path in paths if path.name == CARD]
    if len(cards) != 1:
        held = f"{len(cards)} models" if cards else "no model"
        raise BundleError(f"{name} holds {held}; give a zip file with one bundle, {CARD} and {WEIGHTS}")
    taken: dict[str, ZipInfo] = {}
    for info, path in paths:
        most = most_bytes(path.name)
        # what `pack` writes and no more: the sum of what is unpacked has a bound too
        if path.parent != cards[0].parent or path.name not in _LEAVES or most is None:
            continue
        if info.file_size > most:
            raise BundleError(
                f"{path.name} in {name} unpacks to {info.file_size:,} bytes, more than {most:,}; "
                "nothing was imported"
            )
        if path.name in taken:
            raise BundleError(f"{name} has {path} twice; export the model again")
        taken[path.name] = info
    return [(info, member) for member, info in taken.items()]


def _check_member(info: ZipInfo, name: str) -> PurePosixPath:
    path = PurePosixPath(info.filename.replace("\\", "/"))
    if path.is_absolute() or ".." in path.parts or not path.parts or ":" in path.parts[0]:
        raise BundleError(
            f"{name} has a member {info.filename!r}, whose path is not safe; nothing was imported"
        )
    if stat.S_IFMT(info.external_attr >> 16) not in (0, stat.S_IFREG):
        raise BundleError(f"{name} has {info.filename}, which is a link or no file; nothing was imported")
    if info.flag_bits & 0x1:
        raise BundleError(f"{name} is encrypted; unpack it by hand and import the folder")
    return path


def _read_member(archive: ZipFile, info: ZipInfo, target: Path, name: str) -> None:
    left = info.file_size
    try:
        with archive.open(info) as file, target.open("xb") as copy:
            # one byte more than promised would show that the promise was false
            while block := file.read(min(_BLOCK, left + 1)):
                left -= len(block)
                if left < 0:
                    break
                copy.write(block)
    except (BadZipFile, RuntimeError, NotImplementedError, EOFError, zlib.error) as error:
        raise BundleError(
            f"{info.filename} in {name} is damaged ({error}); export or copy it again"
        ) from error
    if left:
        raise BundleError(f"{info.filename} in {name} is damaged (wrong size); export or copy it again")
