"""`sonoloop store stats`: what corrections took, and how the proposals fared."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.progress import MofNCompleteColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from sonoloop.atomic import find_obstacle, whole
from sonoloop.cli.console import AsJson, ProgressConsole, Store, open_store, print_json, result_console
from sonoloop.errors import SonoloopError, check_installed

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from sonoloop.store.effort import EffortRow, EffortStats
    from sonoloop.store.metrics import Figure

_PARTS = (
    ("model ", "by_model"),
    ("class ", "by_class"),
    ("annotator ", "by_annotator"),
    ("", "by_proposal"),
)


def stats(
    *,
    plot: Annotated[
        Path | None, typer.Option("--plot", metavar="FILE.png", help="Draw the figures into a picture too.")
    ] = None,
    place: Store = None,
    as_json: AsJson = False,
) -> None:
    """Say what corrections took, and how the proposals agree with what became of them.

    By model, class and annotator, and by whether the proposal was shown first. Intervals are of 95 %.

    Seconds are there where the project records time: sonoloop store set record_time=true.
    """
    from sonoloop.store.effort import read_stats  # noqa: PLC0415 - `--help` loads no SQLAlchemy

    if plot is not None:
        _check_plot(plot)
    with open_store(place) as opened:
        console = ProgressConsole(MofNCompleteColumn(), TimeRemainingColumn(), quiet=as_json)
        with console:
            found = read_stats(opened, on_progress=lambda done, all_: console.show("Comparing", done, all_))
    if plot is not None:
        _draw(found, plot)
    if as_json:
        print_json(asdict(found))
        return
    _print(found, plot)


def say_figure(figure: Figure | None, *, percent: bool = False) -> str:
    """Write a figure with its interval, or a share in percent."""
    if figure is None:
        return "-"
    unit = "%" if percent else ""

    def say(value: float) -> str:
        return f"{value * 100:.0f}" if percent else f"{value:.3g}" if value >= 10 else f"{value:.2f}"

    if figure.low is None or figure.high is None:
        return say(figure.value) + unit
    return f"{say(figure.value)}{unit} [{say(figure.low)}, {say(figure.high)}]"


def _print(found: EffortStats, plot: Path | None) -> None:
    console = result_console()
    if not found.all.images:
        console.print("no image was corrected from a proposal yet", soft_wrap=True)
        return
    table = Table("", "images", "unedited", "class changed", "Dice", "seconds", "strokes", "clicks", box=None)
    table.columns[0].overflow = "fold"
    for column in table.columns[1:]:
        column.justify = "right"
    _add(table, "all", found.all)
    for title, part in _PARTS:
        for row in getattr(found, part):
            _add(table, title + row.name, row)
    console.print(table)
    if plot is not None:
        console.print(f"drawn in {plot}", soft_wrap=True)


def _add(table: Table, name: str, row: EffortRow) -> None:
    counts = ("-" if made is None else f"{made:.1f}" for made in (row.strokes, row.clicks))
    table.add_row(
        Text(name),
        str(row.images),
        say_figure(row.unedited, percent=True),
        say_figure(row.class_changed, percent=True),
        say_figure(row.dice),
        say_figure(row.seconds),
        *counts,
    )


def _check_plot(plot: Path) -> None:
    """Refuse a picture that cannot be drawn, before anything is compared."""
    check_installed(("matplotlib",), "train")
    if plot.suffix.lower() != ".png":
        raise SonoloopError(f"{plot} is no name of a PNG: call it {plot.with_suffix('.png').name}")
    if plot.is_dir():
        raise SonoloopError(f"{plot} is a folder: name a file in it")
    if obstacle := find_obstacle(plot.parent):
        raise SonoloopError(f"the picture cannot be written: {obstacle}")


def _draw(found: EffortStats, plot: Path) -> None:
    """Draw Dice, the share accepted unedited and seconds an image, with their intervals."""
    from matplotlib.figure import Figure as Drawing  # noqa: PLC0415 - an extra

    parts = [(title, getattr(found, part)) for title, part in _PARTS]
    named = [(title + row.name, row) for title, rows in parts for row in rows]
    drawing = Drawing(figsize=(11, 1.6 + 0.32 * len(named)), layout="constrained")
    axes = drawing.subplots(1, 3, sharey=True)
    columns = (
        ("Dice of proposal and final mask", [row.dice for _, row in named], 1.0),
        ("accepted unedited", [row.unedited for _, row in named], 1.0),
        ("seconds an image", [row.seconds for _, row in named], None),
    )
    for each, (title, figures, top) in zip(axes, columns, strict=True):
        _draw_column(each, figures)
        each.set_title(title, fontsize=10)
        each.set_xlim(0, top)
        each.grid(axis="x", alpha=0.3)
    axes[0].set_yticks(range(len(named)), [f"{name} ({row.images})" for name, row in named], fontsize=9)
    axes[0].invert_yaxis()
    plot.parent.mkdir(parents=True, exist_ok=True)
    with whole(plot) as aside:
        drawing.savefig(aside, format="png", dpi=120)


def _draw_column(axes: Axes, figures: Sequence[Figure | None]) -> None:
    for position, figure in enumerate(figures):
        if figure is None:
            continue
        axes.plot(figure.value, position, "o", color="#1f5f8b")
        if figure.low is not None and figure.high is not None:
            axes.plot([figure.low, figure.high], [position] * 2, color="#1f5f8b")
