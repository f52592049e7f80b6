"""What a bundle says of itself; read without torch, so that models can be listed at once."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal

import platformdirs

from sonoloop.errors import BundleError, EngineError, ModelError
from sonoloop.models.arguments import (
    BOTH,
    CLASSIFIERS,
    HEADS,
    OWN_GRAPH,
    PLAIN_UNET,
    PROMPTS,
    RESIZE,
    SEGMENTERS,
    STRETCH,
    Arguments,
    check_arguments,
)
from sonoloop.models.schema import check_fields, check_type, check_values, parse_json, show
from sonoloop.regular_files import read_regular
from sonoloop.values import CLASSES

MAX_SIZE = 2048
_LIBRARY_NAME = re.compile(r"[A-Za-z0-9_.-]{1,100}")

Head = Literal["lesion", "classes"]


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkLibrary:
    """Where networks come from: the function that builds one of a `ModelSpec`, and what they all are."""

    # none where a network comes as a graph alone, which torch can neither build nor train
    builder: str = ""
    heads: tuple[Head, ...] = ("lesion", "classes")
    has_encoder: bool = False
    # what a specification may set, by architecture; "" stands for all that are not named
    arguments: Mapping[str, Arguments] = field(default_factory=dict)


# a new one is its builder and a line here
LIBRARIES = {
    "smp": NetworkLibrary(
        builder="sonoloop.models.networks:build_segmenter", has_encoder=True, arguments=SEGMENTERS
    ),
    "timm": NetworkLibrary(
        builder="sonoloop.models.networks:build_classifier", heads=("classes",), arguments={"": CLASSIFIERS}
    ),
    "torchvision": NetworkLibrary(builder="sonoloop.models.networks:build_fcn"),
    "plain": NetworkLibrary(builder="sonoloop.models.networks:build_plain_unet", arguments={"": PLAIN_UNET}),
    # brought in by a user, see `sonoloop.models.own`
    "onnx": NetworkLibrary(arguments={"": OWN_GRAPH}),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSpec:
    """Which network, of which library, at which size."""

    # "smp" (segmentation-models-pytorch), "timm" (classifiers), "torchvision" (FCN), "plain" (our U-Net), or
    # "onnx" (a user's own)
    library: str = "smp"
    # a class of smp such as "FPN", a model of timm such as "resnet18", "fcn_resnet50", or "Unet"
    architecture: str = "Unet"
    # of smp alone: one of its encoders; "tu-" before the name takes timm's
    encoder: str = "tu-tf_efficientnet_lite0"
    # side of the square the network sees, in pixels
    size: int = 256
    # before the class head
    dropout: float = 0.2
    # of the architecture, for instance ``decoder_channels``; see `sonoloop.models.arguments`
    arguments: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_fields(self)
        if self.library not in LIBRARIES:
            raise ValueError(f"library must be one of {', '.join(LIBRARIES)}, got {show(self.library)}")
        library = LIBRARIES[self.library]
        if self.encoder and not library.has_encoder:
            raise ValueError(
                f"encoder must be empty for {self.library}: only networks of smp have an encoder to choose, "
                f"got {show(self.encoder)}"
            )
        for name in ("architecture", "encoder") if library.has_encoder else ("architecture",):
            # timm would fetch "hf-hub:..." from the network, and read any folder after "local-dir:"
            if not _LIBRARY_NAME.fullmatch(getattr(self, name)):
                raise ValueError(
                    f"{name} must be a plain name of letters, digits, _, . and -, "
                    f"got {show(getattr(self, name))}"
                )
        if not 32 <= self.size <= MAX_SIZE or self.size % 32:
            raise ValueError(f"size must be a multiple of 32 from 32 to {MAX_SIZE}, got {self.size}")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout must be in [0, 1), got {self.dropout}")
        allowed = library.arguments.get(self.architecture, library.arguments.get(""))
        # an architecture that is not there is the builder's to refuse
        if allowed is not None or not library.arguments:
            check_arguments(allowed or {}, self.arguments, self.architecture)

    @property
    def heads(self) -> tuple[Head, ...]:
        """What the network tells: "lesion" (a mask), "classes", or both."""
        heads = LIBRARIES[self.library].heads
        told = self.arguments.get(HEADS, BOTH)
        return tuple(head for head in heads if told in (head, BOTH))

    @property
    def has_weights(self) -> bool:
        """Whether the network is known by its weights, so that torch can run and train it."""
        return bool(LIBRARIES[self.library].builder)

    @property
    def is_stretched(self) -> bool:
        """Whether the network sees frames stretched to a square, and not letterboxed."""
        return self.arguments.get(RESIZE) == STRETCH

    @property
    def takes_prompts(self) -> bool:
        """Whether the network repairs a mask by clicks; without them it answers as any other does."""
        return PROMPTS in self.arguments

    @property
    def without_prompts(self) -> ModelSpec:
        """The same network, shown images alone."""
        rest = {name: value for name, value in self.arguments.items() if name != PROMPTS}
        return replace(self, arguments=rest)

    @property
    def channels(self) -> int:
        """How many images the network sees at once: the frame, and what `sonoloop.models.prompts` draws."""
        return 5 if self.takes_prompts else 1

    def to_dict(self) -> dict[str, Any]:
        """Return the specification as JSON can hold it."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> ModelSpec:
        """Read a specification; an unknown key is a `ModelError`."""
        known = {f.name for f in fields(cls)}
        unknown = sorted(set(values) - known)
        if unknown:
            told = ", ".join(unknown)[:_SHOWN_NAMES]
            raise ModelError(f"unknown in the model's specification: {told}; update Sonoloop")
        try:
            return cls(**values)
        except (TypeError, ValueError) as error:
            raise ModelError(f"the model's specification is wrong: {error}") from error


