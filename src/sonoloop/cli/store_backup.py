"""`sonoloop store backup`, `verify` and `restore`: one file, made, checked and put back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from sonoloop.cli.console import (
    AsJson,
    ProgressConsole,
    Store,
    open_store,
    print_json,
    result_console,
    working,
)
from sonoloop.regular_files import name_size


def backup(
    *,
    file: Annotated[
        Path,
        typer.Argument(
            metavar="FILE|DIR",
            help="Where to; in a folder each backup is named after the store and the time.",
            show_default=False,
        ),
    ],
    place: Store = None,
    replace: Annotated[
        bool, typer.Option("--replace", help="Replace an earlier backup of that name.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Copy the store into one file, also while others work on it, and check the copy.

    The file has its name once it was found to be sound. A PostgreSQL database is backed up with pg_dump.

    The exit code is 1 where the store is not sound: then there is no new backup.
    """
    from sonoloop.store.backup import DamagedError, back_up  # noqa: PLC0415 - `--help` loads no SQLAlchemy

    with open_store(place) as opened, working("nothing is left of it", quiet=as_json) as console:
        try:
            made = back_up(opened, file, replace=replace, tell=console.advance)
        except DamagedError as error:
            _refuse(error, error.problems, console)
    if as_json:
        print_json({**asdict(made), "path": str(made.path)})
        return
    result_console().print(
        f"backed up to {made.path}: {name_size(made.bytes)}, {_revisions(made.revisions)}, checked",
        soft_wrap=True,
    )


def verify(
    *,
    file: Annotated[
        Path | None,
        typer.Argument(
            metavar="[FILE|DIR]",
            help="A backup, or an export's folder, in place of the store.",
            show_default=False,
        ),
    ] = None,
    place: Store = None,
    as_json: AsJson = False,
) -> None:
    """Check a store or a backup: the database, its guards, and that every mask is still what was accepted.

    A backup stays as it is, also one of an earlier version. Of an export every file is checked.

    The exit code is 1 where something is wrong.
    """
    from sonoloop.store.backup import check_file  # noqa: PLC0415 - `--help` loads no SQLAlchemy
    from sonoloop.store.merge import check_export  # noqa: PLC0415

    with working("nothing was found until then", quiet=as_json) as console:
        revisions: int | None = None
        problems: Sequence[str]
        if file is None:
            with open_store(place) as opened:
                problems, revisions = opened.verify(tell=console.advance), opened.count()
        elif file.is_dir():
            problems = check_export(file, tell=console.advance)
        else:
            checked = check_file(file, tell=console.advance)
            problems, revisions = checked.problems, checked.revisions
    _print_problems(problems, revisions, as_json=as_json)
    if problems:
        raise typer.Exit(1)


def restore(
    *,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The backup.", show_default=False)],
    to: Annotated[Path, typer.Option("--to", metavar="STORE", help="The store's file.", show_default=False)],
    as_json: AsJson = False,
) -> None:
    """Put a backup in the place of a store; the one that is there is kept beside it, its name with the date.

    What was withdrawn from that store since is erased from the restored one too. Close napari first.

    The exit code is 1 where the backup is not sound: then nothing changes.
    """
    from sonoloop.store.backup import DamagedError  # noqa: PLC0415 - `--help` loads no SQLAlchemy
    from sonoloop.store.backup import restore as put_back  # noqa: PLC0415

    with working("nothing changed", quiet=as_json) as console:
        try:
            restored = put_back(file, to, tell=console.advance)
        except DamagedError as error:
            _refuse(error, error.problems, console)
    if as_json:
        aside = None if restored.aside is None else str(restored.aside)
        print_json({**asdict(restored), "path": str(restored.path), "aside": aside})
        return
    console_ = result_console()
    console_.print(f"restored {restored.path}: {_revisions(restored.revisions)}", soft_wrap=True)
    if restored.aside is not None:
        console_.print(f"the store before is {restored.aside}", soft_wrap=True)
    if restored.withdrawn:
        count = len(restored.withdrawn)
        console_.print(
            f"{'1 image' if count == 1 else f'{count} images'} withdrawn since the backup: erased again",
            soft_wrap=True,
        )


def _refuse(error: Exception, problems: Sequence[str], console: ProgressConsole) -> None:
    for problem in problems:
        console.notice(problem)
    console.notice(f"sonoloop: {error}")
    raise typer.Exit(1)


def _print_problems(problems: Sequence[str], revisions: int | None, *, as_json: bool) -> None:
    if as_json:
        print_json({"revisions": revisions, "problems": problems})
        return
    console = result_console()
    for problem in problems:
        console.print(problem, soft_wrap=True)
    what = "the export" if revisions is None else f"{revisions} revisions"
    remedy = "export again" if revisions is None else "keep a copy of the store and restore a backup"
    found = f"{len(problems)} problems; {remedy}" if problems else "all is well"
    console.print(f"{what} checked: {found}", soft_wrap=True)


def _revisions(count: int) -> str:
    return "1 revision" if count == 1 else f"{count} revisions"
