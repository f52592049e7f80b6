"""The models on this machine, each in a folder of its own that is named by the model's id."""

from __future__ import annotations

import os
import shutil
import threading
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from sonoloop.atomic import name_aside, remove_whole, sweep_left, whole
from sonoloop.errors import BundleError, ModelError
from sonoloop.models.archive import copy_members, pack, unpack, verify_files
from sonoloop.models.card import (
    CARD,
    DEFAULT,
    GRAPH,
    MAX_BESIDE_BYTES,
    Card,
    models_folder,
    read_bundle_file,
    read_card,
    read_graph,
    shipped_folder,
)
from sonoloop.models.engines.auto import open_engine
from sonoloop.models.engines.onnx import is_usable
from sonoloop.models.graph_check import check_graph
from sonoloop.models.kept_graphs import forget_graph
from sonoloop.models.manifest import SPLIT, bundle_manifest
from sonoloop.models.own import is_own_network
from sonoloop.models.torch_import import before_torch

if TYPE_CHECKING:
    from sonoloop.models.bundle import Bundle

_TEMPORARY = ".tmp"
# of an older Sonoloop, whose names do not tell the process; a copy takes seconds
_LEFT_OVER_SECONDS = 3600
_ADDING = threading.Lock()


class Library:
    """Keeps models in a folder, each whole or not at all; a model is named by its version.

    A bundle in use is copied here, so that an upgrade of the package takes nothing away. The model that ships
    is found without a copy too. The folder, the user's own unless given, is made when something is added.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = models_folder() if folder is None else folder

    def add(self, bundle_folder: Path) -> Path:
        """Copy a bundle into the library, with what lies beside it, such as ``split.json``; give the copy.

        Adding one that is there already changes nothing, and mends a copy that was damaged.
        """
        card = read_card(bundle_folder)
        # another thread's copy is finished first, and found then
        with _ADDING:
            return self._add(bundle_folder, card)

    def _add(self, bundle_folder: Path, card: Card) -> Path:
        target = self.folder / card.model
        if target.exists() and self._is_whole(target, card):
            return target
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._sweep()
            with whole(target) as temporary:
                temporary.mkdir()
                copy_members(bundle_folder, temporary)
                verify_files(temporary)
                if target.exists() and not self._is_whole(target, card):
                    # another process may have removed it since
                    with suppress(FileNotFoundError):
                        remove_whole(target)
        except OSError as error:
            if target.exists() and self._is_whole(target, card):
                return target  # another process was quicker
            raise BundleError(
                f"{card.model} cannot be copied to {self.folder} ({error.strerror}); make room, or allow "
                "writing there"
            ) from error
        return target

    def keep_shipped(self) -> Card:
        """Copy the model inside the package here: a project that has no model in use begins with it."""
        return read_card(self.add(shipped_folder()))

    def find(self, version: str) -> Path:
        """Find the folder of a version; its weights are for `load` or `verify_files` to check."""
        named = [folder for folder in self.folders() if folder.name.endswith(f"-{version[:8]}")]
        for folder in named:  # first: the cards of others need not be read
            if _version_of(folder) == version:
                return folder
        found = self.versions().get(version)
        if found is not None:
            return found
        if named:
            raise BundleError(
                f"the card of the model {named[0].name} is not the one that was kept; import the model again"
            )
        raise ModelError(
            f"the model of version {version[:8]} is not on this machine: import it from a zip file or a "
            "folder, as in: sonoloop models import FILE"
        )

    def load(self, version: str) -> Bundle:
        """Load and verify a version as torch has it, to train it or to look into it."""
        return _read_bundle(self.find(version))

    def check(self, version: str) -> Card:
        """Verify a version all through, with torch where it is there; give its card."""
        return _check_whole(self.find(version))

    def keep(self, version: str, *, on_notice: Callable[[str], None] | None = None) -> Path:
        """Find the folder of the model in use, and see that it stays after an upgrade of the package.

        Where the shipped one cannot be copied here, `on_notice` is told, and the package's own is given.
        """
        folder = self.find(version)
        if folder == shipped_folder():
            try:
                self.keep_shipped()
            except BundleError as error:
                if on_notice is not None:
                    on_notice(str(error))
        return folder

    def versions(self) -> dict[str, Path]:
        """List the versions on this machine, the shipped one among them, with their folders.

        Folders whose card cannot be read are left out.
        """
        found: dict[str, Path] = {}
        for folder in (*self.folders(), shipped_folder()):
            version = _version_of(folder)
            if version is not None:
                found.setdefault(version, folder)
        return found

    def export(self, version: str, target: Path) -> Path:
        """Write a version to a zip file that `import_` reads on another machine.

        What leaves holds no file names: see `sonoloop.models.archive.pack`.
        """
        folder = self.find(version)
        verify_files(folder)
        return pack(folder, target)

    def import_(self, source: Path) -> Path:
        """Add a model from a zip file, a bundle's folder or its card; it is not trusted.

        Or from a network of a user's own: see `sonoloop.models.own`.
        """
        source = source.parent if source.name == CARD else source
        if os.path.isdir(source):  # noqa: PTH112 - a name that is too long is none
            return self._add_checked(source)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._sweep()
            scratch = name_aside(self.folder / "import")
            try:
                folder = scratch / (source.stem.strip(".") or "model")
                if is_own_network(source):
                    _make_own(source, folder)
                else:
                    folder.mkdir(parents=True)
                    unpack(source, folder)
                return self._add_checked(folder)
            finally:
                shutil.rmtree(scratch, ignore_errors=True)
        except OSError as error:
            raise BundleError(
                f"{source.name} cannot be unpacked to {self.folder} ({error.strerror}); make room, or allow "
                "writing there"
            ) from error

    def delete(self, version: str) -> None:
        """Delete the copy of a version; deleting one that is not there is no error.

        The model inside the package is never touched.
        """
        for folder in self.folders():
            found = _version_of(folder)
            ours = folder.name.endswith(f"-{version[:8]}")
            if found != version and not (found is None and ours):
                continue
            if not ours:
                raise BundleError(f"{folder} was put there by hand: delete it by hand")
            try:
                remove_whole(folder)
            except OSError as error:
                raise BundleError(
                    f"{folder} cannot be deleted ({error.strerror}); close what uses it, or delete it by hand"
                ) from error
        forget_graph(version)

    def _add_checked(self, folder: Path) -> Path:
        _check_whole(folder)
        bundle_manifest(folder)
        return self.add(folder)

    def folders(self) -> Iterator[Path]:
        """Give the folder of each model in the library, in order."""
        self._sweep()
        try:
            paths = sorted(self.folder.iterdir())
        except (FileNotFoundError, NotADirectoryError):
            return
        except OSError as error:
            raise BundleError(
                f"the models in {self.folder} cannot be listed ({error.strerror}); allow reading that folder"
            ) from error
        for path in paths:
            # those that cannot be looked into are none
            if not path.name.startswith(".") and os.path.isfile(path / CARD):  # noqa: PTH113
                yield path

    def _is_whole(self, folder: Path, card: Card) -> bool:
        try:
            there = verify_files(folder)
        except BundleError:
            return False
        if there.version != card.version and there.model == card.model:
            raise BundleError(
                f"{folder} holds another model of the same id as the one to add; move it elsewhere first"
            )
        # else somebody edited the card
        return there.version == card.version

    def _sweep(self) -> None:
        """Remove what processes that were killed left."""
        sweep_left(self.folder)
        with suppress(OSError):
            for path in list(self.folder.glob(f".*{_TEMPORARY}")):
                if time.time() - path.lstat().st_mtime > _LEFT_OVER_SECONDS:
                    shutil.rmtree(path, ignore_errors=True)


def _version_of(folder: Path) -> str | None:
    try:
        return read_card(folder).version
    except BundleError:
        return None


def _make_own(source: Path, folder: Path) -> None:
    from sonoloop.models.own.model import make_own  # noqa: PLC0415 - for a few alone
    from sonoloop.models.own.own_file import describe, read_own  # noqa: PLC0415 - as above
    from sonoloop.models.own.trial import try_card  # noqa: PLC0415 - as above

    own = read_own(source)
    description = describe(own)
    try_card(folder, make_own(own, description, folder), description, own.path.name)


def _read_bundle(folder: Path) -> Bundle:
    before_torch()
    from sonoloop.models.bundle import read_bundle  # noqa: PLC0415 - imports torch

    return read_bundle(folder)


def _check_whole(folder: Path) -> Card:
    """Refuse a bundle that could not be run here, or whose graph answers otherwise than its weights.

    Without torch its graph alone is tried: nothing uses the weights then, so that nothing contradicts it.
    """
    card = read_card(folder)
    graphs = {
        # one that is missing is made up for by torch
        name: read_graph(folder, card, name)
        for name in card.graphs
        if os.path.lexists(folder / name)
    }
    for graph in graphs.values():
        check_graph(graph, card)
    if not card.spec.has_weights or find_spec("torch") is None:
        verify_files(folder)
        return open_engine(folder, "cpu").card
    bundle = _read_bundle(folder)
    if GRAPH in graphs and is_usable():
        from sonoloop.models.graph import prove_graph  # noqa: PLC0415 - imports torch

        prove_graph(graphs[GRAPH], bundle.network, bundle.card)
    return bundle.card


def load_bundle(name_or_path: str | Path | None = None) -> Bundle:
    """Load and verify a model; see `bundle_folder` for what it may be called."""
    return _read_bundle(bundle_folder(name_or_path))


def bundle_folder(name_or_path: str | Path | None = None) -> Path:
    """Find a model: a path, the name of one in the data folder, or "default", as where none is given."""
    if name_or_path is None or str(name_or_path) == DEFAULT:
        return shipped_folder()
    path = Path(name_or_path)
    if path.name == CARD:
        path = path.parent
    if os.path.isdir(path):  # noqa: PTH112 - a name that is too long is none
        return path
    own = {folder.name: folder for folder in Library().folders()}
    if str(name_or_path) in own:
        return own[str(name_or_path)]
    raise ModelError(
        f"there is no model {str(name_or_path)!r}; "
        f"give a bundle's folder, or one of: {', '.join([DEFAULT, *own])}"
    )


def find_models_trained_on(library: Library, keys: Collection[str]) -> dict[str, str]:
    """Find the models whose own list of who trained them holds any of these ids and pixel hashes.

    A model without such a list says nothing and is not found. Gives by version the model's id, as users see
    it.
    """
    found: dict[str, str] = {}
    for version, folder in library.versions().items():
        with suppress(BundleError):
            try:
                manifest = bundle_manifest(folder)
                known = () if manifest is None else (*manifest.known, *manifest.calibration)
                learned = any(key in keys for member in known for key in member.hashes)
            except BundleError:
                # a damaged list: whoever stands in it, in whatever part, may have trained the model
                text = read_bundle_file(folder / SPLIT, MAX_BESIDE_BYTES)
                learned = any(key.encode() in text for key in keys)
            if learned:
                found[version] = read_card(folder).model
    return found
