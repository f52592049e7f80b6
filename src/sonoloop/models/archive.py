"""A bundle as one zip file, to carry to another machine."""

from __future__ import annotations

import hashlib
import io
import os
import re
import shutil
import stat
import zlib
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path, PurePosixPath
from typing import cast
from zipfile import ZIP_DEFLATED, ZIP_STORED, BadZipFile, ZipFile, ZipInfo

from sonoloop.atomic import whole
from sonoloop.errors import BundleError
from sonoloop.models.card import (
    CARD,
    GRAPH,
    GRAPHS,
    MAX_BESIDE_BYTES,
    MAX_CARD_BYTES,
    MAX_GRAPH_BYTES,
    MAX_WEIGHTS_BYTES,
    WEIGHTS,
    Card,
    read_card,
    shipped_folder,
)
from sonoloop.models.manifest import SPLIT, Manifest, bundle_manifest
from sonoloop.models.schema import show
from sonoloop.regular_files import name_size, open_regular

_BESIDE = re.compile(r"(?!(?:con|prn|aux|nul|com\d|lpt\d)\.)[a-z0-9][a-z0-9_-]{0,60}\.(?:json|toml)")


def most_bytes(name: str) -> int | None:
    """Say how many bytes a file of a bundle may have; None for what is no part of one.

    A model works with its card and weights alone; graphs, and JSON and TOML files beside them, come along.
    """
    if name == CARD:
        return MAX_CARD_BYTES
    if name == WEIGHTS:
        return MAX_WEIGHTS_BYTES
    if name in GRAPHS:
        return MAX_GRAPH_BYTES
    return MAX_BESIDE_BYTES if _BESIDE.fullmatch(name) else None


def copy_members(source: Path, target: Path) -> None:
    """Copy the files of a bundle to a folder that is there and empty.

    A link is followed where what it leads to is judged by its content: a card, weights, graphs and who
    trained the model. Others would carry any file along.
    """
    for path in sorted(source.iterdir()):
        most = most_bytes(path.name)
        if most is None or (path.name not in _JUDGED and (path.is_symlink() or not path.is_file())):
            continue
        try:
            file = open_regular(path, most=most)
        except OSError as error:
            raise BundleError(
                f"{path.name} of the model {source.name} cannot be read ({error.strerror})"
            ) from error
        with file, (target / path.name).open("xb") as copy:
            shutil.copyfileobj(file, copy)


def verify_files(folder: Path) -> Card:
    """Check a bundle by its hashes, without building its network, and give its card.

    A graph may be missing, which only some engines need; one that the card does not name is refused.
    """
    card = read_card(folder)
    if not card.spec.has_weights:
        _verify_graph_alone(folder, card)
        return card
    try:
        digest = _hash(folder / WEIGHTS, MAX_WEIGHTS_BYTES)
    except OSError as error:
        raise BundleError(
            f"the model {folder.name} has no readable {WEIGHTS} ({error.strerror}); "
            f"a bundle is a folder with {CARD} and {WEIGHTS}"
        ) from error
    if digest != card.weights_sha256:
        raise BundleError(
            f"the weights of the model {folder.name} are not those its card names; copy or install it again"
        )
    _verify_graphs(folder, card)
    return card


def _verify_graph_alone(folder: Path, card: Card) -> None:
    """Check a bundle whose network is its graph and nothing else."""
    if GRAPH not in card.graphs or not os.path.lexists(folder / GRAPH):
        raise BundleError(
            f"the model {folder.name} has no {GRAPH}, which is all of its network; copy or install it again"
        )
    if card.weights_sha256 or os.path.lexists(folder / WEIGHTS):
        raise BundleError(f"the model {folder.name} has weights that are none of a network of ONNX")
    _verify_graphs(folder, card)


def _verify_graphs(folder: Path, card: Card) -> None:
    for name in GRAPHS:
        try:
            digest = _hash(folder / name, MAX_GRAPH_BYTES)
        except FileNotFoundError:
            continue
        except OSError as error:
            raise BundleError(
                f"{name} of the model {folder.name} cannot be read ({error.strerror}); "
                "copy or install it again"
            ) from error
        if digest != card.graphs.get(name):
            raise BundleError(
                f"{name} of the model {folder.name} is not the one its card names; copy or install it again"
            )


def recard(source: Path, target: Path, card: Card, beside: Mapping[str, bytes]) -> None:
    """Copy a bundle, its weights byte for byte, to a new folder with another card, and files `beside`."""
    target.mkdir()
    copy_members(source, target)
    verify_files(target)
    for name, content in {**beside, CARD: card.to_json().encode()}.items():
        (target / name).write_bytes(content)


def _hash(path: Path, most: int) -> str:
    digest = hashlib.sha256()
    with open_regular(path, most=most) as file:
        while block := file.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()


