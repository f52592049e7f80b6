"""`sonoloop models`: which models there are, which is in use, and the way back."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from sonoloop.cli.console import (
    DEFAULT_WHO,
    AsJson,
    ProgressConsole,
    Store,
    Who,
    Why,
    open_store,
    print_error,
    print_json,
    result_console,
    say,
)
from sonoloop.errors import BundleError, ModelError

if TYPE_CHECKING:
    from sonoloop.models.card import Card
    from sonoloop.project import Project
    from sonoloop.store.corrections import CorrectionStore
    from sonoloop.store.metrics import Figure
    from sonoloop.store.model_registry import ModelRow
    from sonoloop.store.test_sets import ComparedModel, Evaluation, ModelComparison


def print_list(overview: ModelComparison, *, as_json: bool) -> None:
    """Print the models table."""
    if as_json:
        print_json(
            {
                "test_set": None if overview.test_set is None else overview.test_set.number,
                "groups": 0 if overview.test_set is None else overview.test_set.groups,
                "looks": overview.evaluations,
                "locked": overview.locked,
                "models": [_line_to_dict(line) for line in overview.models],
            }
        )
        return
    table = Table(
        "", "version", "made", "Dice (test)", "normals", "missed malignant", "AUC", "from", "marks", box=None
    )
    for column in table.columns[3:7]:
        column.justify = "right"
    for line in overview.models:
        table.add_row(*(Text(cell) for cell in _cells(line, overview)))
    console = result_console(140)
    console.print(table)
    console.print(_foot(overview), soft_wrap=True)


def print_model(
    store: CorrectionStore, row: ModelRow, *, folder: Path | None, card: Card | None, as_json: bool
) -> None:
    """Print what is on record of one model."""
    from sonoloop.store.promotions import history  # noqa: PLC0415
    from sonoloop.store.test_sets import compare_models, evaluations  # noqa: PLC0415 - `--help` loads none

    overview = compare_models(store)
    line = next(line for line in overview.models if line.row.version == row.version)
    moves = [move for move in history(store) if move.version == row.version]
    judged = [look for look in evaluations(store) if row.version in (look.candidate, look.incumbent)]
    if as_json:
        values = _line_to_dict(line) | {
            "folder": None if folder is None else str(folder),
            "promotions": [asdict(move) for move in moves],
            "looks": [asdict(look) for look in judged],
            "card": None if card is None else json.loads(card.to_json()),
        }
        print_json(values)
        return
    console = result_console()
    for name, value in _facts(line, overview, folder, card):
        console.print(f"{name + ':':<26}{value}", soft_wrap=True)
    for move in moves:
        console.print(f"{'put into use:':<26}{_day(move.created)} ({move.kind}) by {move.who}: {move.why}")
    names = {other.row.version: other.row.model for other in overview.models}
    for look in judged:
        console.print(f"{'judged:':<26}{_tell_look(look, names)}", soft_wrap=True)
    for mark in row.marks:
        console.print(f"{'marked:':<26}{_day(mark.created)} {mark.mark} by {mark.who}: {mark.why}")


def _cells(line: ComparedModel, overview: ModelComparison) -> list[str]:
    figures = line.figures
    dice, normals, missed, auc = (
        ("-", "-", "-", "-")
        if figures is None
        else (
            _with_interval(figures.dice),
            _percent(figures.false_alarms),
            _percent(figures.missed_malignant),
            _with_interval(figures.auc),
        )
    )
    if figures is not None and overview.test_set and figures.frames < len(overview.test_set.members):
        dice += f" on {figures.frames}"
    return [
        "*" if line.in_use else "",
        line.row.model,
        "shipped" if line.row.origin == "shipped" else _day(line.row.created),
        dice,
        normals,
        missed,
        auc,
        line.parent or "-",
        ", ".join(line.row.standing),
    ]


def _foot(overview: ModelComparison) -> str:
    words = ["* in use"]
    if overview.test_set is None:
        words.append("nothing was judged yet")
    else:
        frames, groups = len(overview.test_set.members), overview.test_set.groups
        words.append(
            f"judged on test set {overview.test_set.number}: {frames} frames of {groups} groups, looked at "
            f"{overview.evaluations} times"
        )
    if overview.locked is not None:
        words.append("the project is locked")
    return "; ".join(words)


def _facts(
    line: ComparedModel, overview: ModelComparison, folder: Path | None, card: Card | None
) -> list[tuple[str, str]]:
    row, figures = line.row, line.figures
    facts = [
        ("model", row.model + (" (in use)" if line.in_use else "")),
        ("version", row.version),
        ("made", f"{_day(row.created)}, {row.origin}, by {row.who}"),
        ("tuned from", line.parent or "nothing that is on record"),
        ("learned from", f"snapshot {row.snapshot}" if row.snapshot else "no snapshot of this project"),
        ("on this machine", "no" if folder is None else str(folder)),
    ]
    if card is not None:
        from sonoloop.models.engines.auto import describe_engine  # noqa: PLC0415 - `--help` loads none

        facts.append(("engine", describe_engine(card)))
    if figures is not None and overview.test_set is not None:
        named = {
            "Dice": figures.dice,
            "normals with a mask": figures.false_alarms,
            "missed malignant": figures.missed_malignant,
            "AUC": figures.auc,
        }
        told = [f"{name} {_with_interval(figure)}" for name, figure in named.items() if figure is not None]
        facts.append(
            (
                f"test set {overview.test_set.number}",
                f"{', '.join(told)}; {figures.frames} of {len(overview.test_set.members)} frames, "
                f"{figures.groups} groups",
            )
        )
    if card is not None:
        from sonoloop.models.card import PARITY  # noqa: PLC0415 - `--help` loads none of these
        from sonoloop.models.origin import (  # noqa: PLC0415
            describe_origin,
            describe_parity,
            describe_reached,
        )

        facts += [(name.lower(), text) for name, text in describe_origin(card)]
        facts += [
            (f"its card, {part}", describe_reached(card, part)) for part in card.metrics if part != PARITY
        ]
        if card.graphs and card.spec.has_weights:
            facts.append(("its graph against torch", describe_parity(card)))
    return facts


def _tell_look(look: Evaluation, names: dict[str, str]) -> str:
    candidate, other = names.get(look.candidate, look.candidate[:8]), names.get(look.incumbent, "?")
    return (
        f"{_day(look.created)} {candidate} against {other} on test set {look.test_set}: {look.verdict}. "
        f"{look.reason}"
    )


def _with_interval(figure: Figure | None) -> str:
    if figure is None:
        return "-"
    interval = "" if figure.low is None else f" [{figure.low:.2f}, {figure.high:.2f}]"
    return f"{figure.value:.3f}{interval}"


def _percent(figure: Figure | None) -> str:
    return "-" if figure is None else f"{figure.value:.0%}"


def _day(when: datetime) -> str:
    return when.date().isoformat()


def _line_to_dict(line: ComparedModel) -> dict[str, Any]:
    values = asdict(line.row)
    figures = None if line.figures is None else asdict(line.figures)
    return values | {
        "from": line.parent,
        "standing": list(line.row.standing),
        "in_use": line.in_use,
        "test": figures,
    }


models = typer.Typer(help="See a project's models, use another one, go back.", no_args_is_help=True)


Model = Annotated[
    str,
    typer.Argument(metavar="MODEL", help="Its name as listed, or the beginning of it.", show_default=False),
]


@models.command("list")
def list_models(*, store: Store = None, as_json: AsJson = False) -> None:
    """List every model of a project with its figures on the newest test set; * is in use."""
    with _open(store) as project:
        print_list(project.models().overview, as_json=as_json)


@models.command()
def show(*, model: Model, store: Store = None, as_json: AsJson = False) -> None:
    """Show one model: where it comes from, how it did, who put it into use and why."""
    from sonoloop.models.card import read_card  # noqa: PLC0415 - `--help` loads none of these

    with _open(store) as project:
        project.begin()
        row = project.find_model(model)
        try:
            folder = project.library.find(row.version)
            card = read_card(folder)
        except BundleError as error:
            folder, card = None, None
            print_error(f"{row.model} is damaged: {error}")
        except ModelError:  # not on this machine
            folder, card = None, None
        print_model(project.store, row, folder=folder, card=card, as_json=as_json)


@models.command()
def use(*, model: Model, why: Why, store: Store = None, who: Who = DEFAULT_WHO) -> None:
    """Use a model, whatever the gate said of it; who and why are kept."""
    with _open(store, who) as project:
        before = project.begin()
        row = project.find_model(model)
        with _busy(f"Checking {row.model}"):
            project.promote(row.version, why=why, expected=before.version)
        say(
            f"{row.model} is in use, in place of {_name(project, before.version)}; to go back: "
            "sonoloop models rollback --why REASON"
        )


@models.command()
def rollback(*, why: Why, store: Store = None, who: Who = DEFAULT_WHO) -> None:
    """Go back to the model that was in use before; again for the one before that."""
    with _open(store, who) as project:
        before = project.begin()
        with _busy("Checking the model"):
            moved = project.roll_back(why=why)
        say(f"{_name(project, moved.version)} is in use again, in place of {_name(project, before.version)}")


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
    with _open(store, who) as project:
        project.begin()
        row = project.lock_model(None if model is None else project.find_model(model).version, why=why)
        say(f"the project is locked to {row.model}; to unlock it: sonoloop models unlock --why REASON")


@models.command()
def unlock(*, why: Why, store: Store = None, who: Who = DEFAULT_WHO) -> None:
    """Let other models be promoted again."""
    with _open(store, who) as project:
        row = project.unlock_model(why=why)
        say(f"the project is no longer locked to {row.model}")


@models.command()
def check(
    *,
    source: Annotated[
        Path, typer.Argument(metavar="FILE", help="An ONNX or safetensors file, or the TOML file beside it.")
    ],
    write: Annotated[
        bool,
        typer.Option("--write", help="Write the TOML file beside it that is proposed, where there is none."),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Look at a network of your own before you import it: what it takes and gives, and makes of images.

    Nothing is imported. Exit code 2: it cannot be used yet, and why is said.
    """
    from sonoloop.cli.own_report import check_own  # noqa: PLC0415 - `--help` loads none of these

    with _busy("Checking the network"):
        told = check_own(source, write=write)
    told.print(as_json=as_json)
    if told.problem is not None:
        raise BundleError(told.problem)


