"""Recipes: how a model is made, read from TOML."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from importlib import resources
from pathlib import Path
from typing import Any, TypeVar

from sonoloop.errors import TrainingError
from sonoloop.models.spec import ModelSpec
from sonoloop.values import CLASSES
from sonoloop_training.augment import AugmentConfig
from sonoloop_training.datasets import DATASETS
from sonoloop_training.splits import check_shares

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class SplitConfig:
    """Who trains and who judges; see `sonoloop_training.splits.split`."""

    validation: float = 0.08
    test: float = 0.1
    key: str = "sonoloop"

    def __post_init__(self) -> None:
        check_shares(self.validation, self.test)


@dataclass(frozen=True, slots=True, kw_only=True)
class FitConfig:
    """The optimisation.

    Parameters
    ----------
    epochs, batch, draws : int
        Passes, images a step, and images drawn an epoch.
    learning_rate, encoder_learning_rate, weight_decay : float
        Of AdamW at the peak of the one-cycle schedule.
    pretrained : bool
        Whether the encoder starts from ImageNet.
    freeze_depthwise : bool
        Whether the encoder's 5 x 5 depthwise kernels stay as pretrained: on a CPU their gradient
        alone takes a fifth of a step.
    ema : float
        Decay of the averaged weights a step; it is these that are kept.
    class_weight, empty_weight, label_smoothing : float
        See `sonoloop_training.losses`.
    clip : float
        Largest gradient norm.
    seed : int
        Of everything random.
    phantoms : int
        Simulated images of each class among the training images.
    weights : mapping
        How often an image is drawn, by "dataset" or "dataset/class"; 1 where nothing is said.
    """

    epochs: int = 14
    batch: int = 8
    draws: int = 2048
    learning_rate: float = 1e-3
    encoder_learning_rate: float = 3e-4
    weight_decay: float = 0.01
    pretrained: bool = True
    freeze_depthwise: bool = False
    ema: float = 0.998
    class_weight: float = 0.5
    empty_weight: float = 0.5
    label_smoothing: float = 0.05
    clip: float = 5.0
    seed: int = 0
    phantoms: int = 60
    weights: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("epochs", "batch", "draws"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        for name in ("learning_rate", "encoder_learning_rate", "clip"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be positive, got {getattr(self, name)}")
        if not 0 <= self.ema < 1:
            raise ValueError(f"ema must be in [0, 1), got {self.ema}")
        for key in self.weights:
            dataset, _, label = key.partition("/")
            if dataset not in DATASETS or label not in ("", *CLASSES):
                raise ValueError(f"weights knows no {key!r}; use {', '.join(DATASETS)}, or one with /class")


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """How one model is made; `name` is the model's too."""

    name: str
    model: ModelSpec = field(default_factory=ModelSpec)
    split: SplitConfig = field(default_factory=SplitConfig)
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    fit: FitConfig = field(default_factory=FitConfig)

    def to_dict(self) -> dict[str, Any]:
        """Return the recipe as JSON can hold it."""
        return asdict(self)


def read_recipe(name_or_path: str) -> Recipe:
    """Read a shipped recipe by name, or a TOML file by path.

    Raises
    ------
    TrainingError
        If there is none, it is not TOML, a key is unknown or a value out of range; the message names it.
    """
    path = Path(name_or_path)
    shipped = resources.files("sonoloop_training") / "recipes"
    if path.suffix == ".toml":
        if not path.is_file():
            raise TrainingError(f"there is no recipe {path}")
        text = path.read_text(encoding="utf-8")
    else:
        resource = shipped / f"{name_or_path}.toml"
        if not resource.is_file():
            names = sorted(
                r.name.removesuffix(".toml") for r in shipped.iterdir() if r.name.endswith(".toml")
            )
            raise TrainingError(f"there is no recipe {name_or_path!r}; there are: {', '.join(names)}")
        text = resource.read_text(encoding="utf-8")
    try:
        values = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise TrainingError(f"{name_or_path} is not valid TOML: {error}") from error
    return parse_recipe(values)


def parse_recipe(values: Mapping[str, Any]) -> Recipe:
    """Turn tables into a recipe; an unknown key or a bad value is a `TrainingError`."""
    tables = [f.name for f in fields(Recipe) if f.name != "name"]
    unknown = sorted(set(values) - set(tables) - {"name"})
    if unknown:
        raise TrainingError(f"unknown in the recipe: {', '.join(unknown)}; known: name, {', '.join(tables)}")
    if "name" not in values:
        raise TrainingError("the recipe has no name")
    return Recipe(
        name=str(values["name"]),
        model=_fill(ModelSpec, values, "model"),
        split=_fill(SplitConfig, values, "split"),
        augment=_fill(AugmentConfig, values, "augment"),
        fit=_fill(FitConfig, values, "fit"),
    )


def _fill(kind: type[T], tables: Mapping[str, Any], table: str) -> T:
    values = tables.get(table, {})
    known = [f.name for f in fields(kind)]  # type: ignore[arg-type]
    for key in values:
        if key not in known:
            raise TrainingError(f"unknown in the recipe: {table}.{key}; known: {', '.join(known)}")
    try:
        return kind(**{key: tuple(v) if isinstance(v, list) else v for key, v in values.items()})
    except (TypeError, ValueError) as error:
        raise TrainingError(f"the recipe's table {table} is wrong: {error}") from error
