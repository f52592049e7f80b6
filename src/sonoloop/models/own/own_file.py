"""A user's network as its file lies there, what it says of itself, and the description beside it."""

from __future__ import annotations

import os
import re
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from sonoloop.errors import BundleError, EngineError
from sonoloop.models.card import MAX_GRAPH_BYTES
from sonoloop.models.graph_shapes import OPERATORS
from sonoloop.models.own import ONNX, OTHERS, SAFETENSORS, TOML, UNPICKLED
from sonoloop.models.own.description import Description, read_description
from sonoloop.models.own.onnx_file import OnnxFile
from sonoloop.models.tensor_list import read_header
from sonoloop.regular_files import name_size, read_regular

if TYPE_CHECKING:
    from collections.abc import Iterator

_SHOWN = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnFile:
    """A user's file as it lies there, and what it says of itself."""

    path: Path
    data: bytes = field(repr=False)
    # name by name, in words
    facts: tuple[tuple[str, str], ...]
    # what keeps it from being a model here
    faults: tuple[str, ...] = ()
    onnx: OnnxFile | None = field(default=None, repr=False)

    @property
    def beside(self) -> Path:
        """Where its description lies."""
        return self.path.with_suffix(TOML)


def read_own(source: Path) -> OwnFile:
    """Read a network's file, or the one that a TOML file lies beside; nothing in it is run."""
    path = _find_network(source)
    try:
        data = read_regular(path, most=MAX_GRAPH_BYTES)
    except FileNotFoundError as error:
        raise BundleError(f"there is no file {path}; check the path") from error
    except OSError as error:
        raise BundleError(f"{path.name} cannot be read ({error.strerror})") from error
    if not data:
        raise BundleError(f"{path.name} is empty; save or export the network again")
    size = ("file", f"{path.name}, {name_size(len(data))}")
    if path.suffix.lower() == SAFETENSORS:
        return OwnFile(path=path, data=data, facts=(size, *_describe_tensors(path.name, data)))
    with named_faults(path.name):
        onnx = OnnxFile(data)
        faults = tuple(onnx.find_faults(OPERATORS))
    facts = (
        size,
        (
            "is",
            f"ONNX, operators of set {onnx.opset}"
            + (f", by {onnx.producer[:80]!a}" if onnx.producer else ""),
        ),
        *(("takes", str(port)[:200]) for port in onnx.inputs[:_SHOWN]),
        *(("gives", str(port)[:200]) for port in onnx.outputs[:_SHOWN]),
        (
            "operations",
            f"{sum(onnx.operators.values()):,} of {len(onnx.operators)} kinds, {onnx.tensors:,} weights",
        ),
    )
    return OwnFile(path=path, data=data, facts=facts, faults=faults, onnx=onnx)


def describe(own: OwnFile) -> Description:
    """Read the description beside a network; where there is none, say how to get one."""
    if not os.path.lexists(own.beside):
        raise BundleError(
            f"there is no {own.beside.name} beside {own.path.name}, which says what it takes and gives: "
            f"sonoloop models check {own.path.name} --write writes one to begin with"
        )
    return read_description(own.beside)


def name_of(path: Path) -> str:
    """Call a model by its file."""
    return re.sub(r"[^a-z0-9_-]+", "-", path.stem.lower()).strip("-_")[:40] or "own"


def _find_network(source: Path) -> Path:
    suffix = source.suffix.lower()
    if suffix in UNPICKLED | OTHERS:
        why = (
            "may run code when it is opened" if suffix in UNPICKLED else "is of a kind that is not read here"
        )
        raise BundleError(
            f"{source.name} {why}, and is left closed. Where the network was made, save its weights with "
            'safetensors.torch.save_file(network.state_dict(), "network.safetensors"), or the network with '
            'torch.onnx.export(network.eval(), (images,), "network.onnx", dynamo=True, external_data=False), '
            "and bring that in: see docs/own-model.md"
        )
    if suffix in (ONNX, SAFETENSORS):
        return source
    if suffix != TOML:
        raise BundleError(
            f"{source.name} is no network of your own by its name: give a file that ends in {ONNX} or "
            f"{SAFETENSORS}, or the {TOML} file beside it"
        )
    there = [path for path in map(source.with_suffix, (ONNX, SAFETENSORS)) if os.path.lexists(path)]
    if len(there) != 1:
        names = f"{source.stem}{ONNX} and {source.stem}{SAFETENSORS}"
        raise BundleError(
            f"beside {source.name} lie both {names}; give the one that is meant"
            if there
            else f"beside {source.name} lies neither {source.stem}{ONNX} nor {source.stem}{SAFETENSORS}, "
            "which it would describe"
        )
    return there[0]


@contextmanager
def named_faults(name: str) -> Iterator[None]:
    """Say of which file it is what is wrong."""
    try:
        yield
    except EngineError as error:
        # its own advice is for a bundle
        cause = error.__cause__ if isinstance(error.__cause__, ValueError) else error
        raise BundleError(f"{name} cannot be used: {cause}") from error
    except ValueError as error:
        raise BundleError(f"{name} cannot be used: {error}") from error


def _describe_tensors(name: str, data: bytes) -> tuple[tuple[str, str], ...]:
    shapes = read_shapes(name, data)
    parts = sorted({ascii(key.partition(".")[0])[1:-1] for key in shapes})
    return (
        ("is", f"safetensors, {len(shapes):,} tensors"),
        ("parts", ", ".join(parts[:_SHOWN])[:200] + (" and others" if len(parts) > _SHOWN else "")),
    )


def read_shapes(name: str, data: bytes) -> dict[str, list[int]]:
    """Read the shape of each tensor of a safetensors file, by name."""
    try:
        return {key: told["shape"] for key, told in read_header(data).items()}
    except ValueError as error:
        raise BundleError(f"{name} is no safetensors file: {error}") from error
