"""`sonoloop predict`: images in, masks and a table out."""

from __future__ import annotations

import time
from collections import Counter
from contextlib import closing
from enum import StrEnum
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.progress import MofNCompleteColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from sonoloop.cli.console import ProgressConsole, interrupts_held, print_json, result_console
from sonoloop.errors import SonoloopError
from sonoloop.plain_text import shown

if TYPE_CHECKING:
    from sonoloop.formats.prediction_folder import PredictionRow


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
        try:
            self._print_result(out, device, seconds)
        finally:
            self.name_failures()

    def _print_result(self, out: Path, device: str, seconds: float) -> None:
        if not self._as_json:
            console = result_console()
            console.print(self._table() if len(self.rows) <= MAX_TABLE_ROWS else self._counts())
            model = f" with {self.rows[0].model}" if self.rows else ""
            console.print(
                f"{len(self.rows)} of {self.total} images predicted{model} on {device} in {seconds:.0f} s; "
                f"masks and predictions.csv are in {out}",
                soft_wrap=True,
            )

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
            print_json(values)

    def _table(self) -> Table:
        from sonoloop.values import CLASSES  # noqa: PLC0415 - imports numpy

        table = Table("image", "class", *CLASSES, "lesions", "area (px)", "expected Dice", box=None)
        table.columns[0].overflow = "fold"
        for column in table.columns[2:]:
            column.justify = "right"
        for row in self.rows:
            percent = [f"{p:.0%}" for p in (row.p_normal, row.p_benign, row.p_malignant)]
            rest = [str(row.lesions), str(row.lesion_area_px), f"{row.expected_dice:.2f}"]
            table.add_row(Text(shown(row.image)), row.predicted_class, *percent, *rest)
        return table

    def _counts(self) -> str:
        from sonoloop.values import CLASSES  # noqa: PLC0415

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


_MANY = 20


class Device(StrEnum):
    """Where to run."""

    AUTO = "auto"
    CPU = "cpu"
    CUDA = "cuda"
    MPS = "mps"


def _one_of_1_2_4(value: int | None) -> int | None:
    if value not in (None, 1, 2, 4):
        raise typer.BadParameter(f"{value} is not 1, 2 or 4")
    return value


def _between_0_and_1(value: float | None) -> float | None:
    if value is not None and not 0 < value < 1:
        raise typer.BadParameter(f"{value} is not between 0 and 1, both excluded")
    return value


def predict(
    *,
    paths: Annotated[
        list[Path], typer.Argument(metavar="PATH", help="Images, or folders to search for them.")
    ],
    out: Annotated[Path, typer.Option("--out", help="Folder to write to; made where it is not there.")],
    overlay: Annotated[bool, typer.Option("--overlay", help="Also draw the outline on each image.")] = False,
    model: Annotated[
        str | None, typer.Option("--model", help="Name or folder of a model; the shipped one if not given.")
    ] = None,
    store: Annotated[
        str | None,
        typer.Option("--store", help="Use the model that the project with this store uses; file or URL."),
    ] = None,
    device: Annotated[
        Device, typer.Option("--device", help="Where to run; auto takes a GPU if there is one.")
    ] = (Device.AUTO),
    engine: Annotated[
        str,
        typer.Option(
            "--engine",
            help="What computes: torch, onnx, openvino; auto takes torch for a GPU, else the quickest.",
        ),
    ] = "auto",
    batch: Annotated[int, typer.Option("--batch", min=1, max=256, help="Images at a time.")] = 8,
    views: Annotated[
        int | None,
        typer.Option("--views", callback=_one_of_1_2_4, help="Views of each image to average: 1, 2 or 4."),
    ] = None,
    threshold: Annotated[
        float | None,
        typer.Option(
            "--threshold", callback=_between_0_and_1, help="Lesion probability from which a pixel counts."
        ),
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object a line for each image.")
    ] = False,
) -> None:
    """Predict a lesion mask and a class for each image.

    Writes OUT/masks/..._mask.png (value = number of the lesion) and OUT/predictions.csv. Masks beside the
    images (..._mask.png) are not predicted. Exit code 1: an image could not be predicted; 2: none was tried.
    """
    from sonoloop.batch import Batch, Failed  # noqa: PLC0415 - `--help` loads none of these
    from sonoloop.models.engines.auto import open_engine  # noqa: PLC0415
    from sonoloop.models.library import Library, bundle_folder  # noqa: PLC0415
    from sonoloop.models.predictor import Predictor  # noqa: PLC0415

    start = time.perf_counter()
    if model is not None and store is not None:
        raise SonoloopError("give --model or --store, not both: the store says which model is in use")
    images = Batch.plan(paths, out, overlay=overlay)
    report = Report(images.total, as_json=as_json)
    try:
        with report:
            if store is None:
                folder = bundle_folder(model)
            else:
                from sonoloop.cli.models import version_in_use  # noqa: PLC0415 - loads the database

                folder = Library().keep(version_in_use(store), on_notice=report.notice)
            predictor = Predictor(
                open_engine(
                    folder,
                    device.value,
                    engine=engine,
                    # for few, the search would take longer than what it gains
                    probe=images.total >= _MANY,
                    on_notice=report.notice,
                ),
                batch=batch,
                views=views,
                threshold=threshold,
                on_notice=report.notice,
            )
            report.begin()
            for notice in images.notices:
                report.notice(f"note: {notice}")
            with closing(images.run(predictor, batch=batch, guard=interrupts_held)) as outcomes:
                for outcome in outcomes:
                    if isinstance(outcome, Failed):
                        report.failed(outcome.image.relative.as_posix(), outcome.error)
                    else:
                        report.predicted(outcome.row, outcome.files)
                        if outcome.note is not None:
                            report.notice(f"sonoloop: {outcome.row.image}: {outcome.note}")
    except KeyboardInterrupt:
        report.name_failures()
        report.notice(
            f"sonoloop: interrupted; {len(report.rows)} of {report.total} images are done and are in {out}"
        )
        raise typer.Exit(130) from None
    except SonoloopError:
        report.name_failures()
        if report.rows:
            report.notice(f"sonoloop: {len(report.rows)} of {report.total} images are done and are in {out}")
        raise
    report.finish(
        out,
        device=f"{predictor.device} by {predictor.engine.name} in {predictor.precision}",
        seconds=time.perf_counter() - start,
    )
    if report.failures:
        raise typer.Exit(1)
