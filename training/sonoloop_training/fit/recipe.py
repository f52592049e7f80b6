"""A recipe: how one model is made, and its TOML files."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args

from sonoloop.errors import TrainingError
from sonoloop.models.card import ModelSpec
from sonoloop.regular_files import read_regular
from sonoloop.values import CLASSES
from sonoloop_training.augment import AugmentConfig
from sonoloop_training.fit.prompting import PromptConfig
from sonoloop_training.splits import SplitConfig

Optimizer = Literal["adamw", "adam", "sgd"]
Schedule = Literal["cosine", "constant"]
SegmentationLoss = Literal["cross-entropy + dice", "cross-entropy + focal tversky", "cross-entropy"]
Precision = Literal["auto", "float32", "bfloat16", "float16"]
Balance = Literal["none", "site", "root"]
Layers = Literal["all", "encoder", "decoder", "shallow"]


@dataclass(frozen=True, slots=True, kw_only=True)
class FitConfig:
    """The optimisation."""

    # passes, images a step, and images drawn an epoch; 0 draws as many as there are
    epochs: int = 14
    batch: int = 8
    draws: int = 0
    # where it is set, so many passes are made that there are about this many steps, `epochs` of them at
    # least: few images are seen often, many seldom
    steps: int = 0
    # how large images are while they are learned from, in pixels; 0 is the model's size. A network does
    # better on images somewhat larger than those it learned from (Touvron et al., NeurIPS 2019)
    size: int = 0
    # first so many epochs see images of three quarters of the size: quicker, and scales vary more
    small_epochs: int = 0
    # momentum 0.9 and Nesterov for "sgd"
    optimizer: Optimizer = "adamw"
    # "cosine": warm-up, then down to nothing by half a cosine; "constant": as it is after the warm-up
    schedule: Schedule = "cosine"
    # share of all steps in which the rate rises, in [0, 1)
    warmup: float = 0.1
    # the highest rates, of the new layers and of the encoder
    learning_rate: float = 1e-3
    encoder_learning_rate: float = 3e-4
    weight_decay: float = 0.01
    # largest gradient norm
    clip: float = 5.0
    # decay of the averaged weights a step, which are kept; 0 keeps the weights themselves
    ema: float = 0.998
    # whether the encoder starts from ImageNet
    pretrained: bool = True
    # a model to start from (name or folder of a bundle); empty starts anew
    start: str = ""
    # share of the weights started from in those that are kept, in [0, 1): fine-tuned weights averaged with
    # their start often do better on old and new images alike (WiSE-FT; Wortsman et al., CVPR 2022)
    blend: float = 0.0
    # that share where corrections are learned, nothing is replayed, and neither `blend` nor `l2sp` is set:
    # nothing else would hold the model
    blend_alone: float = 0.0
    # how strongly the weights are drawn back to those started from: after a step of rate r, by a share
    # r * l2sp of the way (L2-SP; Li, Grandvalet and Davoine, ICML 2018; apart from the gradient, as AdamW
    # decays)
    l2sp: float = 0.0
    # what learns beside the two heads: "shallow" is the half of the encoder that is next to the image, which
    # Amiri et al. (IEEE TUFFC 67, 2020) found best for breast ultrasound
    layers: Layers = "all"
    # whether the encoder's 5 x 5 depthwise kernels stay as pretrained: on a CPU their gradient alone takes a
    # fifth of a step
    freeze_depthwise: bool = False
    # whether batch normalisation keeps its running statistics
    freeze_norm: bool = False
    # of the mask; "focal tversky" minds missed pixels more than claimed ones (Abraham and Khan, ISBI 2019)
    loss: SegmentationLoss = "cross-entropy + dice"
    # what it costs to miss a lesion as a whole: minus the logarithm of the mean probability in it
    miss_weight: float = 0.0
    # of the two heads' losses
    lesion_weight: float = 1.0
    class_weight: float = 0.5
    # see `sonoloop_training.fit.loop`
    empty_weight: float = 0.5
    label_smoothing: float = 0.05
    # epochs without a better validation score after which training stops; where it is set, the best epoch's
    # weights are kept, else the last's
    patience: int = 0
    # "auto" takes what a trial on the device shows to pay; "float16" needs CUDA
    precision: Precision = "auto"
    # of everything random
    seed: int = 0
    # simulated images of each class among the training images
    phantoms: int = 0
    # images of those that trained the model started from, an epoch, relative to the new ones; only where
    # corrections are learned
    replay: float = 0.0
    # of what a person left as the model had proposed it, in [0, 1]; what they changed or drew anew has 1
    accepted_weight: float = 1.0
    # probability that an image is cut to a part of its width; see `sonoloop_training.fit.batches`
    strips: float = 0.0
    # the probability that an image's lesions are painted out, that another's are put into it, and that it
    # takes on another's look; see `sonoloop_training.augment.transplant`. The mask learns from what comes
    # out, the class only from what still has its own lesions
    paint_out: float = 0.0
    put_in: float = 0.0
    look: float = 0.0
    # "site": each dataset, which is a hospital, is drawn equally often; "root": by the square root of how
    # many images it has. `weights` then say how its classes are drawn among each other; phantoms keep their
    # share
    balance: Balance = "none"
    # whether the network is written as a graph too, which runs without torch
    graph: bool = True
    # how often an image is drawn, by "dataset", "/class" or "dataset/class"; 1 where nothing is said
    weights: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("epochs", "batch"):
            _check(self, name, getattr(self, name) >= 1, "at least 1")
        for name in (
            "draws",
            "steps",
            "small_epochs",
            "patience",
            "phantoms",
            "weight_decay",
            "empty_weight",
            "l2sp",
            "replay",
            "miss_weight",
        ):
            _check(self, name, getattr(self, name) >= 0, "0 or more")
        for name in ("learning_rate", "encoder_learning_rate", "clip", "lesion_weight", "class_weight"):
            _check(self, name, getattr(self, name) > 0, "positive")
        for name in ("ema", "warmup", "strips", "label_smoothing", "blend", "blend_alone"):
            _check(self, name, 0 <= getattr(self, name) < 1, "in [0, 1)")
        for name in ("accepted_weight", "paint_out", "put_in", "look"):
            _check(self, name, 0 <= getattr(self, name) <= 1, "in [0, 1]")
        for name, kind in _CHOICES.items():
            _check(self, name, getattr(self, name) in get_args(kind), f"one of {', '.join(get_args(kind))}")
        _check(self, "size", self.size >= 0 and self.size % 32 == 0, "a multiple of 32, or 0")
        for key, weight in self.weights.items():
            label = key.partition("/")[2]
            if label not in ("", *CLASSES):
                raise ValueError(f"weights knows no class {label!r} in {key!r}; use {', '.join(CLASSES)}")
            if not weight >= 0:
                raise ValueError(f"the weight of {key!r} must be 0 or more, got {weight}")

    def check_device(self, device: str) -> None:
        """Refuse what the device cannot do."""
        if self.precision == "float16" and device != "cuda":
            raise TrainingError(
                f"the recipe asks for float16, which needs CUDA, and this run is on {device}; "
                "use --set fit.precision=auto"
            )


_MOST_BYTES = 1 << 20
_TOO_LARGE = 1 << 63
_CHOICES = {
    "optimizer": Optimizer,
    "schedule": Schedule,
    "loss": SegmentationLoss,
    "precision": Precision,
    "layers": Layers,
    "balance": Balance,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class FinalConfig:
    """The last fit, on all images, once the model was tested on those kept apart.

    It goes on from the tested weights. What is fitted on validation images (threshold, temperature ...) and
    every figure stay those of the tested model: nothing is left to test the last one with.
    """

    # 0 makes no last fit
    epochs: int = 0
    # the highest rates
    learning_rate: float = 3e-4
    encoder_learning_rate: float = 1e-4
    # share of the tested weights in the last ones, in [0, 1); see `FitConfig`
    blend: float = 0.0

    def __post_init__(self) -> None:
        _check(self, "blend", 0 <= self.blend < 1, "in [0, 1)")
        _check(self, "epochs", self.epochs >= 0, "0 or more")
        for name in ("learning_rate", "encoder_learning_rate"):
            _check(self, name, getattr(self, name) > 0, "positive")


def _check(config: object, name: str, holds: bool, must_be: str) -> None:
    if not holds:
        raise ValueError(f"{name} must be {must_be}, got {getattr(config, name)!r}")


T = TypeVar("T")

# it replays images beside corrections, and makes nothing from the beginning
TUNING = "finetune"


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """How one model is made; `name` is the model's too."""

    name: str
    model: ModelSpec = field(default_factory=ModelSpec)
    split: SplitConfig = field(default_factory=SplitConfig)
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    fit: FitConfig = field(default_factory=FitConfig)
    final: FinalConfig = field(default_factory=FinalConfig)
    # where the model takes prompts
    prompts: PromptConfig = field(default_factory=PromptConfig)

    def to_dict(self) -> dict[str, Any]:
        """Return the recipe as JSON can hold it."""
        values: dict[str, Any] = json.loads(json.dumps(asdict(self)))
        return values


