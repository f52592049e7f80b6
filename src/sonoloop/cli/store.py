"""What `sonoloop store` shows: tables for people, or JSON."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.progress import MofNCompleteColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from sonoloop.cli.console import (
    DEFAULT_WHO,
    AsJson,
    ProgressConsole,
    Store,
    Who,
    not_blank,
    open_store,
    print_json,
    result_console,
)
from sonoloop.cli.store_backup import backup, restore, verify
from sonoloop.cli.store_export import export, merge
from sonoloop.cli.store_reading import agreement, assign
from sonoloop.cli.store_stats import stats
from sonoloop.errors import StoreError

if TYPE_CHECKING:
    from sonoloop.store.corrections import CorrectionStore
    from sonoloop.store.file_index import Relinked, Searching
    from sonoloop.store.settings import StoreSettings
    from sonoloop.store.snapshots import Snapshot, SnapshotRow
    from sonoloop.store.withdrawal import Tombstone, Withdrawn

# an image's id before people; 12 of 64 digits tell any two apart
_DIGITS = 12
_LISTED = 10


def print_status(store: CorrectionStore, *, as_json: bool) -> None:
    """Print what a store holds."""
    from sonoloop.leakage import JudgingCounter  # noqa: PLC0415 - `--help` loads no SQLAlchemy
    from sonoloop.models.card import shipped_card  # noqa: PLC0415
    from sonoloop.models.library import Library  # noqa: PLC0415
    from sonoloop.store.database import describe  # noqa: PLC0415
    from sonoloop.store.groups import count_groups  # noqa: PLC0415
    from sonoloop.store.model_registry import find_model  # noqa: PLC0415
    from sonoloop.store.promotions import incumbent  # noqa: PLC0415
    from sonoloop.store.settings import read_settings  # noqa: PLC0415
    from sonoloop.store.snapshots import list_snapshots  # noqa: PLC0415

    counts, revisions, snapshots = count_groups(store), store.count(), list_snapshots(store)
    settings, used = read_settings(store), incumbent(store)
    model = None if used is None else find_model(store, used.version).model
    judging = JudgingCounter(store, Library()).count(used.version if used else shipped_card().version)
    if as_json:
        newest = snapshots[-1].name if snapshots else None
        print_json(
            {
                "store": describe(store.url),
                "revisions": revisions,
                **asdict(counts),
                "judging": asdict(judging),
                "snapshots": len(snapshots),
                "newest_snapshot": newest,
                "model": model,
                "settings": asdict(settings),
            }
        )
        return
    rows = [
        ("store", describe(store.url)),
        ("corrections", f"{revisions} revisions"),
        ("trains", f"{_images(counts.train_frames)} in {_groups(counts.train_groups)}"),
        (
            "judges",
            f"{_images(counts.test_frames)} in {_groups(counts.test_groups)} of at most {settings.test_cap}, "
            f"{counts.test_groups_with_lesion} with a lesion",
        ),
    ]
    today = [
        f"{_images(judging.frames)} a new model",
        *([f"{judging.known} do not, since the model in use knows them"] if judging.known else []),
        *([f"{judging.missing} do not, since their files are not here"] if judging.missing else []),
    ]
    rows.append(("judge today", "; ".join(today)))
    if counts.neither_frames:
        rows.append(("neither", f"{_images(counts.neither_frames)} that belong to both sides"))
    if counts.unplaced_frames:
        rows.append(("unplaced", f"{_images(counts.unplaced_frames)}; the next snapshot places them"))
    if counts.withdrawn_frames:
        rows.append(("withdrawn", f"{_images(counts.withdrawn_frames)}; see: sonoloop store withdrawn"))
    newest = f"{len(snapshots)}, the newest {snapshots[-1].name}" if snapshots else "none"
    rows += [("snapshots", newest), ("model in use", model or "the one that ships with Sonoloop")]
    _print_rows(rows)


def print_snapshot(snapshot: Snapshot, *, as_json: bool) -> None:
    """Print a snapshot that was taken."""
    roles = {
        role: sum(entry.role == role for entry in snapshot.entries) for role in ("train", "test", "neither")
    }
    if as_json:
        print_json(
            {
                "name": snapshot.name,
                "sha256": snapshot.sha256,
                "created": snapshot.created.isoformat(),
                "who": snapshot.who,
                **roles,
            }
        )
        return
    neither = f", {roles['neither']} do neither" if roles["neither"] else ""
    result_console().print(
        f"snapshot {snapshot.name} holds {len(snapshot.entries)} corrections: {roles['train']} train, "
        f"{roles['test']} judge{neither}; its hash is {snapshot.sha256[:_DIGITS]}",
        soft_wrap=True,
    )


def print_snapshots(snapshots: Sequence[SnapshotRow], *, as_json: bool) -> None:
    """Print the snapshots of a store."""
    if as_json:
        print_json([{**asdict(row), "created": row.created.isoformat()} for row in snapshots])
        return
    console = result_console()
    if not snapshots:
        console.print("there is no snapshot yet; to take one: sonoloop store snapshot", soft_wrap=True)
        return
    table = Table("name", "taken", "by", "train", "test", "neither", "withdrawn", "hash", box=None)
    for column in table.columns[3:7]:
        column.justify = "right"
    table.columns[0].overflow = "fold"
    for row in snapshots:
        counts = [str(number) for number in (row.train, row.test, row.neither, row.withdrawn)]
        taken = f"{row.created:%Y-%m-%d %H:%M} UTC"
        table.add_row(Text(row.name), taken, Text(row.who), *counts, row.sha256[:_DIGITS])
    console.print(table)


def print_withdrawal(withdrawn: Withdrawn, taught: Mapping[str, str], *, as_json: bool) -> None:
    """Print what was erased and who had used it."""
    models = {row.version: row.model for row in withdrawn.models} | dict(taught)
    if as_json:
        print_json(
            {
                "frames": withdrawn.frames,
                "before": withdrawn.before,
                "snapshots": withdrawn.snapshots,
                "models": [{"version": version, "model": model} for version, model in models.items()],
            },
        )
        return
    rows = [("erased", _name_images(withdrawn.frames) if withdrawn.frames else "nothing that was left")]
    if withdrawn.before:
        rows.append(("withdrawn before", _name_images(withdrawn.before)))
    _print_rows(
        [
            *rows,
            ("snapshots that hold them", ", ".join(withdrawn.snapshots) or "none"),
            ("models that learned from them", ", ".join(models.values()) or "none"),
        ]
    )
    if models:
        result_console().print(
            "\nA model keeps what it learned. To be rid of one, go back to another and delete it: "
            "sonoloop models delete MODEL --why REASON",
            soft_wrap=True,
        )


def print_withdrawn(stones: Sequence[Tombstone], *, as_json: bool) -> None:
    """Print what was withdrawn from a store, ever."""
    if as_json:
        print_json([{**asdict(stone), "created": stone.created.isoformat()} for stone in stones])
        return
    console = result_console()
    if not stones:
        console.print("nothing was withdrawn", soft_wrap=True)
        return
    table = Table("image", "withdrawn", "by", "why", box=None)
    table.columns[3].overflow = "fold"
    for stone in stones:
        day = f"{stone.created:%Y-%m-%d %H:%M} UTC"
        table.add_row(stone.frame_id[:_DIGITS], day, Text(stone.who), Text(stone.why))
    console.print(table)


class RelinkReport(ProgressConsole):
    """Follows a search for lost files; standard output carries the result alone.

    Parameters
    ----------
    as_json : bool
        The result as one JSON object on standard output, and no words.
    """

    def __init__(self, *, as_json: bool) -> None:
        self._as_json = as_json
        self._result: Relinked | None = None
        super().__init__(MofNCompleteColumn(), TimeRemainingColumn(), quiet=as_json)

    def tell(self, step: Searching | Relinked) -> None:
        """Take the next step of the search."""
        from sonoloop.store.file_index import Relinked  # noqa: PLC0415

        if isinstance(step, Relinked):
            self._result = step
        else:
            self.advance("Searching", step.done, step.total)

    def finish(self) -> None:
        """Give the result; the exit code is 1 where files could not be read."""
        if self._result is None:
            return
        self._print(self._result)
        if self._result.unread:
            self.notice(
                f"sonoloop: {len(self._result.unread)} of {self._result.images} images could not be read:"
            )
            for error in self._result.unread:
                self.notice(f"  {error}")
            raise typer.Exit(1)

    def _print(self, result: Relinked) -> None:
        if self._as_json:
            print_json(asdict(result))
            return
        resaved = f", {len(result.resaved)} of them saved anew" if result.resaved else ""
        lines = [f"{len(result.found)} lost files found among {result.images} images{resaved}"]
        if result.missing:
            ids = [frame_id[:_DIGITS] for frame_id in result.missing]
            lines.append(f"{len(ids)} are not there: {_list(ids)}")
        result_console().print("; ".join(lines), soft_wrap=True)


def print_settings(settings: StoreSettings, *, as_json: bool) -> None:
    """Print the settings of a store, those with their defaults too."""
    values = asdict(settings)
    if as_json:
        print_json(values)
        return
    _print_rows([(key, "none" if value is None else str(value)) for key, value in values.items()])


def _print_rows(rows: Sequence[tuple[str, str]]) -> None:
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in rows:
        table.add_row(name, Text(value))
    result_console().print(table)


def _list(ids: Sequence[str]) -> str:
    more = f" and {len(ids) - _LISTED} more" if len(ids) > _LISTED else ""
    return ", ".join(ids[:_LISTED]) + more


def _name_images(ids: Sequence[str]) -> str:
    return f"{_images(len(ids))}: {_list([frame_id[:_DIGITS] for frame_id in ids])}"


def _images(number: int) -> str:
    return "1 image" if number == 1 else f"{number} images"


def _groups(number: int) -> str:
    return "1 group" if number == 1 else f"{number} groups"


store = typer.Typer(help="Look after a project's corrections.", no_args_is_help=True)
for command in (stats, assign, agreement, export, merge, backup, verify, restore):
    store.command()(command)


@store.command()
def status(*, place: Store = None, as_json: AsJson = False) -> None:
    """Say what the store holds: corrections, what trains and what judges, snapshots, the model in use."""
    with open_store(place) as opened:
        print_status(opened, as_json=as_json)


@store.command()
def snapshot(
    *,
    name: Annotated[
        str | None, typer.Argument(metavar="[NAME]", help="What to call it; snapshot-1, -2 ... if not given.")
    ] = None,
    place: Store = None,
    who: Who = DEFAULT_WHO,
    as_json: AsJson = False,
) -> None:
    """Name what was last said of every image, for ever: what a training learns from."""
    from sonoloop.store.snapshots import take_snapshot  # noqa: PLC0415

    with open_store(place) as opened:
        print_snapshot(take_snapshot(opened, name, who=who), as_json=as_json)


@store.command()
def snapshots(*, place: Store = None, as_json: AsJson = False) -> None:
    """List the snapshots."""
    from sonoloop.store.snapshots import list_snapshots  # noqa: PLC0415

    with open_store(place) as opened:
        print_snapshots(list_snapshots(opened), as_json=as_json)


@store.command()
def withdraw(
    *,
    what: Annotated[
        str,
        typer.Argument(
            metavar="PATIENT|FRAME",
            help="A patient's number, as 47 or busbra/47, or 8 or more digits of an image's id.",
            show_default=False,
        ),
    ],
    why: Annotated[str, typer.Option("--why", callback=not_blank, help="The reason; it names nobody.")],
    place: Store = None,
    who: Who = DEFAULT_WHO,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    as_json: AsJson = False,
) -> None:
    """Erase an image's masks from the store, or those of all images of a patient; for ever.

    The fact and the reason stay, and the snapshots and models that used them are listed; a second time they
    are listed again. Image files, models, exports and backups are not touched. You are asked first; without a
    terminal it takes --yes.
    """
    from sonoloop.models.library import Library, find_models_trained_on  # noqa: PLC0415
    from sonoloop.store import withdrawal  # noqa: PLC0415

    with open_store(place) as opened:
        if not yes:
            count = len(withdrawal.frames_of(opened, what))
            images = "1 image" if count == 1 else f"{count} images"
            if not sys.stdin.isatty():
                raise StoreError(f"this erases all masks of {images} for ever: if you mean it, add --yes")
            if not typer.confirm(f"Erase all masks of {images} for ever?", err=True):
                raise typer.Exit(130)
        done = withdrawal.withdraw(opened, what, why=why, who=who)
    print_withdrawal(done, find_models_trained_on(Library(), done.keys), as_json=as_json)


@store.command()
def withdrawn(*, place: Store = None, as_json: AsJson = False) -> None:
    """List what was withdrawn: which images, when, why and by whom."""
    from sonoloop.store.withdrawal import list_withdrawn  # noqa: PLC0415

    with open_store(place) as opened:
        print_withdrawn(list_withdrawn(opened), as_json=as_json)


@store.command()
def relink(
    *,
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Where to look, with its subfolders.")],
    place: Store = None,
    as_json: AsJson = False,
) -> None:
    """Find the files of corrected images again after they were moved, renamed, saved anew or changed.

    Images are known by their content. Where they are is kept on this machine, beside the store.

    The exit code is 1 where files could not be read.
    """
    from sonoloop.store import file_index as relinking  # noqa: PLC0415
    from sonoloop.store.file_index import Places  # noqa: PLC0415

    with open_store(place) as opened:
        places = Places(opened.url)
        known = relinking.known_frames(opened)
        report = RelinkReport(as_json=as_json)
        try:
            with report:
                for step in relinking.relink(places, folder, known):
                    report.tell(step)
        except KeyboardInterrupt:
            report.notice("sonoloop: interrupted; what was found until now is kept")
            raise typer.Exit(130) from None
    report.finish()


@store.command("set")
def set_(
    *,
    changes: Annotated[
        list[str] | None,
        typer.Argument(metavar="[KEY=VALUE]...", help="None to see all settings.", show_default=False),
    ] = None,
    place: Store = None,
    as_json: AsJson = False,
) -> None:
    """Change a project's settings, or see them; see docs/store.md for what they mean."""
    from sonoloop.store.settings import change_settings, parse_changes, read_settings  # noqa: PLC0415

    parsed = parse_changes(changes or [])
    if "locked_model" in parsed:
        raise StoreError("a project is locked to a model by: sonoloop models lock --why REASON")
    with open_store(place) as opened:
        settings = change_settings(opened, **parsed) if parsed else read_settings(opened)
        print_settings(settings, as_json=as_json)