# how many characters of a list of keys a message holds
_SHOWN_NAMES = 200
# major and minor; the first was the number 1
FORMAT = "2.3"
CARD, WEIGHTS = "card.json", "weights.safetensors"
# the network again, for engines that run no torch; a bundle may lack it
GRAPH, GRAPH_INT8 = "graph.onnx", "graph-int8.onnx"
GRAPHS = (GRAPH, GRAPH_INT8)
# of metrics: how far the graph was from torch when it was made
PARITY = "parity"
# what a graph's input and outputs are called
IMAGES, OUTPUTS = "images", ("lesion", "classes")
MAX_CARD_BYTES = 4 << 20
MAX_WEIGHTS_BYTES = 500 << 20
MAX_GRAPH_BYTES = 500 << 20
MAX_BESIDE_BYTES = 64 << 20
_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,39}")
_VERSION = re.compile(r"[0-9a-f]{64}")
_AGAIN = "export the model again where it was made"
_FORMAT = re.compile(r"(\d{1,4})\.(\d{1,4})")


# what a card's numbers may be, both ends included; outside they would blank every mask in silence
RANGES = {
    "threshold": (0.01, 0.99),
    # from the lowest probability that the likeliest of three classes has; above 1 nothing is gated
    "normal_gate": (0.33, 1.01),
    "min_area": (0.0, 0.2),
    "temperature": (0.01, 100.0),
    "mirror_scale": (0.5, 1.0),
}


def check_range(name: str, value: float) -> None:
    """Refuse a number that no card may hold."""
    low, high = RANGES[name]
    if not low <= value <= high:
        raise ValueError(f"{name} must be between {low:g} and {high:g}, got {value!r}")


_MAX_POINTS = 1000
# of what a card says of its training: what is read again, and of which type
_SNAPSHOT: Mapping[str, Any] = {
    "datasets": list[str],
    "leaked": bool,
    "members_sha256": str,
    "recipe": Mapping[str, Any],
    "split_sha256": str,
}


