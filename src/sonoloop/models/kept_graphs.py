"""Graphs that were made here of models whose bundles have none, in the user's cache folder.

A bundle's version is the hash of its card, which names its graph: what is made later cannot enter it.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path

import platformdirs

from sonoloop.atomic import whole
from sonoloop.errors import BundleError, EngineError, ModelError, describe_system_error
from sonoloop.models.card import GRAPH, MAX_GRAPH_BYTES, Card, read_graph
from sonoloop.models.torch_import import before_torch
from sonoloop.regular_files import read_regular

# another one where `sonoloop.models.graph` writes the same network otherwise
MAKER = 1
# of all of them; the newest stays in any case
_MOST_BYTES = 1 << 30
_NEEDED = ("torch", "onnx", "onnxscript")
_DIGITS = 32


def has_graph(card: Card) -> bool:
    """Whether a model's bundle has a graph, or one was made here."""
    return GRAPH in card.graphs or next(_kept(card), None) is not None


def find_graph(folder: Path, card: Card) -> bytes:
    """Read a bundle's graph; of a bundle without one, the one that was made here; or an `EngineError`."""
    if GRAPH not in card.graphs:
        for path in _kept(card):
            # one that is damaged, or cannot be read, is as none
            with suppress(OSError):
                data = read_regular(path, most=MAX_GRAPH_BYTES)
                if path.stem.endswith(f"-{hashlib.sha256(data).hexdigest()}"):
                    # the last to be removed
                    os.utime(path)
                    return data
    return read_graph(folder, card)


def can_make_graphs() -> bool:
    """Whether what makes graphs is installed."""
    try:
        return all(find_spec(package) is not None for package in _NEEDED)
    except (ImportError, ValueError):  # half of one is there
        return False


def make_graph_once(folder: Path, card: Card, *, on_notice: Callable[[str], None]) -> None:
    """Make the graph of a bundle that has none, and keep it; it takes torch, and seconds.

    Raises
    ------
    EngineError
        If it cannot be made, or answers otherwise than torch.
    """
    if GRAPH in card.graphs:
        return
    with suppress(EngineError):
        find_graph(folder, card)
        return
    if not can_make_graphs():
        raise EngineError(
            f"the model {card.model} has no graph, which takes torch, onnx and onnxscript to make; use "
            '--engine torch for it, or run: pip install "napari-sonoloop[train]"'
        )
    on_notice(f"the model {card.model} has no graph: one is made now and kept, which may take half a minute")
    before_torch()
    from sonoloop.models.bundle import read_bundle  # noqa: PLC0415 - imports torch
    from sonoloop.models.engines.parity import check_graph_answers  # noqa: PLC0415 - it imports the engines
    from sonoloop.models.graph import make_graph, prove_graph  # noqa: PLC0415 - imports torch

    try:
        bundle = read_bundle(folder)
        graph = make_graph(bundle.network, card.spec)
        prove_graph(graph, bundle.network, card)
        check_graph_answers(graph, bundle)
        _keep(card, graph)
    except (ModelError, OSError) as error:
        told = describe_system_error(error) if isinstance(error, OSError) else error
        raise EngineError(
            f"the model {card.model} has no graph, and none can be made here: {told}; use --engine torch for "
            "it"
        ) from error


def forget_graph(version: str) -> None:
    """Remove what was made of a model: it holds its weights."""
    for path in _folder().glob(f"{version[:_DIGITS]}-*.onnx"):
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            raise BundleError(f"{path} cannot be deleted ({error.strerror}); delete it by hand") from error


def _kept(card: Card) -> Iterator[Path]:
    return _folder().glob(f"{card.version[:_DIGITS]}-{MAKER}-*.onnx")


def _keep(card: Card, graph: bytes) -> None:
    folder = _folder()
    folder.mkdir(parents=True, exist_ok=True)
    # its name tells whether it is whole
    name = f"{card.version[:_DIGITS]}-{MAKER}-{hashlib.sha256(graph).hexdigest()}.onnx"
    with whole(folder / name) as temporary:
        temporary.write_bytes(graph)
    room = _MOST_BYTES - len(graph)
    # another process may have removed one since
    with suppress(OSError):
        others = [(path.stat(), path) for path in folder.glob("*.onnx") if path.name != name]
        for status, path in sorted(others, key=lambda other: -other[0].st_mtime):
            room -= status.st_size
            if room < 0:
                path.unlink(missing_ok=True)


def _folder() -> Path:
    return platformdirs.user_cache_path("sonoloop", appauthor=False) / "graphs"
