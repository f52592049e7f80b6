"""A command's options, made from the fields of the request that it sends to a job."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from enum import Enum
from functools import wraps
from typing import Annotated, Any, get_type_hints

import typer

from sonoloop.cli.console import not_blank
from sonoloop.jobs.request import Asked, Request, asked_of

Command = Callable[..., None]


def takes(kind: type[Request]) -> Callable[[Command], Command]:
    """Give a command the options of a request; it gets the request first, and whatever else it asks for."""
    asked = {each.name: each for each in asked_of(kind) if each.option.typed}

    def decorate(command: Command) -> Command:
        hints = get_type_hints(command, include_extras=True)
        _, *own = inspect.signature(command).parameters.values()

        @wraps(command)
        def run(**values: Any) -> None:  # noqa: ANN401 - whatever was typed
            given = {name: _plain(each, values.pop(name)) for name, each in asked.items()}
            command(kind(**given), **values)

        parameters = [*map(_parameter, asked.values()), *(p.replace(annotation=hints[p.name]) for p in own)]
        run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        run.__annotations__ = {each.name: each.annotation for each in parameters}
        return run

    return decorate


def _parameter(asked: Asked) -> inspect.Parameter:
    option, default = asked.option, asked.default
    hint: Any = _enum_of(asked) if asked.choices else asked.kind
    if asked.repeated:
        hint, default = list[hint] | None, None
    elif default is None:
        hint = hint | None
    make = typer.Argument if option.argument else typer.Option
    how = make(
        *([] if option.argument else [option.flag]),
        help=option.help,
        metavar=option.metavar,
        min=option.least,
        max=option.most,
        callback=None if option.blank else not_blank,
    )
    return inspect.Parameter(
        asked.name,
        inspect.Parameter.KEYWORD_ONLY,
        annotation=Annotated[hint, how],
        default=inspect.Parameter.empty if asked.required else default,
    )


def _enum_of(asked: Asked) -> type[Enum]:
    values = {str(choice): str(choice) for choice in asked.choices}
    return Enum(asked.name, values, type=str)  # type: ignore[misc, return-value]


def _plain(asked: Asked, value: Any) -> Any:  # noqa: ANN401 - whatever was typed
    if isinstance(value, Enum):
        return asked.kind(value.value)
    return tuple(value or ()) if asked.repeated else value
