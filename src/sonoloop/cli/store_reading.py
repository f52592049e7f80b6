"""`sonoloop store assign` and `agreement`: images that several annotators read, each on their own."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer
from rich.progress import MofNCompleteColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from sonoloop.cli.console import AsJson, ProgressConsole, Store, open_store, print_json, result_console
from sonoloop.cli.store_stats import say_figure

if TYPE_CHECKING:
    from sonoloop.store.agreement import Agreement
    from sonoloop.store.assignments import Assigned


def assign(
    *,
    readers: Annotated[
        list[str],
        typer.Argument(metavar="READER...", help="Pseudonyms of two annotators or more.", show_default=False),
    ],
    share: Annotated[
        float, typer.Option("--share", help="The share of the store's images, above 0 and at most 1.")
    ] = 0.2,
    each: Annotated[
        int | None,
        typer.Option("--each", help="How many of the readers read each image; all if not given."),
    ] = None,
    place: Store = None,
    as_json: AsJson = False,
) -> None:
    """Have a share of the images read by several annotators who do not see each other's work.

    They are drawn from the images in the store that at most one person corrected.

    Those assigned before count: ask again as images come in.
    """
    from sonoloop.store import assignments  # noqa: PLC0415 - `--help` loads no SQLAlchemy

    with open_store(place) as opened:
        assigned = assignments.assign(opened, readers, share=share, each=each)
    if as_json:
        print_json(asdict(assigned))
        return
    _print_assigned(assigned)


def agreement(*, place: Store = None, as_json: AsJson = False) -> None:
    """Say how the readers of assigned images agree, by what each said before seeing the others' work.

    The Dice of their masks and Cohen's kappa of their classes, pair by pair, with intervals of 95 %.

    The JSON lists the images too.
    """
    from sonoloop.store.agreement import read_agreement  # noqa: PLC0415

    with open_store(place) as opened:
        console = ProgressConsole(MofNCompleteColumn(), TimeRemainingColumn(), quiet=as_json)
        with console:
            found = read_agreement(
                opened, on_progress=lambda done, total: console.show("Comparing", done, total)
            )
    if as_json:
        print_json(asdict(found))
        return
    _print_agreement(found)


def _print_assigned(assigned: Assigned) -> None:
    new = len({frame_id for own in assigned.frames.values() for frame_id in own})
    console = result_console()
    earlier = f", {assigned.before} were before" if assigned.before else ""
    console.print(f"{new} of {assigned.images} images are assigned now{earlier}", soft_wrap=True)
    if not new:
        return
    table = Table("reader", "images", box=None)
    table.columns[1].justify = "right"
    for reader, own in assigned.frames.items():
        table.add_row(Text(reader), str(len(own)))
    console.print(table)


def _print_agreement(found: Agreement) -> None:
    console = result_console()
    if not found.assigned:
        console.print(
            "no image is read twice; to assign some: sonoloop store assign READER READER", soft_wrap=True
        )
        return
    if found.pairs:
        table = Table("readers", "images", "Dice", "kappa of the class", "same class", box=None)
        table.columns[0].overflow = "fold"
        for column in table.columns[1:]:
            column.justify = "right"
        for pair in found.pairs:
            table.add_row(
                Text(" and ".join(pair.readers)),
                str(pair.images),
                say_figure(pair.dice),
                say_figure(pair.kappa),
                say_figure(pair.same_class, percent=True),
            )
        console.print(table)
    differ = [one for one in found.readings if not one.same_class and not one.adjudicated]
    console.print(
        f"{len(found.readings)} of {found.assigned} assigned images were read by two or more; "
        f"on {len(differ)} the class differs and nobody decided yet",
        soft_wrap=True,
    )
