"""What a project has settled on: how frames are drawn for testing, and when a model may take over."""

from __future__ import annotations

import json
import math
import secrets
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal, get_args

from sqlalchemy import Connection, delete, insert, select, update

from sonoloop.errors import StoreError
from sonoloop.store.database import SECRET, Database, add_if_new, hold
from sonoloop.store.tables import SETTINGS

Promote = Literal["ask", "automatic"]

_SECRET_BYTES = 32
_COUNTS = ("test_cap", "first_lesion_groups")
_SHARES = ("test_share", "first_test_share", "draw_first_share")
_SWITCHES = ("record_time",)
_MARGINS = ("missed_malignant_margin", "false_alarm_margin", "auc_margin")


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreSettings:
    """A project's settings, for everyone who opens its store; shares and margins are from 0 to 1."""

    # groups kept for testing at most
    test_cap: int = 300
    # share of new groups that is kept for testing, and the share until so many of those have a lesion
    first_lesion_groups: int = 20
    test_share: float = 0.2
    first_test_share: float = 0.5
    # share of the training frames that are drawn before the prediction is shown, as every test frame is: so
    # that those cannot be told
    draw_first_share: float = 0.1
    # by how much a model may be worse in these and still take over
    missed_malignant_margin: float = 0.05
    false_alarm_margin: float = 0.05
    auc_margin: float = 0.02
    # whether a model that passed the gate takes over by itself
    promote: Promote = "ask"
    # whether corrections keep when they were begun and how long they took
    record_time: bool = False
    # the version that the project is locked to; see `sonoloop.store.promotions`
    locked_model: str | None = None

    def __post_init__(self) -> None:
        for name in _COUNTS:
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 0:
                raise ValueError(f"{name} must be a whole number from 0 on, got {value!r}")
        for name in (*_SHARES, *_MARGINS):
            value = getattr(self, name)
            number = isinstance(value, (int, float)) and not isinstance(value, bool)
            if not number or not math.isfinite(value) or not 0 <= value <= 1:
                raise ValueError(f"{name} must be a number from 0 to 1, got {value!r}")
        for name in _SWITCHES:
            if not isinstance(getattr(self, name), bool):
                raise ValueError(f"{name} must be true or false, got {getattr(self, name)!r}")
        if self.promote not in get_args(Promote):
            raise ValueError(f"promote must be one of {', '.join(get_args(Promote))}, got {self.promote!r}")
        if self.locked_model is not None and not isinstance(self.locked_model, str):
            raise ValueError(f"locked_model must be a model's version, got {self.locked_model!r}")


SETTING_NAMES = tuple(field.name for field in fields(StoreSettings))


def read_settings(database: Database) -> StoreSettings:
    """Read the settings of a store; what was never set has its default."""
    with database.reading() as connection:
        return settings_in(connection)


def change_settings(database: Database, **changes: object) -> StoreSettings:
    """Change some settings, all of them or none."""
    unknown = sorted(set(changes) - set(SETTING_NAMES))
    if unknown:
        raise StoreError(f"there is no setting {unknown[0]!r}; there are {', '.join(SETTING_NAMES)}")
    with database.writing() as connection:
        hold(connection, SETTINGS)
        settings = _build({**_stored(connection), **changes})
        for key in changes:
            connection.execute(delete(SETTINGS).where(SETTINGS.c.key == key))
            value = json.dumps(getattr(settings, key))
            connection.execute(insert(SETTINGS).values(key=key, value=value))
    return settings


def parse_changes(pairs: Iterable[str]) -> dict[str, object]:
    """Read changes as they are typed, ``KEY=VALUE`` each, for `change_settings`."""
    changes: dict[str, object] = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals:
            raise StoreError(f"{pair!r} sets nothing: write it as KEY=VALUE, such as test_cap=100")
        try:
            changes[key.strip()] = json.loads(value)
        except ValueError:
            changes[key.strip()] = value.strip()
    return changes


def store_secret(database: Database) -> bytes:
    """Give the secret by which a store hashes patients and draws roles; it is made at its first use."""
    with database.reading() as connection:
        value = _read(connection, SECRET)
    if value is None:
        with database.writing() as connection:
            return secret_in(connection)
    return bytes.fromhex(json.loads(value))


def settings_in(connection: Connection) -> StoreSettings:
    """Read the settings inside a transaction; see `read_settings`."""
    return _build(_stored(connection))


def secret_in(connection: Connection) -> bytes:
    """Read the secret inside a transaction, or make it inside a writing one; see `store_secret`."""
    value = _read(connection, SECRET)
    if value is not None:
        return bytes.fromhex(json.loads(value))
    drawn = {"key": SECRET, "value": json.dumps(secrets.token_hex(_SECRET_BYTES))}
    add_if_new(connection, SETTINGS, drawn)
    return bytes.fromhex(json.loads(str(_read(connection, SECRET))))


def _read(connection: Connection, key: str) -> str | None:
    value: str | None = connection.scalar(select(SETTINGS.c.value).where(SETTINGS.c.key == key))
    return value


def read_value(connection: Connection, key: str) -> Any:  # noqa: ANN401 - whatever JSON holds
    """Read what is kept under a key, inside a transaction; None if nothing is."""
    value = _read(connection, key)
    return None if value is None else json.loads(value)


def write_value(connection: Connection, key: str, value: object) -> None:
    """Keep a value under a key instead of the one before, inside a writing transaction."""
    row = {"key": key, "value": json.dumps(value)}
    if connection.execute(update(SETTINGS).where(SETTINGS.c.key == key).values(row)).rowcount == 0:
        connection.execute(insert(SETTINGS).values(row))


def _stored(connection: Connection) -> dict[str, Any]:
    query = select(SETTINGS.c.key, SETTINGS.c.value).where(SETTINGS.c.key.in_(SETTING_NAMES))
    try:
        return {row.key: json.loads(row.value) for row in connection.execute(query)}
    except ValueError as error:
        raise StoreError(f"a setting of the store is damaged: {error}; set it anew") from error


def _build(values: Mapping[str, Any]) -> StoreSettings:
    try:
        return StoreSettings(**values)
    except ValueError as error:
        raise StoreError(f"a setting cannot be that: {error}") from error
