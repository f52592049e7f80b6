"""`sonoloop models`: which models there are, which is in use, and the way back."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sonoloop.cli.project import DEFAULT_WHO, AsJson, Store, Who, Why, open_store
from sonoloop.errors import BundleError, ModelError

if TYPE_CHECKING:
    from sonoloop.models.library import Library
    from sonoloop.store.corrections import CorrectionStore
    from sonoloop.store.promotions import Promotion

models = typer.Typer(help="See a project's models, use another one, go back.", no_args_is_help=True)


Model = Annotated[
    str,
    typer.Argument(metavar="MODEL", help="Its name as listed, or the beginning of it.", show_default=False),
]


@models.command("list")
def list_models(*, store: Store = None, as_json: AsJson = False) -> None:
    """List every model of a project with its figures on the newest test set; * is in use."""
    from sonoloop.cli.models_report import print_list  # noqa: PLC0415 - `--help` loads none of these
    from sonoloop.store.overview import compare_models  # noqa: PLC0415

    with open_store(store) as opened:
        _ensure_in_use(opened, DEFAULT_WHO)
        print_list(compare_models(opened), as_json=as_json)


@models.command()
def show(*, model: Model, store: Store = None, as_json: AsJson = False) -> None:
    """Show one model: where it comes from, how it did, who put it into use and why."""
    from sonoloop.cli.models_report import print_model  # noqa: PLC0415 - `--help` loads none of these
    from sonoloop.models.card import read_card  # noqa: PLC0415
    from sonoloop.models.library import Library  # noqa: PLC0415
    from sonoloop.store.model_registry import find_model  # noqa: PLC0415

    with open_store(store) as opened:
        _ensure_in_use(opened, DEFAULT_WHO)
        row = find_model(opened, model)
        try:
            folder = Library().find(row.version)
            card = read_card(folder)
        except ModelError:  # not on this machine, or damaged
            folder, card = None, None
        print_model(opened, row, folder=folder, card=card, as_json=as_json)


@models.command()
def use(*, model: Model, why: Why, store: Store = None, who: Who = DEFAULT_WHO) -> None:
    """Use a model, whatever the gate said of it; who and why are kept."""
    from sonoloop.models.library import Library  # noqa: PLC0415
    from sonoloop.store.model_registry import find_model  # noqa: PLC0415
    from sonoloop.store.promotions import promote  # noqa: PLC0415 - `--help` loads none of these

    with open_store(store) as opened:
        before = _ensure_in_use(opened, who)
        row = find_model(opened, model)
        if not row.is_deleted:
            _verify(Library(), row.version, row.model)
        promote(opened, row.version, kind="use", who=who, why=why, expected=before.version)
        typer.echo(
            f"{row.model} is in use, in place of {_name(opened, before.version)}; to go back: "
            "sonoloop models rollback --why REASON"
        )


@models.command()
def rollback(*, why: Why, store: Store = None, who: Who = DEFAULT_WHO) -> None:
    """Go back to the model that was in use before; again for the one before that."""
    from sonoloop.models.library import Library  # noqa: PLC0415
    from sonoloop.store import promotions as pointer  # noqa: PLC0415 - `--help` loads none of these

    with open_store(store) as opened:
        before = _ensure_in_use(opened, who)
        target = pointer.rollback_target(opened)
        if target is not None:
            _verify(Library(), target.version, target.model)
        moved = pointer.rollback(opened, who=who, why=why, to=None if target is None else target.version)
        typer.echo(
            f"{_name(opened, moved.version)} is in use again, in place of {_name(opened, before.version)}"
        )


@models.command()
def lock(
    *,
    model: Annotated[
        str | None,
        typer.Argument(metavar="[MODEL]", help="The model in use, which it is too if not given."),
    ] = None,
    why: Why,
    store: Store = None,
    who: Who = DEFAULT_WHO,
) -> None:
    """Keep the model in use for a study: nothing else is promoted until `unlock`."""
    from sonoloop.store import promotions as pointer  # noqa: PLC0415 - `--help` loads none of these
    from sonoloop.store.model_registry import find_model  # noqa: PLC0415

    with open_store(store) as opened:
        used = _ensure_in_use(opened, who).version
        version = used if model is None else find_model(opened, model).version
        row = pointer.lock(opened, version, who=who, why=why)
        typer.echo(f"the project is locked to {row.model}; to unlock it: sonoloop models unlock --why REASON")


@models.command()
def unlock(*, why: Why, store: Store = None, who: Who = DEFAULT_WHO) -> None:
    """Let other models be promoted again."""
    from sonoloop.store import promotions as pointer  # noqa: PLC0415 - `--help` loads none of these

    with open_store(store) as opened:
        row = pointer.unlock(opened, who=who, why=why)
        typer.echo(f"the project is no longer locked to {row.model}")


@models.command("import")
def import_(
    *,
    source: Annotated[
        Path, typer.Argument(metavar="FILE", help="A zip file from `export`, or a model's folder.")
    ],
    store: Store = None,
    who: Who = DEFAULT_WHO,
) -> None:
    """Bring a model in from elsewhere; it is checked, and not used until you say so."""
    from sonoloop.models.card import read_card  # noqa: PLC0415
    from sonoloop.models.library import Library  # noqa: PLC0415
    from sonoloop.store.model_registry import register  # noqa: PLC0415 - `--help` loads none of these

    with open_store(store) as opened:
        _ensure_in_use(opened, who)
        with _busy("Checking the model"):
            card = read_card(Library().import_(source))
        register(
            opened, version=card.version, model=card.model, origin="imported", who=who, parent=card.parent
        )
        typer.echo(f"{card.model} is here; to use it: sonoloop models use {card.model} --why REASON")


@models.command()
def export(
    *,
    model: Model,
    out: Annotated[
        Path | None, typer.Option("--out", help="The zip file to write; MODEL.zip here if not given.")
    ] = None,
    store: Store = None,
) -> None:
    """Write a model to a zip file, for another machine or project; it holds no names of images."""
    from sonoloop.models.library import Library  # noqa: PLC0415
    from sonoloop.store.model_registry import find_model  # noqa: PLC0415 - `--help` loads none of these

    with open_store(store) as opened:
        _ensure_in_use(opened, DEFAULT_WHO)
        row = find_model(opened, model)
    with _busy("Writing"):
        path = Library().export(row.version, out or Path(f"{row.model}.zip"))
    typer.echo(f"{row.model} is in {path}")


@models.command()
def delete(
    *,
    model: Model,
    why: Why,
    store: Store = None,
    who: Who = DEFAULT_WHO,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """Delete a model from this machine; the record of it stays. The one in use cannot be deleted.

    The projects on this machine share their models: another one that uses it loses it too. On a terminal you
    are asked first.
    """
    from sonoloop.models.library import Library  # noqa: PLC0415
    from sonoloop.store.model_registry import DELETED, find_model, mark  # noqa: PLC0415 - `--help` loads none

    with open_store(store) as opened:
        _ensure_in_use(opened, who)
        row = find_model(opened, model)
        if not yes and sys.stdin.isatty():
            question = f"Delete {row.model} from this machine, for all projects on it?"
            if not typer.confirm(question, err=True):
                raise typer.Exit(130)
        # first on the record: the pointer must never lead to what is gone
        if not row.is_deleted:
            mark(opened, row.version, DELETED, why=why, who=who)
        Library().delete(row.version)
        typer.echo(
            f"{row.model} is deleted from this machine, for all projects on it; an exported file brings it "
            "back: sonoloop models import FILE"
        )


def version_in_use(store: str | None, *, who: str = DEFAULT_WHO) -> str:
    """Tell which model a project uses; the shipped one in a project that has none yet."""
    with open_store(store) as opened:
        return _ensure_in_use(opened, who).version


def _ensure_in_use(store: CorrectionStore, who: str) -> Promotion:
    from sonoloop.models.library import Library  # noqa: PLC0415
    from sonoloop.models.places import shipped_card  # noqa: PLC0415
    from sonoloop.store.promotions import ensure_incumbent  # noqa: PLC0415 - `--help` loads none of these

    try:
        card = Library().keep_shipped()
    except BundleError as error:
        # the copy is for the day of an upgrade; the model inside the package is there today
        typer.echo(f"sonoloop: {error}", err=True)
        card = shipped_card()
    return ensure_incumbent(store, version=card.version, model=card.model, who=who)


def _verify(library: Library, version: str, model: str) -> None:
    with _busy(f"Checking {model}"):
        card = library.load(version).card
    if "lesion" not in card.spec.heads:
        raise ModelError(f"{model} predicts classes and no mask: it cannot be used here")


def _name(store: CorrectionStore, version: str) -> str:
    from sonoloop.store.model_registry import find_model  # noqa: PLC0415 - `--help` loads none of these

    return find_model(store, version).model


@contextmanager
def _busy(stage: str) -> Iterator[None]:
    """Show that something is done that may take seconds."""
    from sonoloop.cli.console import ProgressConsole  # noqa: PLC0415 - `--help` loads none of these

    with ProgressConsole(quiet=False) as console:
        console.show(stage, 0, 1)
        yield