TABLES: dict[str, type] = {
    "model": ModelSpec,
    "split": SplitConfig,
    "augment": AugmentConfig,
    "fit": FitConfig,
    "final": FinalConfig,
    "prompts": PromptConfig,
}
_KINDS = {bool: "true or false", int: "a whole number", float: "a number", str: "text"}


def recipe_names() -> list[str]:
    """Name the recipes that ship."""
    return sorted(
        r.name.removesuffix(".toml")
        for r in _shipped().iterdir()
        if r.name.endswith(".toml") and r.name[0] != "_"
    )


def read_recipe(name_or_path: str, settings: Sequence[str] = ()) -> Recipe:
    """Read a shipped recipe by name, or a TOML file by path."""
    values = _read_tables(name_or_path, ())
    for setting in settings:
        values = _merge(values, _parse_setting(setting))
    return parse_recipe(values)


def parse_recipe(values: Mapping[str, Any]) -> Recipe:
    """Turn tables into a recipe; an unknown key or a bad value is a `TrainingError`."""
    unknown = sorted(set(values) - set(TABLES) - {"name"})
    if unknown:
        raise TrainingError(f"unknown in the recipe: {', '.join(unknown)}; known: name, {', '.join(TABLES)}")
    if "name" not in values:
        raise TrainingError("the recipe has no name")
    tables: dict[str, Any] = {table: _fill(kind, values, table) for table, kind in TABLES.items()}
    return Recipe(name=str(values["name"]), **tables)


