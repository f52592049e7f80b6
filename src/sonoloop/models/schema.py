"""JSON that a stranger wrote: read strictly, and checked field by field against the types it should have."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import fields
from functools import cache
from types import NoneType, UnionType
from typing import TYPE_CHECKING, Any, Union, get_args, get_origin, get_type_hints

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

# 64 bits, as in a database
_MAX_DIGITS = 18
_MAX_DEPTH = 20
_MAX_KEY, _MAX_TEXT = 200, 20_000
# what moves a terminal's cursor or turns text around, and halves of a character, which cannot be written
_CONTROL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
_SHOWN = 80
_WORDS = {
    str: "text",
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    NoneType: "null",
    Mapping: "a table of values",
    list: "a list",
    tuple: "a list",
}


def parse_json(data: bytes | str) -> Any:  # noqa: ANN401 - whatever JSON holds
    """Read JSON in UTF-8; what the standard forbids, and what Python would read in silence, is a ValueError.

    That is NaN and infinity, a number that no file of ours holds, a key that comes twice, and nesting without
    end.
    """
    try:
        text = data if isinstance(data, str) else data.decode("utf-8")
        return json.loads(
            text, parse_constant=_refuse_constant, parse_int=_parse_int, object_pairs_hook=_make_table
        )
    except UnicodeDecodeError as error:
        raise ValueError(f"it is no text in UTF-8 (byte {error.start})") from error
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


def check_values(name: str, value: Any, depth: int = 0) -> None:  # noqa: ANN401 - whatever JSON holds
    """Refuse what can neither be kept nor shown: infinite numbers, control characters, deep nesting."""
    if depth > _MAX_DEPTH:
        raise ValueError(f"{name.partition('.')[0]} is nested deeper than {_MAX_DEPTH} levels")
    if isinstance(value, str):
        if len(value) > _MAX_TEXT:
            raise ValueError(f"{name} has {len(value):,} characters, more than {_MAX_TEXT:,}")
        if _CONTROL.search(value):
            raise ValueError(f"{name} has control characters: {show(value)}")
    elif isinstance(value, int | float) and not -(10**_MAX_DIGITS) < value < 10**_MAX_DIGITS:
        raise ValueError(f"{name} is a number too large")
    elif isinstance(value, Mapping):
        for key, each in value.items():
            if not isinstance(key, str) or len(key) > _MAX_KEY or _CONTROL.search(key):
                raise ValueError(f"{name or 'it'} has a key {show(key)}, too long or with control characters")
            check_values(f"{name}.{key}" if name else key, each, depth + 1)
    elif isinstance(value, list | tuple):
        for place, each in enumerate(value):
            check_values(f"{name}.{place}", each, depth + 1)


def check_fields(record: DataclassInstance) -> None:
    """Refuse a frozen value in which a field is of another type than its annotation says, by its name."""
    for name, hint in _type_hints(type(record)).items():
        check_type(name, hint, getattr(record, name))


def check_type(name: str, hint: Any, value: Any) -> None:  # noqa: ANN401 - a type, and whatever JSON holds
    """Refuse a value that is not of a type, in words, as a ValueError."""
    kinds = get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)
    if not any(_is_of(kind, value) for kind in kinds):
        words = " or ".join(_WORDS.get(get_origin(kind) or kind, str(kind)) for kind in kinds)
        raise ValueError(f"{name} must be {words}, got {show(value)}")
    for kind in kinds:
        inner = get_args(kind)
        if get_origin(kind) is Mapping and isinstance(value, Mapping):
            for key, each in value.items():
                check_type(f"{name}.{key}", inner[1], each)
        elif get_origin(kind) in (list, tuple) and isinstance(value, list | tuple):
            for place, each in enumerate(value):
                check_type(f"{name}.{place}", inner[0], each)


def show(value: Any) -> str:  # noqa: ANN401 - whatever JSON holds
    """Show a value as it is written, cut where it is long."""
    told = ascii(value)
    return told if len(told) <= _SHOWN else f"{told[:_SHOWN]}..."


def _is_of(kind: Any, value: Any) -> bool:  # noqa: ANN401 - a type, and whatever JSON holds
    kind = get_origin(kind) or kind
    if kind is Any:
        return True
    if kind is float:
        # true is no number, and neither is NaN
        return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    if kind is int:
        return isinstance(value, int) and not isinstance(value, bool)
    return isinstance(value, list | tuple) if kind in (list, tuple) else isinstance(value, kind)


@cache
def _type_hints(kind: type[DataclassInstance]) -> dict[str, Any]:
    hints = get_type_hints(kind)
    return {each.name: hints[each.name] for each in fields(kind) if each.init}


def _refuse_constant(told: str) -> None:
    raise ValueError(f"{told} is no number that JSON may hold")


def _parse_int(digits: str) -> int:
    if len(digits) > _MAX_DIGITS:
        raise ValueError(f"a number of {len(digits)} digits is too large")
    return int(digits)


def _make_table(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    table: dict[str, Any] = {}
    for key, value in pairs:
        if key in table:
            raise ValueError(f"the key {show(key)} comes twice")
        table[key] = value
    return table
