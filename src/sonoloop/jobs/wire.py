"""Frozen values as JSON and back: what crosses the border between two processes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, fields, is_dataclass
from functools import cache
from math import isfinite
from pathlib import Path
from types import NoneType, UnionType
from typing import TYPE_CHECKING, Any, TypeVar, Union, get_args, get_origin, get_type_hints

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

T = TypeVar("T", bound="DataclassInstance")


def to_json(values: DataclassInstance | Mapping[str, Any], indent: int | None = None) -> str:
    """Write a frozen value, or a table of what is in one; JSON has no NaN and no infinity: null."""
    table = values if isinstance(values, Mapping) else asdict(values)
    try:
        return json.dumps(table, default=str, indent=indent, allow_nan=False)
    except ValueError:
        return json.dumps(_finite(table), default=str, indent=indent, allow_nan=False)


def _finite(value: Any) -> Any:  # noqa: ANN401 - whatever JSON holds
    if isinstance(value, Mapping):
        return {name: _finite(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(each) for each in value]
    return None if isinstance(value, float) and not isfinite(value) else value


def build(kind: type[T], values: Mapping[str, Any], *, strict: bool = False) -> T:
    """Make a frozen value from what was read; fields that a newer version added are left out, unless strict.

    A field that has to be there and is not, or holds something else than it should, is a TypeError or a
    ValueError.
    """
    _check_mapping(values)
    hints = type_hints(kind)
    if strict and (unknown := values.keys() - hints.keys()):
        raise ValueError(f"it was made by another version of Sonoloop: it has {', '.join(sorted(unknown))}")
    return kind(**{name: _convert(hints[name], values[name]) for name in values if name in hints})


@cache
def type_hints(kind: type) -> dict[str, Any]:
    """Give the types of a frozen value's fields."""
    hints = get_type_hints(kind)
    return {each.name: hints[each.name] for each in fields(kind)}


def without_none(hint: Any) -> Any:  # noqa: ANN401 - a type, or what typing makes of several
    """Give the type of a value that may be left out."""
    if get_origin(hint) not in (Union, UnionType):
        return hint
    (kind,) = (each for each in get_args(hint) if each is not NoneType)
    return kind


def _convert(hint: Any, value: Any) -> Any:  # noqa: ANN401, PLR0911 - whatever JSON holds
    kind = without_none(hint)
    if value is None and kind is not hint:
        return None
    origin, inner = get_origin(kind), get_args(kind)
    if kind is Path:
        return Path(value)
    if is_dataclass(kind):
        return build(kind, value)  # type: ignore[arg-type]
    if origin in (dict, Mapping):
        _check_mapping(value)
        return {name: _convert(inner[1], each) for name, each in value.items()}
    if origin in (list, tuple) and not isinstance(value, list | tuple):
        raise TypeError(f"{value!r} is no list")
    if origin is list or (origin is tuple and inner[-1] is ...):
        return origin(_convert(inner[0], each) for each in value)
    if origin is tuple:
        return tuple(_convert(each, part) for each, part in zip(inner, value, strict=True))
    if kind in (str, int, float, bool) and not isinstance(value, (float, int) if kind is float else kind):
        raise TypeError(f"{value!r} is no {kind.__name__}")
    return value


def _check_mapping(value: Any) -> None:  # noqa: ANN401 - whatever JSON holds
    if not isinstance(value, Mapping):
        raise TypeError(f"{value!r} is no table of values")
