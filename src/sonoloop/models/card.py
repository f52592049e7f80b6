"""What a bundle says of itself; read without torch, so that models can be listed at once."""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

import platformdirs

from sonoloop.errors import BundleError, ModelError
from sonoloop.values import CLASSES

MAX_SIZE = 2048
_LIBRARY_NAME = re.compile(r"[A-Za-z0-9_.-]+")

Head = Literal["lesion", "classes"]


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkLibrary:
    """Where networks come from: the function that builds one of a `ModelSpec`, and what they all are."""

    builder: str
    heads: tuple[Head, ...] = ("lesion", "classes")
    has_encoder: bool = False


# a new one is its builder and a line here
LIBRARIES = {
    "smp": NetworkLibrary(builder="sonoloop.models.networks:build_segmenter", has_encoder=True),
    "timm": NetworkLibrary(builder="sonoloop.models.networks:build_classifier", heads=("classes",)),
    "torchvision": NetworkLibrary(builder="sonoloop.models.networks:build_fcn"),
    "plain": NetworkLibrary(builder="sonoloop.models.networks:build_plain_unet"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSpec:
    """Which network, of which library, at which size."""

    # "smp" (segmentation-models-pytorch), "timm" (classifiers), "torchvision" (FCN), or "plain" (our U-Net)
    library: str = "smp"
    # a class of smp such as "FPN", a model of timm such as "resnet18", "fcn_resnet50", or "Unet"
    architecture: str = "Unet"
    # of smp alone: one of its encoders; "tu-" before the name takes timm's
    encoder: str = "tu-tf_efficientnet_lite0"
    # side of the square the network sees, in pixels
    size: int = 256
    # before the class head
    dropout: float = 0.2
    # passed on to the architecture, for instance ``decoder_channels``
    arguments: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.library not in LIBRARIES:
            raise ValueError(f"library must be one of {', '.join(LIBRARIES)}, got {self.library!r}")
        has_encoder = LIBRARIES[self.library].has_encoder
        if self.encoder and not has_encoder:
            raise ValueError(f"only networks of smp have an encoder to choose, got {self.encoder!r}")
        named = ("architecture", "encoder") if has_encoder else ("architecture",)
        for name in named:
            # timm would fetch "hf-hub:..." from the network, and read any folder after "local-dir:"
            if not _LIBRARY_NAME.fullmatch(str(getattr(self, name))):
                raise ValueError(
                    f"{name} must be a plain name of letters, digits, _, . and -, got {getattr(self, name)!r}"
                )
        if type(self.size) is not int or not 32 <= self.size <= MAX_SIZE or self.size % 32:
            raise ValueError(f"size must be a multiple of 32 from 32 to {MAX_SIZE}, got {self.size}")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout must be in [0, 1), got {self.dropout}")

    @property
    def heads(self) -> tuple[Head, ...]:
        """What the network tells: "lesion" (a mask), "classes", or both."""
        return LIBRARIES[self.library].heads

    def to_dict(self) -> dict[str, Any]:
        """Return the specification as JSON can hold it."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> ModelSpec:
        """Read a specification; an unknown key is a `ModelError`."""
        known = {f.name for f in fields(cls)}
        unknown = sorted(set(values) - known)
        if unknown:
            raise ModelError(f"unknown in the model's specification: {', '.join(unknown)}; update Sonoloop")
        try:
            return cls(**values)
        except (TypeError, ValueError) as error:
            raise ModelError(f"the model's specification is wrong: {error}") from error


# major and minor; the first was the number 1
FORMAT = "2.0"
CARD, WEIGHTS = "card.json", "weights.safetensors"
MAX_CARD_BYTES = 4 << 20
MAX_WEIGHTS_BYTES = 500 << 20
MAX_BESIDE_BYTES = 64 << 20
_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,39}")
_VERSION = re.compile(r"[0-9a-f]{64}")
_AGAIN = "export the model again where it was made"
_FORMAT = re.compile(r"(\d{1,4})\.(\d{1,4})")


@dataclass(frozen=True, slots=True, kw_only=True)
class Card:
    """What a bundle says of itself."""

    name: str
    spec: ModelSpec
    # of the weights file; empty until there is one
    weights_sha256: str = ""
    # in the order of the network's class logits
    classes: tuple[str, ...] = CLASSES
    # how many are averaged unless asked otherwise
    views: int = 2
    # lesion probability from which a pixel is lesion
    threshold: float = 0.5
    # from this probability of "normal" on, a frame has no lesion
    normal_gate: float = 0.9
    # smallest lesion kept, as a share of the frame
    min_area: float = 0.001
    # by which class logits are divided
    temperature: float = 1.0
    # for each number of views the points "x" and "y" of the line from their agreement to an expected Dice
    agreement: Mapping[str, Mapping[str, list[float]]] = field(default_factory=dict)
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
        if not _NAME.fullmatch(self.name):
            raise ValueError(f"name must be lower-case letters, digits, - and _, got {self.name!r}")
        if tuple(self.classes) != CLASSES:
            raise ValueError(f"classes must be {', '.join(CLASSES)}, got {', '.join(map(str, self.classes))}")
        if self.views not in (1, 2, 4):
            raise ValueError(f"views must be 1, 2 or 4, got {self.views}")
        for name, low, high in (("threshold", 0, 1), ("normal_gate", 0, 1.01), ("min_area", -1, 1)):
            value = getattr(self, name)
            if not (isinstance(value, int | float) and low < value < high):
                raise ValueError(f"{name} must be between {max(low, 0)} and 1, got {value!r}")
        if not (isinstance(self.temperature, int | float) and 0 < self.temperature < 100):
            raise ValueError(f"temperature must be between 0 and 100, got {self.temperature!r}")
        if self.parent is not None and not (isinstance(self.parent, str) and _VERSION.fullmatch(self.parent)):
            raise ValueError(f"parent must be a version, 64 hex digits, got {str(self.parent)[:80]!r}")
        _check_tables(self)
        for curve in self.agreement.values():
            x, y = curve["x"], curve["y"]
            if not x or len(x) != len(y) or x != sorted(x):
                raise ValueError("each line of agreement needs as many x as y, and x in order")
            if not all(isinstance(value, int | float) and 0 <= value <= 1 for value in (*x, *y)):
                raise ValueError("the points of a line of agreement lie between 0 and 1")

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
        values = {key: value for key, value in asdict(self).items() if key not in _NOT_WRITTEN}
        return json.dumps({**self.extra, **values}, indent=1, sort_keys=True, allow_nan=False) + "\n"

    @classmethod
    def from_json(cls, data: bytes) -> Card:
        """Read a card: defaults for what an older one lacks, and what a newer minor format adds is kept."""
        values = json.loads(data.decode("utf-8"), parse_constant=_refuse_number)
        if not isinstance(values, dict):
            raise TypeError("a card is a JSON object")
        _refuse_infinite("", values)
        major, minor = _parse_format(values.get("format"))
        known = {f.name for f in fields(cls)} - _NOT_WRITTEN
        extra = {key: values.pop(key) for key in sorted(values.keys() - known)}
        missing = sorted({"name", "spec"} - values.keys())
        if missing or (extra and minor <= _MINOR):
            raise ValueError(f"missing {missing}, unknown {[*extra]}")
        values["spec"] = ModelSpec.from_dict(values["spec"])
        values["classes"] = tuple(values.get("classes", CLASSES))
        card = cls(**values, extra=extra)
        if major > 1:
            object.__setattr__(card, "_sha256", hashlib.sha256(data).hexdigest())
        return card


_NOT_WRITTEN = {"extra", "_sha256"}
_MAJOR, _MINOR = map(int, FORMAT.split("."))


def _refuse_number(told: str) -> None:
    raise ValueError(f"{told} is no number that a card may hold")


def _check_tables(card: Card) -> None:
    """Refuse a card whose tables are something else."""
    for name in ("snapshot", "metrics", "libraries"):
        value = getattr(card, name)
        if not isinstance(value, Mapping):
            raise ValueError(f"{name} must be a table of values, got {str(value)[:80]!r}; {_AGAIN}")
    for name, value in card.libraries.items():
        if not isinstance(value, str):
            raise ValueError(
                f"the version of {name} in libraries must be text, got {str(value)[:80]!r}; {_AGAIN}"
            )


def _refuse_infinite(name: str, value: Any) -> None:  # noqa: ANN401 - whatever JSON holds
    """Refuse a number that is too large to be kept, such as 1e999, by its name."""
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"{name} is a number too large for a card; {_AGAIN}")
    within: Iterable[tuple[Any, Any]] = ()
    if isinstance(value, dict):
        within = value.items()
    elif isinstance(value, list):
        within = enumerate(value)
    for key, each in within:
        _refuse_infinite(f"{name}.{key}" if name else key, each)


def _parse_format(told: Any) -> tuple[int, int]:  # noqa: ANN401 - whatever JSON holds
    """Give major and minor of a format that this Sonoloop reads."""
    if told == 1:
        return 1, 0
    parts = _FORMAT.fullmatch(told) if isinstance(told, str) else None
    if parts is None or int(parts[1]) != _MAJOR:
        raise ValueError(f"its format is {told}, this Sonoloop reads {FORMAT}; update Sonoloop")
    return int(parts[1]), int(parts[2])


def read_card(folder: Path) -> Card:
    """Read a bundle's card, and nothing of its weights."""
    try:
        return Card.from_json(read_bundle_file(folder / CARD, MAX_CARD_BYTES))
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError, ModelError) as error:
        if isinstance(error, BundleError):
            raise
        raise BundleError(f"the card of the model {folder.name} cannot be used: {error}") from error


def read_bundle_file(path: Path, most: int) -> bytes:
    """Read a file of a bundle."""
    try:
        size = path.stat().st_size
        if size > most:
            raise BundleError(
                f"{path.name} of the model {path.parent.name} has {size:,} bytes, more than {most:,}"
            )
        return path.read_bytes()
    except OSError as error:
        raise BundleError(
            f"the model {path.parent.name} has no readable {path.name} ({error.strerror}); "
            f"a bundle is a folder with {CARD} and {WEIGHTS}"
        ) from error


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
