"""``check``: survey every dataset of a folder, and write the report and the groups."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from sonoloop.errors import TrainingError
from sonoloop.jobs.events import Checked, Event, Progress
from sonoloop_training.checking.findings import (
    Finding,
    findings_of,
    not_listed,
    shared_images,
    sort_findings,
)
from sonoloop_training.checking.report import build_report
from sonoloop_training.checking.sources import find_sources
from sonoloop_training.checking.summary import summarise, summary_rows
from sonoloop_training.checking.survey import Survey, find_shared, survey_source

REPORT = "report.html"
GROUPS = "groups.json"
_SOURCE = "computed by `sonoloop data check`"


def check(data: Path, out: Path | None = None) -> Iterator[Event]:
    """Say what a folder of datasets holds and what must be mended.

    Parameters
    ----------
    data : pathlib.Path
        A dataset, or a folder with several.
    out : pathlib.Path, optional
        Takes `report.html` and `groups.json` (with several datasets `DATASET/groups.json`), all at the end;
        by default DATA-check in the current folder, or beside DATA where that lies inside of it.

    Yields
    ------
    Event
        `Progress`, and `Checked` at the end.

    Raises
    ------
    TrainingError
        If there is no dataset, a list of near-duplicates has another form than it should, or `out` lies in
        `data`, cannot be written, or holds a file of that name that another program made.
    """
    sources = find_sources(data)
    folder = _choose_folder(data, out)
    surveys: list[Survey] = []
    for source in sources:
        if source.samples:
            survey = yield from survey_source(source)
            surveys.append(survey)
    refused = [source for source in sources if not source.samples]
    shared = yield from find_shared(surveys)
    findings = sort_findings(
        [
            *map(not_listed, refused),
            *(finding for survey in surveys for finding in findings_of(survey)),
            *shared_images(surveys, shared),
        ]
    )
    yield Progress(stage="Writing the report", done=0, total=1)
    files = {folder / REPORT: build_report(data, surveys, findings, refused=[s.dataset for s in refused])}
    for survey in surveys:
        home = folder if len(surveys) == 1 else folder / survey.source.dataset
        files[home / GROUPS] = list_groups(survey)
    _write(files)
    yield Checked(
        report=str(folder / REPORT),
        groups=[str(path) for path in files if path.name == GROUPS],
        datasets=[_describe(survey) for survey in surveys],
        findings=[asdict(finding) for finding in findings],
        mend=_count(findings),
    )


def list_groups(survey: Survey) -> str:
    """Return the near-duplicates as JSON, in the form that `sonoloop_training.datasets.groups_` reads.

    Images without a near-duplicate are listed where something is burned in.
    """
    groups = []
    grouped = {member for members in survey.groups for member in members}
    alone = ((place,) for place in range(len(survey.inspections)) if place not in grouped)
    for members in [*survey.groups, *alone]:
        items = [survey.inspections[member] for member in members]
        entry: dict[str, Any] = {"images": [item.sample.name for item in items]}
        if len({item.sample.label for item in items}) > 1:
            entry["conflicting_classes"] = True
        if any(item.overlay for item in items):
            entry["overlay"] = ["detected"]
        if len(entry) > 1 or len(items) > 1:
            groups.append(entry)
    note = "images not listed are alone in their group and have no flag"
    return json.dumps({"source": _SOURCE, "note": note, "groups": groups}, indent=1) + "\n"


def _count(findings: list[Finding]) -> int:
    return sum(finding.severity == "mend" for finding in findings)


def _describe(survey: Survey) -> dict[str, Any]:
    return {
        "dataset": survey.source.dataset,
        "path": str(survey.source.root),
        "classes": {name: asdict(part) for name, part in summarise(survey).items()},
        "near_duplicates": [
            [survey.inspections[member].sample.name for member in members] for members in survey.groups
        ],
        "table": summary_rows(survey),
    }


def _choose_folder(data: Path, out: Path | None) -> Path:
    inside = data.resolve()
    folder = out or Path(f"{inside.name}-check")
    if out is None and folder.resolve().is_relative_to(inside):
        folder = inside.parent / folder.name
    if folder.resolve().is_relative_to(inside):
        raise TrainingError(f"{folder} lies in the dataset, which stays as it is; give another --out")
    if folder.exists() and not folder.is_dir():
        raise TrainingError(f"{folder} is a file; give a folder as --out")
    _refuse_strangers(folder)
    return folder


def _refuse_strangers(folder: Path) -> None:
    marks = {REPORT: "Made by Sonoloop", GROUPS: _SOURCE}
    for path in [*folder.glob(REPORT), *folder.glob(GROUPS), *folder.glob(f"*/{GROUPS}")]:
        # decoded loosely: whatever it is, it is only looked at
        if marks[path.name] not in path.read_text(encoding="utf-8", errors="replace"):
            raise TrainingError(f"{path} is none that the check wrote; move it away, or give another --out")


def _write(files: dict[Path, str]) -> None:
    parts = {path: path.with_name(path.name + ".part") for path in files}
    try:
        for path, text in files.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            parts[path].write_text(text, encoding="utf-8")
        for path, part in parts.items():
            part.replace(path)
    except OSError as error:
        raise TrainingError(
            f"{next(iter(files)).parent} cannot be written ({error.strerror}); give another --out"
        ) from error
    finally:
        for part in parts.values():
            if part.exists():
                part.unlink()
