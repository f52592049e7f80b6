"""What a user's network takes and gives: the TOML file beside it."""

from __future__ import annotations

import difflib
import math
import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from sonoloop.errors import BundleError
from sonoloop.models.card import MAX_SIZE, check_range
from sonoloop.models.schema import check_fields, check_type, check_values, show
from sonoloop.regular_files import read_regular
from sonoloop.values import CLASSES

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

T = TypeVar("T", bound="DataclassInstance")

SIGMOID, SOFTMAX, NONE = "sigmoid", "softmax", "none"
_ACTIVATIONS = (SIGMOID, SOFTMAX, NONE)
NCHW, NHWC = "NCHW", "NHWC"
LIBRARIES = ("smp", "timm", "torchvision")
_MAX_BYTES = 64 << 10
_MIN_SIZE = 16
# channels of a mask, or classes: none of this subject has more
_MOST_CHANNELS = 64
_LARGEST = 1e6
_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,39}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Input:
    """What the network takes."""

    # side of the square that it sees, in pixels
    size: int
    channels: int = 1
    # of the file's input; the only one if not given
    name: str = ""
    layout: str = NCHW
    # what black and white are before mean and std
    range: tuple[float, ...] = (0.0, 1.0)
    # one for each channel; nothing is subtracted or divided if not given
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    # "letterbox" keeps the aspect ratio, with black borders; "stretch" does not
    resize: str = "letterbox"

    def __post_init__(self) -> None:
        check_fields(self)
        if not _MIN_SIZE <= self.size <= MAX_SIZE:
            raise ValueError(f"size must be from {_MIN_SIZE} to {MAX_SIZE}, got {self.size}")
        if self.channels not in (1, 3):
            raise ValueError(f"channels must be 1 or 3, got {self.channels}")
        _check_choice("layout", self.layout, (NCHW, NHWC))
        _check_choice("resize", self.resize, ("letterbox", "stretch"))
        if len(self.range) != 2 or not self.range[0] < self.range[1]:
            raise ValueError(f"range must be two numbers, black and white, got {show([*self.range])}")
        for name in ("mean", "std"):
            values = getattr(self, name)
            if len(values) not in (0, self.channels):
                raise ValueError(
                    f"{name} must have a number for each of the {self.channels} channels, got "
                    f"{show([*values])}"
                )
        if any(abs(each) > _LARGEST for each in (*self.range, *self.mean)):
            raise ValueError(f"range and mean must be within {_LARGEST:,.0f}")
        if any(not 1 / _LARGEST <= each <= _LARGEST for each in self.std):
            raise ValueError(f"std must be above 0, got {show([*self.std])}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Lesion:
    """What makes its answer the probability of a lesion."""

    activation: str
    channels: int = 1
    # which of the channels stand for a lesion, from 0
    channel: int | tuple[int, ...] = 0
    # of the file's output; the only one that is an image if not given
    output: str = ""

    def __post_init__(self) -> None:
        check_fields(self)
        _check_choice("activation", self.activation, _ACTIVATIONS)
        if not 1 <= self.channels <= _MOST_CHANNELS:
            raise ValueError(f"channels must be from 1 to {_MOST_CHANNELS}, got {self.channels}")
        chosen = self.chosen
        if not chosen or len({*chosen}) != len(chosen) or any(not 0 <= c < self.channels for c in chosen):
            raise ValueError(
                f"channel must be one or several of 0 to {self.channels - 1}, got {show(self.channel)}"
            )
        if self.activation == SOFTMAX and len(chosen) == self.channels:
            raise ValueError("a softmax of the channels that are chosen is 1 everywhere: is it a sigmoid?")

    @property
    def chosen(self) -> tuple[int, ...]:
        """The channels that stand for a lesion."""
        return self.channel if isinstance(self.channel, tuple) else (self.channel,)


@dataclass(frozen=True, slots=True, kw_only=True)
class Classes:
    """What makes its answer the classes."""

    activation: str
    # in the order of the network's answer
    order: tuple[str, ...]
    # of the file's output; the only one that is a list of numbers if not given
    output: str = ""

    def __post_init__(self) -> None:
        check_fields(self)
        _check_choice("activation", self.activation, _ACTIVATIONS)
        wrong = [name for name in self.order if name not in CLASSES]
        if wrong or len({*self.order}) != len(self.order) or not {"benign", "malignant"} <= {*self.order}:
            raise ValueError(
                f"order must name {', '.join(CLASSES)}, or benign and malignant, each once and in the "
                f"order of the network's answer, got {show([*self.order])}"
            )
        if self.activation == SIGMOID and len(self.order) != 2:
            raise ValueError("a sigmoid gives the second of two classes, and order names three")

    @property
    def channels(self) -> int:
        """How many numbers the network gives; a sigmoid gives the probability of the second class alone."""
        return 1 if self.activation == SIGMOID else len(self.order)


@dataclass(frozen=True, slots=True, kw_only=True)
class Network:
    """Which network of a library a safetensors file holds the weights of."""

    library: str
    architecture: str
    # of smp alone
    encoder: str = ""
    arguments: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_fields(self)
        _check_choice("library", self.library, LIBRARIES)


@dataclass(frozen=True, slots=True, kw_only=True)
class Description:
    """What a user's network takes and gives, and the numbers that its answer is read with."""

    input: Input
    lesion: Lesion | None = None
    classes: Classes | None = None
    # of a safetensors file
    network: Network | None = None
    # what the model is called; the file's name if not given
    name: str = ""
    # as of a card
    threshold: float = 0.5
    normal_gate: float = 0.9
    min_area: float = 0.001
    temperature: float = 1.0
    views: int = 2

    def __post_init__(self) -> None:
        check_fields(self)
        if self.lesion is None and self.classes is None:
            raise ValueError("it has neither [lesion] nor [classes]: say what the network gives")
        if self.name and not _NAME.fullmatch(self.name):
            raise ValueError(f"name must be lower-case letters, digits, - and _, got {show(self.name)}")
        for name in ("threshold", "normal_gate", "min_area", "temperature"):
            check_range(name, getattr(self, name))
        if self.views not in (1, 2, 4):
            raise ValueError(f"views must be 1, 2 or 4, got {self.views}")

    @property
    def heads(self) -> str:
        """What it tells, as the arguments of a specification say it."""
        return "both" if self.lesion and self.classes else "lesion" if self.lesion else "classes"

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON can hold it; what is not told is left out."""
        return {key: value for key, value in asdict(self).items() if value is not None}


_TABLES: Mapping[str, type[Any]] = {"input": Input, "lesion": Lesion, "classes": Classes, "network": Network}


def read_description(path: Path) -> Description:
    """Read the TOML file beside a network; a `BundleError` says what in it is wrong."""
    try:
        text = read_regular(path, most=_MAX_BYTES).decode("utf-8-sig")
        return parse_description(tomllib.loads(text))
    except OSError as error:
        raise BundleError(f"{path.name} cannot be read ({error.strerror})") from error
    except UnicodeDecodeError as error:
        raise BundleError(f"{path.name} is no text in UTF-8 (byte {error.start}); save it as such") from error
    except RecursionError as error:
        raise BundleError(f"{path.name} is nested too deeply") from error
    except (ValueError, TypeError) as error:
        raise BundleError(f"{path.name} cannot be used: {error}") from error


def parse_description(values: Mapping[str, Any]) -> Description:
    """Make a description of what a TOML file holds; a `ValueError` names the key that is wrong."""
    told = dict(values)
    for name, kind in _TABLES.items():
        if name in told:
            check_type(name, Mapping[str, Any], told[name])
            told[name] = _make(kind, told[name], f"[{name}]")
    if "input" not in told:
        raise ValueError(f"it has no [input]{_guess('input', [*told])}: say at least its size and channels")
    description = _make(Description, told, "the top of the file")
    check_values("", values)
    return description


def _make(kind: type[T], values: Mapping[str, Any], where: str) -> T:
    known = {each.name: each for each in fields(kind)}
    for key in values:
        if key not in known:
            near = _guess(key, known) or f"; there are {', '.join(known)}"
            raise ValueError(f"there is no {show(key)} in {where}{near}")
    try:
        return kind(**{key: _frozen(value) for key, value in values.items()})
    except TypeError as error:
        missing = re.findall(r"'(\w+)'", str(error))
        raise ValueError(f"{where} lacks {' and '.join(missing) or error}") from error
    except ValueError as error:
        raise ValueError(f"{where}: {error}" if where.startswith("[") else str(error)) from error


def _frozen(value: Any) -> Any:  # noqa: ANN401 - whatever TOML holds
    return tuple(value) if isinstance(value, list) else value


def _guess(key: str, known: Sequence[str] | Mapping[str, Any]) -> str:
    near = difflib.get_close_matches(key, [*known], n=1)
    return f"; do you mean {near[0]}?" if near else ""


def _check_choice(name: str, value: str, options: Sequence[str]) -> None:
    if value not in options:
        raise ValueError(
            f"{name} must be one of {', '.join(options)}, got {show(value)}{_guess(value, options)}"
        )


def write_description(description: Description) -> str:
    """Write a description as the TOML file that it is read from, with a word on each key that is a guess."""
    lines = []
    top = {key: getattr(description, key) for key in ("name", "threshold", "temperature")}
    lines += [f"{key} = {_toml(value)}" for key, value in top.items() if value != ""]
    for name in ("network", *(each for each in _TABLES if each != "network")):
        table = getattr(description, name)
        if table is None:
            continue
        lines += ["", f"[{name}]"]
        for each in fields(table):
            value = getattr(table, each.name)
            # the layout of weights is the library's
            if value in ("", ()) or value == {} or (each.name == "layout" and description.network):
                continue
            told = _COMMENTS.get((name, each.name), "")
            lines.append(f"{each.name} = {_toml(value)}{told and f'  # {told}'}")
    return "\n".join(lines) + "\n"


_COMMENTS = {
    ("input", "size"): "side of the square that the network sees, in pixels",
    ("input", "range"): "what black and white are, before mean and std",
    ("input", "mean"): "as in its training; leave both out where nothing was subtracted",
    ("input", "resize"): "or stretch: as in its training",
    ("lesion", "activation"): "sigmoid, softmax, or none where it gives probabilities",
    ("lesion", "channel"): "which channel is the lesion, from 0; several as [1, 2]",
    ("classes", "activation"): "softmax, sigmoid, or none where it gives probabilities",
    ("classes", "order"): "in the order of the network's answer",
    ("network", "library"): "smp, timm or torchvision",
    ("network", "architecture"): "as the library calls it",
    ("network", "encoder"): "as in its training",
}


def _toml(value: Any) -> str:  # noqa: ANN401 - what a description holds
    if isinstance(value, str):
        return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'
    if isinstance(value, tuple):
        return f"[{', '.join(map(_toml, value))}]"
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{_toml(key)} = {_toml(each)}" for key, each in value.items()) + " }"
    if isinstance(value, float):
        return f"{value:g}" if not math.isclose(value, round(value)) else f"{value:.1f}"
    return str(value).lower()