def _shipped() -> Traversable:
    return resources.files("sonoloop_training") / "recipes"


def _read_tables(name_or_path: str, above: tuple[str, ...]) -> dict[str, Any]:
    if name_or_path in above:
        raise TrainingError(f"recipes build on each other in a circle: {' -> '.join((*above, name_or_path))}")
    path = Path(name_or_path)
    if path.suffix == ".toml":
        try:
            content = read_regular(path, most=_MOST_BYTES)
        except FileNotFoundError as error:
            raise TrainingError(f"there is no recipe {path}") from error
        except OSError as error:
            raise TrainingError(f"{path} cannot be read as a recipe ({error.strerror})") from error
    else:
        resource = _shipped() / f"{name_or_path}.toml"
        if not resource.is_file():
            names = [name for name in recipe_names() if name != TUNING]
            raise TrainingError(
                f"there is no recipe {name_or_path!r}; there are: {', '.join(names)}, and {TUNING} for "
                "`sonoloop finetune` alone"
            )
        content = resource.read_bytes()
    try:
        values = tomllib.loads(content.decode("utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise TrainingError(f"{name_or_path} is not valid TOML: {error}") from error
    base = values.pop("base", None)
    if base is None:
        return values
    if path.suffix == ".toml" and str(base).endswith(".toml"):
        base = path.parent / base
    return _merge(_read_tables(str(base), (*above, name_or_path)), values)


def _merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in over.items():
        both = isinstance(value, Mapping) and isinstance(merged.get(key), Mapping)
        merged[key] = _merge(merged[key], value) if both else value
    return merged


def _parse_setting(setting: str) -> dict[str, Any]:
    path, equals, text = setting.partition("=")
    *tables, key = path.strip().split(".")
    if not equals or not key:
        raise TrainingError(f"{setting!r} is no setting; write it as fit.epochs=20")
    if not tables and key != "name":
        owners = [table for table, kind in TABLES.items() if key in {f.name for f in fields(kind)}]
        if "fit" in owners:
            owners = ["fit"]
        if len(owners) != 1:
            which = (
                f"is in {' and '.join(owners)}: write {owners[0]}.{key}=..." if owners else "is in no table"
            )
            raise TrainingError(f"the setting {key!r} {which}")
        tables = owners
    try:
        value: Any = tomllib.loads(f"value = {text}")["value"]
    except (ValueError, RecursionError):
        value = text.strip()
    for name in reversed([*tables, key]):
        value = {name: value}
    return dict(value)


def _fill(kind: type[T], tables: Mapping[str, Any], table: str) -> T:
    values = tables.get(table, {})
    if not isinstance(values, Mapping):
        raise TrainingError(f"{table} is a table of the recipe: write {table}.KEY = VALUE")
    known = [f.name for f in fields(kind)]  # type: ignore[arg-type]
    for key, value in values.items():
        if key not in known:
            raise TrainingError(f"unknown in the recipe: {table}.{key}; known: {', '.join(known)}")
        _check_kind(f"{table}.{key}", value, getattr(kind(), key))
    try:
        return kind(**{key: tuple(v) if isinstance(v, list) else v for key, v in values.items()})
    except (TypeError, ValueError) as error:
        raise TrainingError(f"the recipe's table {table} is wrong: {error}") from error


def _check_kind(name: str, value: object, default: object) -> None:
    """Refuse a value of another kind than the default's, so that the message names the key."""
    if isinstance(default, Mapping) and not isinstance(value, Mapping):
        raise TrainingError(f"the recipe's {name} must be a table, got {value!r}")
    kind = type(default)
    # a whole number will do for a fraction; TOML's true and false are no numbers
    fits = type(value) is kind or (kind is float and type(value) is int)
    if kind in _KINDS and not fits:
        raise TrainingError(f"the recipe's {name} must be {_KINDS[kind]}, got {value!r}")
    for number in value.values() if isinstance(value, Mapping) else (value,):
        # TOML has inf and nan, and whole numbers without end
        if isinstance(number, int | float) and not abs(number) < _TOO_LARGE:
            raise TrainingError(
                f"the recipe's {name} must be a number of ordinary size, got {str(number)[:20]}"
            )
