"""What `sonoloop models` shows: all models as a table, or one of them, for people or as JSON."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.table import Table
from rich.text import Text

from sonoloop.cli.console import result_console
from sonoloop.store import promotions as pointer
from sonoloop.store.corrections import CorrectionStore
from sonoloop.store.metrics import Figure
from sonoloop.store.model_registry import ModelRow
from sonoloop.store.overview import Line, Overview, compare_models
from sonoloop.store.test_sets import Look, looks

if TYPE_CHECKING:
    from sonoloop.models.card import Card

# what of a card's metrics is shown, as the training called it
_CARD_FIGURES = {"lesion_dice": "Dice", "false_alarms": "normals with a mask", "auc": "AUC"}


def print_list(overview: Overview, *, as_json: bool) -> None:
    """Print the models table.

    Parameters
    ----------
    overview : Overview
        All models.
    as_json : bool
        A JSON object on standard output, and no table.
    """
    if as_json:
        _print_json(
            {
                "test_set": None if overview.test_set is None else overview.test_set.number,
                "groups": 0 if overview.test_set is None else overview.test_set.groups,
                "looks": overview.looks,
                "locked": overview.locked,
                "models": [_line_to_dict(line) for line in overview.lines],
            }
        )
        return
    table = Table(
        "", "version", "made", "Dice (test)", "normals", "missed malignant", "AUC", "from", "marks", box=None
    )
    for column in table.columns[3:7]:
        column.justify = "right"
    for line in overview.lines:
        table.add_row(*(Text(cell) for cell in _cells(line, overview)))
    console = result_console(140)
    console.print(table)
    console.print(_foot(overview), soft_wrap=True)


def print_model(
    store: CorrectionStore, row: ModelRow, *, folder: Path | None, card: Card | None, as_json: bool
) -> None:
    """Print what is on record of one model.

    Parameters
    ----------
    store : CorrectionStore
        The project.
    row : ModelRow
        The model.
    folder : pathlib.Path, optional
        Where it lies on this machine; None if it does not.
    card : Card, optional
        Its own card.
    as_json : bool
        A JSON object on standard output, and no text.
    """
    overview = compare_models(store)
    line = next(line for line in overview.lines if line.row.version == row.version)
    moves = [move for move in pointer.history(store) if move.version == row.version]
    judged = [look for look in looks(store) if row.version in (look.candidate, look.incumbent)]
    if as_json:
        values = _line_to_dict(line) | {
            "folder": None if folder is None else str(folder),
            "promotions": [asdict(move) for move in moves],
            "looks": [asdict(look) for look in judged],
            "card": None if card is None else json.loads(card.to_json()),
        }
        _print_json(values)
        return
    console = result_console()
    for name, value in _facts(line, overview, folder, card):
        console.print(f"{name + ':':<22}{value}", soft_wrap=True)
    for move in moves:
        console.print(f"{'put into use:':<22}{_day(move.created)} ({move.kind}) by {move.who}: {move.why}")
    names = {other.row.version: other.row.model for other in overview.lines}
    for look in judged:
        console.print(f"{'judged:':<22}{_tell_look(look, names)}", soft_wrap=True)
    for mark in row.marks:
        console.print(f"{'marked:':<22}{_day(mark.created)} {mark.mark} by {mark.who}: {mark.why}")


def _cells(line: Line, overview: Overview) -> list[str]:
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


def _foot(overview: Overview) -> str:
    words = ["* in use"]
    if overview.test_set is None:
        words.append("nothing was judged yet")
    else:
        frames, groups = len(overview.test_set.members), overview.test_set.groups
        words.append(
            f"judged on test set {overview.test_set.number}: {frames} frames of {groups} groups, looked at "
            f"{overview.looks} times"
        )
    if overview.locked is not None:
        words.append("the project is locked")
    return "; ".join(words)


def _facts(line: Line, overview: Overview, folder: Path | None, card: Card | None) -> list[tuple[str, str]]:
    row, figures = line.row, line.figures
    facts = [
        ("model", row.model + (" (in use)" if line.in_use else "")),
        ("version", row.version),
        ("made", f"{_day(row.created)}, {row.origin}, by {row.who}"),
        ("tuned from", line.parent or "nothing that is on record"),
        ("learned from", f"snapshot {row.snapshot}" if row.snapshot else "no snapshot of this project"),
        ("on this machine", "no" if folder is None else str(folder)),
    ]
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
    for part, metrics in (card.metrics if card is not None else {}).items():
        told = [
            f"{title} {_card_figure(metrics[key])}"
            for key, title in _CARD_FIGURES.items()
            if isinstance(metrics, dict) and isinstance(metrics.get(key), dict)
        ]
        if told:
            facts.append((f"its card, {part}", ", ".join(told)))
    return facts


def _tell_look(look: Look, names: dict[str, str]) -> str:
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


def _card_figure(figure: dict[str, Any]) -> str:
    interval = figure.get("ci95")
    told = "" if interval is None else f" [{interval[0]:.2f}, {interval[1]:.2f}]"
    return f"{figure['value']:.3f}{told}"


def _day(when: datetime) -> str:
    return when.date().isoformat()


def _line_to_dict(line: Line) -> dict[str, Any]:
    values = asdict(line.row)
    figures = None if line.figures is None else asdict(line.figures)
    return values | {
        "from": line.parent,
        "standing": list(line.row.standing),
        "in_use": line.in_use,
        "test": figures,
    }


def _print_json(values: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(values, default=datetime.isoformat) + "\n")
