"""`sonoloop import`: existing masks into a store, as corrections."""

from __future__ import annotations

import json
import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from sonoloop.cli.console import not_blank


class Format(StrEnum):
    """How a dataset is laid out."""

    BUSI = "busi"
    BUSBRA = "busbra"


class Split(StrEnum):
    """What the groups that are new become."""

    AUTO = "auto"
    TRAIN = "train"
    TEST = "test"


def import_masks(
    *,
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="The dataset's folder.")],
    layout: Annotated[Format, typer.Option("--format", help="How it is laid out; see docs/datasets.md.")],
    annotator: Annotated[
        str | None,
        typer.Option(
            "--annotator",
            metavar="NAME",
            help="Who drew the masks; the dataset if not given.",
            callback=not_blank,
        ),
    ] = None,
    split: Annotated[
        Split,
        typer.Option("--split", help="The role of new groups; auto draws it, as for every other image."),
    ] = Split.AUTO,
    store: Annotated[
        str | None,
        typer.Option("--store", metavar="URL", help="The corrections; the default store if not given."),
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the events, one JSON object a line.")
    ] = False,
) -> None:
    """Bring a dataset's masks into a store as corrections, patients and near copies kept together.

    Nothing is stored twice: the same command again adds what is new, and goes on where it broke off.
    """
    from sonoloop.cli.train import TrainingReport  # noqa: PLC0415
    from sonoloop.jobs.process import training_events  # noqa: PLC0415 - `--help` loads none of these

    arguments: list[object] = [folder, "--format", layout.value, "--split", split.value]
    if annotator is not None:
        arguments += ["--annotator", annotator]
    if store is not None:
        arguments += ["--store", store]
    report = TrainingReport(Path(), as_json=as_json)
    try:
        with report:
            for event in training_events("import", arguments):
                if as_json:
                    sys.stdout.write(json.dumps(event) + "\n")
                    sys.stdout.flush()
                elif event["event"] == "imported":
                    _summarise(event)
                elif event["event"] == "unreadable":
                    report.notice(f"{event['image']} is left out: {event['error']}")
                else:
                    report.tell(event)
    except KeyboardInterrupt:
        report.notice("sonoloop: interrupted; what is stored stays, and the same command goes on")
        raise typer.Exit(130) from None


def _summarise(event: dict[str, Any]) -> None:
    from rich.table import Table  # noqa: PLC0415 - as above

    from sonoloop.cli.console import result_console  # noqa: PLC0415

    table = Table("", "images", title=f"{event['dataset']} by {event['annotator']}", box=None)
    table.title_justify = "left"
    rows = {
        "new corrections": event["new"],
        "known already": event["known"],
        "corrected otherwise by a person, left as they are": event["kept"],
        "could not be used": event["unreadable"],
        **event["by_class"],
        f"train ({event['groups']['train']} groups)": event["roles"]["train"],
        f"only judge ({event['groups']['test']} groups)": event["roles"]["test"],
        "neither, since they belong to both": event["roles"]["neither"],
    }
    for what, count in rows.items():
        if count:
            table.add_row(what, str(count))
    result_console().print(table)