@models.command("import")
def import_(
    *,
    source: Annotated[
        Path,
        typer.Argument(
            metavar="FILE",
            help="A zip file from `export`, a model's folder, or a network of your own: see `check`.",
        ),
    ],
    store: Store = None,
    who: Who = DEFAULT_WHO,
) -> None:
    """Bring a model in from elsewhere; it is checked, and not used until you say so."""
    with _open(store, who) as project:
        with _busy("Checking the model"):
            row = project.import_model(source)
        say(f"{row.model} is here; to use it: sonoloop models use {row.model} --why REASON")


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
    with _open(store) as project:
        project.begin()
        row = project.find_model(model)
        with _busy("Writing"):
            path = project.export_model(row.version, out or Path(f"{row.model}.zip"))
        say(f"{row.model} is in {path}")


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
    with _open(store, who) as project:
        project.begin()
        row = project.find_model(model)
        if not yes and sys.stdin.isatty():
            question = f"Delete {row.model} from this machine, for all projects on it?"
            if not typer.confirm(question, err=True):
                raise typer.Exit(130)
        project.delete_model(row.version, why=why)
        say(
            f"{row.model} is deleted from this machine, for all projects on it; an exported file brings it "
            "back: sonoloop models import FILE"
        )


def version_in_use(store: str | None, *, who: str = DEFAULT_WHO) -> str:
    """Tell which model a project uses; the shipped one in a project that has none yet."""
    with _open(store, who) as project:
        return project.begin().version


def _open(store: str | None, who: str = DEFAULT_WHO) -> Project:
    from sonoloop.project import Project  # noqa: PLC0415 - `--help` loads none of these

    return Project(open_store(store), annotator=who, on_notice=print_error)


def _name(project: Project, version: str) -> str:
    return project.find_model(version).model


@contextmanager
def _busy(stage: str) -> Iterator[None]:
    """Show that something is done that may take seconds."""
    with ProgressConsole(quiet=False) as console:
        console.show(stage, 0, 1)
        yield
