"""A fine-tuning that is killed at any point leaves the model in use, a whole store, and no half model."""

from __future__ import annotations

import json
import os
import random
import signal
import time
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest
from corrected import Project, copy_project, make_project, tune_in_process

from forked import start_forked
from sonoloop.crash_points import POINTS, VARIABLE, crash_here
from sonoloop.jobs.folder import open_job
from sonoloop.models.library import Library
from sonoloop.store import CorrectionStore
from sonoloop.store.model_registry import list_models
from sonoloop.store.promotions import incumbent

# one stands for all where time is short; that a stopped one goes on is seen in test_finetune_resume too
QUICK = ("before-promote",)
# these lie in the gate itself; elsewhere a verdict that is given takes its place
OF_THE_GATE = ("before-look", "after-look")


@pytest.fixture(scope="module")
def template(tmp_path_factory) -> Project:
    return make_project(tmp_path_factory.mktemp("project"), train=6, test=4)


@pytest.fixture
def project(template, tmp_path) -> Project:
    return copy_project(template, tmp_path)


def start(
    project: Project, *more: object, crash: str | None = None, verdict: str | None = "promote"
) -> BaseProcess:
    """Start a fine-tuning as a process, which loads torch only once."""
    arguments = ["--store", str(project.url), "--threads", "1", "--promote"]
    if "--job" not in more:
        for setting in (
            "steps=4",
            "epochs=2",
            "batch=4",
            "graph=false",
            "precision=float32",
            "learning_rate=0.003",
        ):
            arguments += ["--set", setting]
    environment = {"XDG_DATA_HOME": str(project.library.folder.parents[1]), VARIABLE: crash or ""}
    return start_forked(tune_in_process, [*arguments, *map(str, more)], environment, verdict)


def end(process: BaseProcess) -> int | None:
    process.join(120)
    return process.exitcode


def check_whole(project: Project) -> str:
    """See that store and library are whole, and give the version in use, which can be loaded."""
    with CorrectionStore(project.url) as store:
        assert store.verify() == []
        in_use = incumbent(store).version
        known = [row.version for row in list_models(store)]
    library = Library(project.library.folder)
    for version in library.versions():
        assert library.load(version).version == version
    # what the store knows can be loaded
    for version in known:
        assert library.load(version)
    assert in_use in known
    return in_use


def jobs(project: Project) -> list[Path]:
    folder = project.url.with_suffix(".sonoloop") / "jobs"
    return sorted(folder.iterdir()) if folder.is_dir() else []


def last_event(folder: Path) -> dict:
    return json.loads((folder / "events.jsonl").read_text().splitlines()[-1])


@pytest.fixture(scope="module")
def whole(template, tmp_path_factory) -> str:
    """The model that a fine-tuning makes which nobody disturbs."""
    project = copy_project(template, tmp_path_factory.mktemp("whole"))
    assert end(start(project)) == 0
    assert check_whole(project) != project.base.version
    return last_event(jobs(project)[0])["model"]


@pytest.mark.parametrize(
    "point", [p if p in QUICK else pytest.param(p, marks=pytest.mark.slow) for p in POINTS]
)
def test_a_kill_at_a_named_point_loses_nothing(project, whole, point):
    verdict = None if point in OF_THE_GATE else "promote"
    assert end(start(project, crash=point, verdict=verdict)) == -signal.SIGKILL
    in_use = check_whole(project)
    assert (in_use != project.base.version) == (point == "after-promote")
    for folder in jobs(project):
        # going on with it ends in the model that it would have become
        assert open_job(folder)
        assert end(start(project, "--job", folder)) == 0
        assert last_event(folder)["model"] == whole
        check_whole(project)
    # a new one works too, whoever held the lease
    assert end(start(project, "--set", "seed=1")) == 0
    last = jobs(project)[-1]
    assert last_event(last)["event"] == "finished"
    check_whole(project)
    assert len(jobs(project)) == (1 if point == "after-snapshot" else 2)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_twenty_kills_at_random_moments_lose_nothing(project, whole):
    rng = random.Random(0)
    begun = time.monotonic()
    assert end(start(project, "--set", "seed=99")) == 0
    seconds = time.monotonic() - begun
    killed = 0
    while killed < 20:
        process = start(project)
        process.join(rng.uniform(0.02, 1.0) * seconds)
        if process.exitcode is None:
            os.kill(process.pid, signal.SIGKILL)
            process.join()
            killed += 1
        check_whole(project)
    for folder in jobs(project)[-3:]:
        assert end(start(project, "--job", folder)) == 0
    check_whole(project)


def test_a_point_that_nobody_passes_is_an_error():
    assert len(POINTS) == 21
    with pytest.raises(ValueError, match="there is no crash point 'after-lunch'"):
        crash_here("after-lunch")


def test_a_point_does_nothing_unless_it_is_named(monkeypatch):
    monkeypatch.delenv(VARIABLE, raising=False)
    for point in POINTS:
        crash_here(point)
    monkeypatch.setenv(VARIABLE, "after-look")
    crash_here("before-look")
