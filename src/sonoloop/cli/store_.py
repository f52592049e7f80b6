"""`sonoloop store`: what a project's store holds, snapshots, withdrawals, settings, and lost files found."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from sonoloop.cli.project import DEFAULT_WHO, AsJson, Store, Who, not_blank, open_store
from sonoloop.errors import StoreError

store = typer.Typer(help="Look after a project's corrections.", no_args_is_help=True)


@store.command()
def status(*, place: Store = None, as_json: AsJson = False) -> None:
    """Say what the store holds: corrections, what trains and what judges, snapshots, the model in use."""
    from sonoloop.cli.store import print_status  # noqa: PLC0415 - `--help` loads none of these

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
    from sonoloop.cli.store import print_snapshot  # noqa: PLC0415 - `--help` loads none of these
    from sonoloop.store.snapshots import take_snapshot  # noqa: PLC0415

    with open_store(place) as opened:
        print_snapshot(take_snapshot(opened, name, who=who), as_json=as_json)


@store.command()
def snapshots(*, place: Store = None, as_json: AsJson = False) -> None:
    """List the snapshots."""
    from sonoloop.cli.store import print_snapshots  # noqa: PLC0415 - `--help` loads none of these
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
    from sonoloop.cli.store import print_withdrawal  # noqa: PLC0415 - `--help` loads none of these
    from sonoloop.models.library import Library  # noqa: PLC0415
    from sonoloop.models.taught import find_taught  # noqa: PLC0415
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
    print_withdrawal(done, find_taught(Library(), done.keys), as_json=as_json)


@store.command()
def withdrawn(*, place: Store = None, as_json: AsJson = False) -> None:
    """List what was withdrawn: which images, when, why and by whom."""
    from sonoloop.cli.store import print_withdrawn  # noqa: PLC0415 - `--help` loads none of these
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
    """
    from sonoloop.cli.store import RelinkReport  # noqa: PLC0415 - `--help` loads none of these
    from sonoloop.store import relinking  # noqa: PLC0415
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


@store.command()
def verify(*, place: Store = None, as_json: AsJson = False) -> None:
    """Check the database, its guards, and that every mask is still what was accepted.

    The exit code is 1 where something is wrong.
    """
    from sonoloop.cli.console import ProgressConsole  # noqa: PLC0415 - `--help` loads none of these
    from sonoloop.cli.store import print_problems  # noqa: PLC0415

    with open_store(place) as opened:
        with ProgressConsole(quiet=as_json) as console:
            console.show("Checking", 0, 1)
            problems = opened.verify()
        print_problems(problems, revisions=opened.count(), as_json=as_json)
    if problems:
        raise typer.Exit(1)


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
    from sonoloop.cli.store import print_settings  # noqa: PLC0415 - `--help` loads none of these
    from sonoloop.store.settings import change_settings, parse_changes, read_settings  # noqa: PLC0415

    parsed = parse_changes(changes or [])
    if "locked_model" in parsed:
        raise StoreError("a project is locked to a model by: sonoloop models lock --why REASON")
    with open_store(place) as opened:
        settings = change_settings(opened, **parsed) if parsed else read_settings(opened)
        print_settings(settings, as_json=as_json)