MAX_MEMBERS = 1000
MAX_ARCHIVE_BYTES = MAX_WEIGHTS_BYTES + len(GRAPHS) * MAX_GRAPH_BYTES + MAX_BESIDE_BYTES
# of the list of members, which is read whole
_MAX_LIST_BYTES = 4 << 20
_MAX_RATIO = 100
_BLOCK = 1 << 20
# what may leave the house; anything else beside a model stays
_LEAVES = (CARD, WEIGHTS, *GRAPHS, SPLIT, "history.json")
_JUDGED = (CARD, WEIGHTS, *GRAPHS, SPLIT)
# any date will do: the same model gives the same file
_DATE = (2020, 1, 1, 0, 0, 0)


def pack(folder: Path, target: Path) -> Path:
    """Write a bundle to a zip file; whole, or not at all.

    Beside the card, the weights and the graphs it holds the training's history, and who trained the model
    without names (see `sonoloop.models.manifest.Manifest.without_names`), and nothing else.
    """
    model = read_card(folder).model
    try:
        if target.exists():
            raise BundleError(f"{target} is there already; give another file")
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
    """
    try:
        file = open_regular(source, most=MAX_ARCHIVE_BYTES)
    except FileNotFoundError as error:
        raise BundleError(f"there is no file or folder {source}; check the path") from error
    except OSError as error:
        raise BundleError(f"{source.name} cannot be read ({error.strerror}); check the path") from error
    with _Bounded(cast("io.BufferedReader", file).detach()) as bounded:
        _unpack(bounded, source.name, folder)


class _Bounded(io.BufferedReader):
    """A zip file whose list of members is of a bounded length: `zipfile` reads that at once."""

    def read(self, size: int | None = -1, /) -> bytes:
        most = _MAX_LIST_BYTES + 1
        data = super().read(most if size is None or size < 0 else min(size, most))
        if len(data) == most:
            raise BadZipFile("its list of members is too long")
        return data


def _unpack(file: _Bounded, name: str, folder: Path) -> None:
    try:
        archive = ZipFile(file)
    except (BadZipFile, OSError, ValueError, NotImplementedError) as error:
        raise BundleError(f"{name} is no zip file, or damaged ({error}); export or copy it again") from error
    with archive:
        for info, member in _list_members(archive, name):
            _read_member(archive, info, folder / member, name)


def _write_member(archive: ZipFile, path: Path, member: str) -> None:
    if not path.is_file() or (path.is_symlink() and path.name not in _JUDGED):
        return
    info = ZipInfo(member, _DATE)
    info.external_attr = (stat.S_IFREG | 0o644) << 16
    # half-precision weights do not become smaller
    info.compress_type = ZIP_STORED if path.name in (WEIGHTS, *GRAPHS) else ZIP_DEFLATED
    if path.name == SPLIT:
        # nobody could say what is in a list of another form
        with suppress(BundleError):
            public = bundle_manifest(shipped_folder()) or Manifest()
            listed = bundle_manifest(path.parent) or Manifest()
            archive.writestr(info, listed.without_names(public).to_json())
        return
    with open_regular(path, most=most_bytes(path.name) or 0) as file, archive.open(info, "w") as copy:
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
        if info.file_size > _MAX_RATIO * info.compress_size + (1 << 20):
            raise BundleError(
                f"{path.name} in {name} unpacks from {name_size(info.compress_size)} to "
                f"{name_size(info.file_size)}, more than {_MAX_RATIO} times as much; nothing was imported"
            )
        if path.name in taken:
            raise BundleError(f"{name} has {show(str(path))} twice; export the model again")
        taken[path.name] = info
    return [(info, member) for member, info in taken.items()]


def _check_member(info: ZipInfo, name: str) -> PurePosixPath:
    path = PurePosixPath(info.filename.replace("\\", "/"))
    if path.is_absolute() or ".." in path.parts or not path.parts or ":" in path.parts[0]:
        raise BundleError(
            f"{name} has a member {show(info.filename)}, whose path is not safe; nothing was imported"
        )
    if stat.S_IFMT(info.external_attr >> 16) not in (0, stat.S_IFREG):
        raise BundleError(
            f"{name} has {show(info.filename)}, which is a link or no file; nothing was imported"
        )
    if info.flag_bits & 0x1:
        raise BundleError(f"{name} is encrypted; unpack it by hand and import the folder")
    if info.compress_type not in (ZIP_STORED, ZIP_DEFLATED):
        raise BundleError(f"{show(info.filename)} in {name} is packed in a way of its own; export it again")
    return path


def _read_member(archive: ZipFile, info: ZipInfo, target: Path, name: str) -> None:
    left, member = info.file_size, f"{target.name} in {name}"
    with ExitStack() as stack:
        with _damaged(member):
            file = stack.enter_context(archive.open(info))
        copy = stack.enter_context(target.open("xb"))
        while left >= 0:
            with _damaged(member):
                # one byte more than promised would show that the promise was false
                block = file.read(min(_BLOCK, left + 1))
            if not block:
                break
            left -= len(block)
            copy.write(block)
    if left:
        raise BundleError(f"{member} is damaged (wrong size); export or copy it again")


@contextmanager
def _damaged(member: str) -> Iterator[None]:
    try:
        yield
    except (BadZipFile, RuntimeError, ValueError, OSError, EOFError, zlib.error) as error:
        raise BundleError(f"{member} is damaged ({error}); export or copy it again") from error
