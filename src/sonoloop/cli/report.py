"""What `sonoloop predict` tells: a bar or plain lines while it runs, a table or JSON as its result."""

from __future__ import annotations

import json
import sys
from collections import Counter
from pathlib import Path, PurePosixPath
from typing import Any

from rich.progress import MofNCompleteColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from sonoloop.cli.console import ProgressConsole, result_console
from sonoloop.errors import SonoloopError
from sonoloop.formats.predictions import PredictionRow
from sonoloop.values import CLASSES

MAX_TABLE_ROWS = 30


class Report(ProgressConsole):
    """Tells the user of each image as it is done; standard output carries the result alone.

    Parameters
    ----------
    total : int
        Number of images.
    as_json : bool
        One JSON object a line on standard output, and no table.
    """

    def __init__(self, total: int, *, as_json: bool) -> None:
        self.total = total
        self.rows: list[PredictionRow] = []
        self.failures: list[tuple[str, SonoloopError]] = []
        self._as_json = as_json
        super().__init__(MofNCompleteColumn(), TimeRemainingColumn(), quiet=as_json)
        self.show("Loading the model", 0, total)

    def begin(self) -> None:
        """Say that the model is loaded."""
        self.show("Predicting", 0, self.total)

    def predicted(self, row: PredictionRow, files: list[str]) -> None:
        """Tell of an image that is done, and its files relative to the output folder."""
        self.rows.append(row)
        self._print_json({**row.to_dict(), "files": files})
        self._advance(f"{row.image}: {summarise(row)}")

    def failed(self, image: str, error: SonoloopError) -> None:
        """Tell of an image that could not be predicted."""
        self.failures.append((image, error))
        self._print_json({"image": image, "error": type(error).__name__, "message": str(error)})
        self._advance(_complaint(image, error))

    def finish(self, out: Path, *, device: str, seconds: float) -> None:
        """Give the result, and name what failed."""
        if not self._as_json:
            console = result_console()
            console.print(self._table() if len(self.rows) <= MAX_TABLE_ROWS else self._counts())
            model = f" with {self.rows[0].model}" if self.rows else ""
            console.print(
                f"{len(self.rows)} of {self.total} images predicted{model} on {device} in {seconds:.0f} s; "
                f"masks and predictions.csv are in {out}",
                soft_wrap=True,
            )
        self.name_failures()

    def name_failures(self) -> None:
        """Name the images that could not be predicted, and why."""
        if self.failures:
            self.notice(f"sonoloop: {len(self.failures)} of {self.total} images could not be predicted:")
        for image, error in self.failures:
            self.notice("  " + _complaint(image, error))

    def _advance(self, line: str) -> None:
        done = len(self.rows) + len(self.failures)
        self.show("Predicting", done, self.total)
        if self.is_plain:
            self.notice(f"[{done}/{self.total}] {line}")

    def _print_json(self, values: dict[str, Any]) -> None:
        if self._as_json:
            sys.stdout.write(json.dumps(values) + "\n")
            sys.stdout.flush()

    def _table(self) -> Table:
        table = Table("image", "class", *CLASSES, "lesions", "area (px)", "expected Dice", box=None)
        table.columns[0].overflow = "fold"
        for column in table.columns[2:]:
            column.justify = "right"
        for row in self.rows:
            percent = [f"{p:.0%}" for p in (row.p_normal, row.p_benign, row.p_malignant)]
            rest = [str(row.lesions), str(row.lesion_area_px), f"{row.expected_dice:.2f}"]
            table.add_row(Text(row.image), row.predicted_class, *percent, *rest)
        return table

    def _counts(self) -> str:
        counts = Counter(row.predicted_class for row in self.rows)
        found = sum(1 for row in self.rows if row.lesions)
        return ", ".join(f"{counts[name]} {name}" for name in CLASSES) + f"; a lesion in {found}"


def summarise(row: PredictionRow) -> str:
    """Say in one line what was predicted."""
    probability = getattr(row, f"p_{row.predicted_class}")
    lesions = "no lesion" if not row.lesions else f"{row.lesions} lesion{'s' if row.lesions > 1 else ''}"
    return f"{row.predicted_class} {probability:.0%}, {lesions}, {row.lesion_area_px} px"


def _complaint(image: str, error: SonoloopError) -> str:
    """Name the image by its path, and not once more by its name."""
    return f"{image}: {str(error).removeprefix(PurePosixPath(image).name + ' ')}"
