"""`sonoloop predict`: images in, masks and a table out."""

from __future__ import annotations

import time
from contextlib import closing
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sonoloop.errors import SonoloopError

if TYPE_CHECKING:
    from sonoloop.imaging.files import FoundImage


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
    from sonoloop.batch import Failed, predict_images  # noqa: PLC0415 - `--help` loads none of these
    from sonoloop.cli.interrupts import interrupts_held  # noqa: PLC0415
    from sonoloop.cli.models import version_in_use  # noqa: PLC0415
    from sonoloop.cli.report import Report  # noqa: PLC0415
    from sonoloop.formats.prediction_folder import PredictionFolder, plan_stems  # noqa: PLC0415
    from sonoloop.formats.predictions import describe  # noqa: PLC0415
    from sonoloop.imaging.io import read_frame  # noqa: PLC0415

    start = time.perf_counter()
    if model is not None and store is not None:
        raise SonoloopError("give --model or --store, not both: the store says which model is in use")
    images = _find(paths)
    stems = plan_stems(images)
    folder = PredictionFolder(out, overlay=overlay)
    folder.check()
    report = Report(len(images), as_json=as_json)
    try:
        with report:
            from sonoloop.models.predictor import Predictor  # noqa: PLC0415 - imports torch, seconds
            from sonoloop.models.registry import load_bundle, load_version  # noqa: PLC0415

            predictor = Predictor(
                load_bundle(model)
                if store is None
                else load_version(version_in_use(store), on_notice=report.notice),
                device=device.value,
                batch=batch,
                views=views,
                threshold=threshold,
                on_notice=report.notice,
            )
            report.begin()
            outcomes = predict_images(images, predictor, batch=batch, read=read_frame)
            with folder, closing(outcomes):
                for outcome in outcomes:
                    name = outcome.image.relative.as_posix()
                    if isinstance(outcome, Failed):
                        report.failed(name, outcome.error)
                        continue
                    row = describe(outcome.prediction, image=name, seconds=outcome.seconds)
                    # a mask without its row, or a row without its mask, would mislead
                    with interrupts_held():
                        files = folder.write(outcome.frame, outcome.prediction, row, stems[outcome.image])
                    report.predicted(row, files)
    except KeyboardInterrupt:
        report.name_failures()
        report.notice(
            f"sonoloop: interrupted; {len(report.rows)} of {report.total} images are done and are in {out}"
        )
        raise typer.Exit(130) from None
    report.finish(
        out, device=f"{predictor.device} in {predictor.precision}", seconds=time.perf_counter() - start
    )
    if report.failures:
        raise typer.Exit(1)


def _find(paths: list[Path]) -> list[FoundImage]:
    from sonoloop.formats.prediction_folder import tell_apart  # noqa: PLC0415
    from sonoloop.imaging.files import find_images  # noqa: PLC0415 - `--help` loads none of these

    images = find_images(paths)
    if not images:
        raise SonoloopError(
            f"there is no image in {', '.join(map(str, paths))}; PNG, JPEG, TIFF and BMP files are "
            "predicted, masks (..._mask.png) are not"
        )
    return tell_apart(images)
