"""What `sonoloop gate` tells: progress while it runs, then the figures and the verdict."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from typing import Any

from rich.progress import MofNCompleteColumn, TimeRemainingColumn
from rich.table import Table

from sonoloop.cli.console import ProgressConsole, result_console

_SIDES = {
    "missed_malignant": "missed malignant lesions",
    "false_alarms": "false alarms on normals",
    "auc": "AUC, malignant against benign",
}


class GateReport(ProgressConsole):
    """Follows the events of a comparison; standard output carries the result alone.

    Parameters
    ----------
    as_json : bool
        The event `Gate` as one JSON object on standard output, and no table.
    """

    def __init__(self, *, as_json: bool) -> None:
        self._stage = ""
        self._gate: dict[str, Any] | None = None
        self._promoted = ""
        self._as_json = as_json
        super().__init__(MofNCompleteColumn(), TimeRemainingColumn(), quiet=as_json)

    def tell(self, event: Mapping[str, Any]) -> None:
        """Take the next event."""
        match event["event"]:
            case "progress":
                stage = event["stage"]
                self.advance(stage, event["done"], event["total"], begins=stage != self._stage)
                self._stage = stage
            case "unreadable":
                self.notice(f"{event['image']} does not judge: {event['error']}")
            case "notice":
                self.notice(str(event["message"]))
            case "gate":
                self._gate = dict(event)
            case "promoted":
                self._promoted = event["model"]

    def finish(self) -> None:
        """Give the result."""
        found = self._gate
        if found is None:
            return
        if self._as_json:
            del found["event"]
            sys.stdout.write(json.dumps(found | {"promoted": bool(self._promoted)}) + "\n")
            return
        console = result_console()
        if found["difference"] is not None:
            console.print(_table(found))
        console.print(f"{found['verdict']}: {found['reason']}", soft_wrap=True)
        console.print(
            f"Look {found['looks']} at test set {found['test_set']}"
            + (f"; pictures: {', '.join(found['pictures'].values())}" if found["pictures"] else ""),
            soft_wrap=True,
        )
        if self._promoted:
            console.print(f"{self._promoted} is in use now")


def _table(found: Mapping[str, Any]) -> Table:
    table = Table("candidate less model in use", "", "95 % interval", "margin", "frames", "groups", box=None)
    table.add_row(
        "mean Dice, frames with a lesion",
        f"{found['difference']:+.3f}",
        _interval(found["interval"]),
        "",
        str(found["frames"]),
        str(found["groups"]),
    )
    for name, title in _SIDES.items():
        side = found["sides"][name]
        if side["difference"] is not None:
            table.add_row(
                title,
                f"{side['difference']:+.3f}",
                _interval(side["interval"]),
                f"{side['margin']:g}",
                str(side["frames"]),
                str(side["groups"]),
            )
    return table


def _interval(bounds: list[float] | None) -> str:
    return "" if bounds is None else f"{bounds[0]:+.3f} to {bounds[1]:+.3f}"
