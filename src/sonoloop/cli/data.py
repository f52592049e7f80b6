"""What `sonoloop data` tells: a bar or plain lines while it runs, tables or JSON as its result."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from typing import Any

from rich.progress import MofNCompleteColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from sonoloop.cli.console import ProgressConsole, result_console
from sonoloop.values import CLASSES

_NAMES = 4
_STYLES = {"mend": "bold red", "heed": "yellow", "note": "dim"}


class CheckReport(ProgressConsole):
    """Follows the events of a check or of unpacking; standard output carries the result alone.

    Parameters
    ----------
    as_json : bool
        The result as one JSON object on standard output, and no table.
    """

    def __init__(self, *, as_json: bool) -> None:
        self._checked: dict[str, Any] | None = None
        self._as_json = as_json
        super().__init__(MofNCompleteColumn(), TimeRemainingColumn(), quiet=as_json)

    def tell(self, event: Mapping[str, Any]) -> None:
        """Take the next event; see `sonoloop.jobs.events`."""
        match event["event"]:
            case "progress":
                self.advance(event["stage"], event["done"], event["total"])
            case "notice":
                self.notice(str(event["message"]))
            case "checked":
                self._checked = {name: value for name, value in event.items() if name != "event"}
            case "unpacked":
                result_console().print(
                    f"{event['images']} images and {event['masks']} masks of {event['dataset']} are in "
                    f"{event['path']}",
                    soft_wrap=True,
                )

    def finish(self) -> int:
        """Give the result; return how many findings must be mended."""
        if self._checked is None:
            return 0
        mend = int(self._checked["mend"])
        if self._as_json:
            sys.stdout.write(json.dumps(self._checked) + "\n")
            return mend
        console = result_console()
        for dataset in self._checked["datasets"]:
            console.print(_summary(dataset))
            console.print()
        if self._checked["findings"]:
            console.print(_findings(self._checked["findings"]))
            console.print()
        verdict = f"{mend} findings must be mended" if mend else "nothing must be mended"
        console.print(f"{verdict}; pictures and figures are in {self._checked['report']}", soft_wrap=True)
        if self._checked["groups"]:
            files = ", ".join(self._checked["groups"])
            console.print(f"near-duplicates: {files}", soft_wrap=True)
        return mend


def _summary(dataset: Mapping[str, Any]) -> Table:
    table = Table("", *CLASSES, "all", title=str(dataset["dataset"]), title_justify="left", box=None)
    for column in table.columns[1:]:
        column.justify = "right"
    for row in dataset["table"]:
        table.add_row(*map(Text, row))
    return table


def _findings(findings: list[dict[str, Any]]) -> Table:
    table = Table("", "dataset", "count", "finding", title="findings", title_justify="left", box=None)
    table.columns[2].justify = "right"
    for finding in findings:
        names = finding["names"]
        told = Text(finding["what"])
        if names:
            more = f"; and {len(names) - _NAMES} more" if len(names) > _NAMES else ""
            told.append(f": {'; '.join(names[:_NAMES])}{more}", style="dim")
        if finding["advice"]:
            told.append(f"\n{finding['advice']}", style="italic")
        severity = finding["severity"]
        count = str(len(names)) if names else ""
        table.add_row(Text(severity, style=_STYLES[severity]), Text(finding["dataset"]), count, told)
    return table