@dataclass(frozen=True, slots=True)
class CardFigure:
    """A measure in a card, and the ends of its 95 % interval where it has one."""

    value: float
    low: float | None = None
    high: float | None = None

    def __str__(self) -> str:
        interval = "" if self.low is None else f" [{self.low:.3f}, {self.high:.3f}]"
        return f"{self.value:.3f}{interval}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Card:
    """What a bundle says of itself."""

    name: str
    spec: ModelSpec
    # of the weights file; empty until there is one
    weights_sha256: str = ""
    # SHA-256 of each graph beside the weights, by the name of its file
    graphs: Mapping[str, str] = field(default_factory=dict)
    # in the order of the network's class logits
    classes: tuple[str, ...] = CLASSES
    # how many are averaged unless asked otherwise
    views: int = 2
    # how large the mirror image of two views is shown, as a share; came with format 2.2
    mirror_scale: float = 1.0
    # lesion probability from which a pixel is lesion
    threshold: float = 0.5
    # from this probability of "normal" on, a frame has no lesion
    normal_gate: float = 0.9
    # smallest lesion kept, as a share of the frame
    min_area: float = 0.001
    # by which class logits are divided
    temperature: float = 1.0
    # for each number of views the points "x" and "y" of the line from their agreement to an expected Dice: of
    # cards before format 2.1, which have no `foreground`
    agreement: Mapping[str, Mapping[str, list[float]]] = field(default_factory=dict)
    # the same from the mean lesion probability inside the mask
    foreground: Mapping[str, Mapping[str, list[float]]] = field(default_factory=dict)
    # version of the model it was tuned from
    parent: str | None = None
    # what it learned from, what it reached, with intervals, and the versions it was made with
    snapshot: Mapping[str, Any] = field(default_factory=dict)
    metrics: Mapping[str, Any] = field(default_factory=dict)
    libraries: Mapping[str, str] = field(default_factory=dict)
    # "major.minor", or 1
    format: str | int = FORMAT
    # what a card of a newer minor format says besides; it is kept
    extra: Mapping[str, Any] = field(default_factory=dict)
    # of the bytes it was read from; a card that was made or changed since has none yet
    _sha256: str = field(default="", init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        check_fields(self)
        for each in fields(self):
            if each.init and each.name != "spec":
                check_values(each.name, getattr(self, each.name))
        if not _NAME.fullmatch(self.name):
            raise ValueError(f"name must be lower-case letters, digits, - and _, got {show(self.name)}")
        if self.weights_sha256 and not _VERSION.fullmatch(self.weights_sha256):
            raise ValueError(f"weights_sha256 must be 64 hex digits, got {show(self.weights_sha256)}")
        for name, sha256 in self.graphs.items():
            if name not in GRAPHS or not _VERSION.fullmatch(sha256):
                raise ValueError(
                    f"graphs must name {' or '.join(GRAPHS)} with 64 hex digits, got {show(name)}"
                )
        if tuple(self.classes) != CLASSES:
            raise ValueError(f"classes must be {', '.join(CLASSES)}, got {', '.join(self.classes)[:80]}")
        if self.views not in (1, 2, 4):
            raise ValueError(f"views must be 1, 2 or 4, got {self.views}")
        for name in RANGES:
            check_range(name, getattr(self, name))
        if self.parent is not None and not _VERSION.fullmatch(self.parent):
            raise ValueError(f"parent must be a version, 64 hex digits, got {show(self.parent)}")
        self._check_tables()

    def _check_tables(self) -> None:
        for name in ("agreement", "foreground"):
            for views, curve in getattr(self, name).items():
                _check_curve(f"{name}.{views}", curve)
        for name, hint in _SNAPSHOT.items():
            if self.snapshot.get(name) is not None:
                check_type(f"snapshot.{name}", hint, self.snapshot[name])
        check_type("snapshot.recipe.split", Mapping | None, (self.snapshot.get("recipe") or {}).get("split"))
        for part in self.metrics:
            # each is looked at
            self.figures(part)

    def figures(self, part: str) -> dict[str, CardFigure]:
        """Give by name what the model reached on a part, such as "test"; what is no figure is left out."""
        told = self.metrics.get(part)
        check_type(f"metrics.{part}", Mapping | None, told)
        read = {name: _read_figure(f"metrics.{part}.{name}", value) for name, value in (told or {}).items()}
        return {name: figure for name, figure in read.items() if figure is not None}

    @property
    def version(self) -> str:
        """SHA-256 of ``card.json``, byte for byte, which holds that of the weights: 64 hex digits.

        Of a card of format 1 it is that of its canonical JSON, however the file is written.
        """
        return self._sha256 or hashlib.sha256(self.to_json().encode()).hexdigest()

    @property
    def model(self) -> str:
        """The id a user sees: the name and the version's first eight digits."""
        return f"{self.name}-{self.version[:8]}"

    def to_json(self) -> str:
        """Return the card as canonical JSON: the same card gives the same bytes."""
        values = {
            key: value
            for key, value in asdict(self).items()
            if key not in _NOT_WRITTEN and (key not in _LATER or value != _LATER[key])
        }
        return json.dumps({**self.extra, **values}, indent=1, sort_keys=True, allow_nan=False) + "\n"

    @classmethod
    def from_json(cls, data: bytes) -> Card:
        """Read a card: defaults for what an older one lacks, and what a newer minor format adds is kept."""
        values = parse_json(data)
        if not isinstance(values, dict):
            raise TypeError("a card is a JSON object")
        major, minor = _parse_format(values.get("format"))
        known = {f.name for f in fields(cls)} - _NOT_WRITTEN
        extra = {key: values.pop(key) for key in sorted(values.keys() - known)}
        missing = sorted({"name", "spec"} - values.keys())
        if missing or (extra and minor <= _MINOR):
            raise ValueError(f"missing {missing}, unknown {[*extra]}"[:_SHOWN_NAMES])
        check_type("spec", Mapping[str, Any], values["spec"])
        try:
            values["spec"] = ModelSpec(**values["spec"])
        except TypeError:
            # it names the keys that nobody knows
            values["spec"] = ModelSpec.from_dict(values["spec"])
        except ValueError as error:
            raise ValueError(f"spec.{error}") from error
        check_type("classes", list[str], values.get("classes", []))
        values["classes"] = tuple(values.get("classes", CLASSES))
        card = cls(**values, extra=extra)
        if major > 1:
            object.__setattr__(card, "_sha256", hashlib.sha256(data).hexdigest())
        return card


_NOT_WRITTEN = {"extra", "_sha256"}
# came after format 1, whose version is the hash of what is written: left out where they say nothing
_LATER: Mapping[str, Any] = {"foreground": {}, "graphs": {}, "mirror_scale": 1.0}
_MAJOR, _MINOR = map(int, FORMAT.split("."))


def _check_curve(name: str, curve: Mapping[str, list[float]]) -> None:
    if name.rpartition(".")[2] not in ("1", "2", "4") or curve.keys() != {"x", "y"}:
        raise ValueError(f"{name} must be a line x and y of 1, 2 or 4 views, got {show(dict(curve))}")
    x, y = curve["x"], curve["y"]
    if not 0 < len(x) == len(y) <= _MAX_POINTS or list(x) != sorted(x):
        raise ValueError(f"{name} needs as many x as y, at most {_MAX_POINTS}, and x in order")
    if not all(0 <= value <= 1 for value in (*x, *y)):
        raise ValueError(f"the points of {name} lie between 0 and 1")


def _read_figure(name: str, told: Any) -> CardFigure | None:  # noqa: ANN401 - whatever JSON holds
    """Read a measure; None for one without a value, and for what is none, such as a table of counts."""
    check_type(name, float | Mapping | list | None, told)
    if not isinstance(told, Mapping) or "value" not in told:
        return None
    for key, hint in (("value", float | None), ("ci95", list[float] | None), ("n", float | None)):
        check_type(f"{name}.{key}", hint, told.get(key))
    ends = told.get("ci95")
    if ends is not None and (len(ends) != 2 or ends[0] > ends[1]):
        raise ValueError(f"{name}.ci95 must be two numbers in order, got {show(ends)}")
    return None if told["value"] is None else CardFigure(told["value"], *(ends or ()))


def written_format(card: Card) -> str:
    """Give the format of a card that is made of this one: today's, or a newer one whose keys it keeps."""
    _, minor = _parse_format(card.format)
    return str(card.format) if minor > _MINOR else FORMAT


def _parse_format(told: Any) -> tuple[int, int]:  # noqa: ANN401 - whatever JSON holds
    """Give major and minor of a format that this Sonoloop reads."""
    if type(told) is int and told == 1:
        return 1, 0
    parts = _FORMAT.fullmatch(told) if isinstance(told, str) else None
    if parts is None or int(parts[1]) != _MAJOR:
        shown = show(told).strip("'")
        raise ModelError(f"its format is {shown}, this Sonoloop reads {FORMAT}; update Sonoloop")
    return int(parts[1]), int(parts[2])


def read_card(folder: Path) -> Card:
    """Read a bundle's card, and nothing of its weights."""
    try:
        return Card.from_json(read_bundle_file(folder / CARD, MAX_CARD_BYTES))
    except BundleError:
        raise
    except ModelError as error:
        raise BundleError(f"the card of the model {folder.name} cannot be used: {error}") from error
    except (ValueError, TypeError) as error:
        raise BundleError(f"the card of the model {folder.name} cannot be used: {error}; {_AGAIN}") from error


def read_bundle_file(path: Path, most: int) -> bytes:
    """Read a file of a bundle."""
    try:
        return read_regular(path, most=most)
    except OSError as error:
        raise BundleError(
            f"the model {path.parent.name} has no readable {path.name} ({error.strerror}); "
            f"a bundle is a folder with {CARD} and {WEIGHTS}"
        ) from error


def read_graph(folder: Path, card: Card, name: str = GRAPH) -> bytes:
    """Read a graph of a bundle, which is the one that its card names, or an `EngineError`."""
    if name not in card.graphs:
        raise EngineError(f"the model {card.model} has no {name}; use --engine torch for it")
    try:
        data = read_regular(folder / name, most=MAX_GRAPH_BYTES)
    except OSError as error:
        raise EngineError(
            f"the {name} of the model {card.model} cannot be read ({error.strerror}); "
            "copy or install the model again"
        ) from error
    if hashlib.sha256(data).hexdigest() != card.graphs[name]:
        raise EngineError(
            f"the {name} of the model {card.model} is not the one its card names; "
            "copy or install the model again"
        )
    return data


DEFAULT = "default"


def shipped_folder() -> Path:
    """Return the folder of the model inside the package."""
    return Path(__file__).parent / DEFAULT


def models_folder() -> Path:
    """Return the folder in which a user's own models lie."""
    return platformdirs.user_data_path("sonoloop", appauthor=False) / "models"


def shipped_card() -> Card:
    """Read the card of the model inside the package; a project that has no model in use begins with it."""
    return read_card(shipped_folder())
