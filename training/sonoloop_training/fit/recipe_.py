"""Recipes: how a model is made, read from TOML."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any, TypeVar

from sonoloop.errors import TrainingError
from sonoloop.models.spec import ModelSpec
from sonoloop_training.augment import AugmentConfig
from sonoloop_training.fit.recipe import FinalConfig, FitConfig
from sonoloop_training.splits import SplitConfig

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

    def to_dict(self) -> dict[str, Any]:
        """Return the recipe as JSON can hold it."""
        return asdict(self)


TABLES: dict[str, type] = {
    "model": ModelSpec,
    "split": SplitConfig,
    "augment": AugmentConfig,
    "fit": FitConfig,
    "final": FinalConfig,
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
    """Read a shipped recipe by name, or a TOML file by path.

    Parameters
    ----------
    name_or_path : str
        A name, or a path that ends in ".toml". A recipe may build on another by ``base = "name"``: it then
        only says what differs.
    settings : sequence of str
        What to change in it, each as "fit.epochs=2". Without a table, "fit" is taken where it has the key,
        else the one that has. A value is read as TOML, and as a string where it is not.

    Raises
    ------
    TrainingError
        If there is none, it is not TOML, a key is unknown or a value out of range; the message names it.
    """
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
        if not path.is_file():
            raise TrainingError(f"there is no recipe {path}")
        content = path.read_bytes()
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
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
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
    except tomllib.TOMLDecodeError:
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
