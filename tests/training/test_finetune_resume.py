"""A fine-tuning that was stopped, failed or lost its device goes on as if it had not."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from corrected import Project, add, gate_that_says
from tuning import QUICK, only, request, tune

from sonoloop.errors import StoreError, TrainingError
from sonoloop.jobs.events import EpochDone, Event, Finished, Gate, Job, Selected, Started
from sonoloop.jobs.folder import open_job
from sonoloop.jobs.request import FinetuneRequest
from sonoloop.store import CorrectionStore
from sonoloop.store.leases import LeaseError
from sonoloop.store.model_registry import DELETED, find_model, list_models, mark
from sonoloop.store.snapshots import list_snapshots, read_snapshot
from sonoloop.store.test_sets import evaluations, freeze_test_set, read_scores
from sonoloop.store.withdrawal import withdraw
from sonoloop_training.commands import finetune as finetune_command
from sonoloop_training.finetune.run import finetune, renewed


def test_the_lease_is_kept_while_a_step_takes_long_and_its_loss_is_told():
    renewals, errors = [], [StoreError("busy"), None, LeaseError("taken")]

    def renew():
        renewals.append(1)
        error = errors.pop(0)
        if error is not None:
            raise error

    with renewed(renew, every=0.01) as check:
        until = time.monotonic() + 10
        while errors and time.monotonic() < until:
            time.sleep(0.01)
        time.sleep(0.05)
        with pytest.raises(LeaseError, match="taken"):
            check()
    # one that is busy is asked again, one that is lost is not
    assert len(renewals) == 3


def test_a_finetuning_that_lost_its_lease_ends_and_can_be_gone_on_with(project, monkeypatch):
    @contextmanager
    def lost(renew):
        def check():
            raise LeaseError("another program took it")

        yield check

    with monkeypatch.context() as patch:
        patch.setattr("sonoloop_training.finetune.run.renewed", lost)
        with pytest.raises(LeaseError, match="another program took it"):
            tune(project)
    folder = next((project.url.with_suffix(".sonoloop") / "jobs").iterdir())
    assert only(list(finetune(FinetuneRequest(job=folder, judged=False), library=project.library)), Finished)


def break_off(project: Project, *, after: type[Event], count: int = 1, **changes) -> Path:
    """Begin, and put the file that says stop after some events; gives the job's folder."""
    folder, seen = None, itertools.count(1)
    with pytest.raises(KeyboardInterrupt):
        for event in finetune(request(project, **changes), library=project.library):
            if isinstance(event, Job):
                folder = Path(event.folder)
            if isinstance(event, after) and next(seen) == count:
                (folder / "stop").touch()
    return folder


def test_a_stopped_finetuning_goes_on_to_the_same_model(project, made):
    _, whole = made
    folder = break_off(project, after=EpochDone)
    last = json.loads((folder / "events.jsonl").read_text().splitlines()[-1])
    assert last == {"event": "failed", "error": "interrupted", "kind": "interrupted"}
    assert torch.load(folder / "checkpoint.pt", weights_only=True)["epoch"] == 1
    with CorrectionStore(project.url) as store:
        assert len(list_models(store)) == 1
    events = list(finetune(FinetuneRequest(job=folder, judged=False), library=project.library))
    assert [e.epoch for e in events if isinstance(e, EpochDone)] == [2]
    assert only(events, Finished).model == only(whole, Finished).model
    assert not (folder / "stop").exists()
    # no second snapshot
    with CorrectionStore(project.url) as store:
        assert len(list_snapshots(store)) == 1


def test_a_stop_between_two_batches_is_heeded(project, monkeypatch):
    from sonoloop_training.fit import batches as steps

    real, calls = steps.make_batch, []

    def counted(*given, **named):
        calls.append(1)
        if len(calls) == 3:
            (next((project.url.with_suffix(".sonoloop") / "jobs").iterdir()) / "stop").touch()
        return real(*given, **named)

    monkeypatch.setattr(steps, "make_batch", counted)
    with pytest.raises(KeyboardInterrupt):
        tune(project)
    assert len(calls) == 3


def test_what_is_done_is_not_done_again(project, monkeypatch):
    def fails(*_, **__):
        raise TrainingError("the gate broke")
        yield

    with monkeypatch.context() as patch:
        patch.setattr("sonoloop_training.finetune.run.judge", fails)
        with pytest.raises(TrainingError) as failed:
            tune(project)
    folder = next((project.url.with_suffix(".sonoloop") / "jobs").iterdir())
    assert str(failed.value) == (
        f"the gate broke. What is done is kept; go on with: sonoloop finetune --job {folder}"
    )
    events = list(finetune(FinetuneRequest(job=folder), library=project.library))
    assert not [event for event in events if isinstance(event, Started)]
    assert only(events, Gate)
    assert only(events, Finished)
    # each look at the test set counts
    repeated = list(finetune(FinetuneRequest(job=folder), library=project.library))
    assert not [event for event in repeated if isinstance(event, Gate)]
    assert only(repeated, Finished)


def test_a_stop_after_the_verdict_costs_no_second_look(project):
    folder = break_off(project, after=Gate)
    with CorrectionStore(project.url) as store:
        assert len(evaluations(store)) == 1
    events = list(finetune(FinetuneRequest(job=folder), library=project.library))
    assert not [event for event in events if isinstance(event, Gate)]
    made = only(events, Finished).model
    with CorrectionStore(project.url) as store:
        assert len(evaluations(store)) == 1
        judged = len(freeze_test_set(store).members)
        assert len(read_scores(store, find_model(store, made).version)) == judged > 0


def test_every_model_on_this_machine_is_scored_beside_the_new_one(project, monkeypatch):
    # which scores no other than these two
    monkeypatch.setattr("sonoloop_training.finetune.run.judge", gate_that_says("refuse"))
    first = only(tune(project), Finished).model
    with CorrectionStore(project.url) as store:
        add(store, project.images, 20, role="test")
    tune(project, settings=(*QUICK, "seed=1"))
    with CorrectionStore(project.url) as store:
        judged = len(freeze_test_set(store).members)
        # neither the new one nor the one in use
        assert len(read_scores(store, find_model(store, first).version)) == judged


def test_a_model_that_was_deleted_does_not_come_back_with_its_job(project):
    events = tune(project, judged=False)
    folder, made = Path(only(events, Job).folder), only(events, Finished).model
    # the library has it; what lies elsewhere would outlive its deletion
    assert not (folder / "bundle").exists()
    again = list(finetune(FinetuneRequest(job=folder, judged=False), library=project.library))
    assert only(again, Finished).model == made
    with CorrectionStore(project.url) as store:
        version = find_model(store, made).version
        mark(store, version, DELETED, why="withdrawn", who="anna")
    project.library.delete(version)
    with pytest.raises(TrainingError, match=f"made {made}, which was deleted: begin a new one"):
        list(finetune(FinetuneRequest(job=folder), library=project.library))
    assert version not in project.library.versions()


def test_images_that_are_gone_meanwhile_are_skipped_when_told_to(project, tmp_path):
    path = project.images / "image 4.png"
    kept = path.rename(tmp_path / "away.png")
    try:
        with pytest.raises(TrainingError, match="--skip-missing"):
            tune(project)
        folder = next((project.url.with_suffix(".sonoloop") / "jobs").iterdir())
        again = FinetuneRequest(job=folder, skip_missing=True, judged=False)
        events = list(finetune(again, library=project.library))
    finally:
        kept.rename(path)
    assert only(events, Selected).train == 8


def test_it_goes_on_with_the_threads_it_began_with_unless_others_are_named(project):
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        folder = break_off(project, after=EpochDone)
        torch.set_num_threads(2)
        list(finetune(FinetuneRequest(job=folder, judged=False), library=project.library))
        assert torch.get_num_threads() == 1
        torch.set_num_threads(2)
        list(finetune(FinetuneRequest(job=folder, judged=False, threads=2), library=project.library))
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_a_lost_device_says_how_to_go_on(project, monkeypatch):
    from sonoloop_training.fit import loop as steps

    real, calls = steps.joint_loss, []

    def lost(*given):
        calls.append(1)
        if len(calls) == 12:
            raise RuntimeError("CUDA error: unspecified launch failure")
        return real(*given)

    with monkeypatch.context() as patch:
        patch.setattr(steps, "joint_loss", lost)
        with pytest.raises(TrainingError) as failed:
            tune(project)
    folder = next((project.url.with_suffix(".sonoloop") / "jobs").iterdir())
    assert "the device cpu failed (CUDA error: unspecified launch failure)" in str(failed.value)
    assert str(failed.value).endswith(f"go on with: sonoloop finetune --job {folder}")
    assert only(list(finetune(FinetuneRequest(job=folder, judged=False), library=project.library)), Finished)


def test_a_device_that_is_lost_while_judging_says_how_to_go_on(project, monkeypatch):
    def lost(*_, **__):
        raise RuntimeError("CUDA error: unspecified launch failure")
        yield

    with monkeypatch.context() as patch:
        patch.setattr("sonoloop_training.finetune.run.judge", lost)
        with pytest.raises(TrainingError) as failed:
            tune(project)
    folder = next((project.url.with_suffix(".sonoloop") / "jobs").iterdir())
    assert "the device cpu failed (CUDA error: unspecified launch failure)" in str(failed.value)
    assert "the new model is made and kept" in str(failed.value)
    assert str(failed.value).endswith(f"go on with: sonoloop finetune --job {folder}")


def test_a_device_that_is_lost_while_calibrating_says_how_to_go_on(project, monkeypatch):
    def lost(*_, **__):
        raise RuntimeError("CUDA error: unspecified launch failure")

    monkeypatch.setattr("sonoloop_training.finetune.learn.LESIONS_TO_CALIBRATE", 0)
    monkeypatch.setattr("sonoloop_training.finetune.learn.calibrate", lost)
    with pytest.raises(TrainingError, match=r"the device cpu failed .* go on with: sonoloop finetune --job"):
        tune(project)


def test_what_may_be_learned_from_changed_so_that_it_cannot_go_on(project):
    folder = break_off(project, after=EpochDone)
    with CorrectionStore(project.url) as store:
        frame = next(m.frame_id for m in read_snapshot(store, "snapshot-1").entries if m.role == "train")
        withdraw(store, frame, why="asked to", who="anna")
    with pytest.raises(TrainingError) as refused:
        list(finetune(FinetuneRequest(job=folder), library=project.library))
    assert "what may be learned from is not what it was when it began" in str(refused.value)
    assert str(refused.value).endswith("begin a new fine-tuning, without --job")


def test_a_checkpoint_says_what_was_started_from(project):
    folder = break_off(project, after=EpochDone)
    assert torch.load(folder / "checkpoint.pt", weights_only=True)["source"] == project.base.model


def test_the_command_lowers_its_priority(project, monkeypatch):
    monkeypatch.setenv("XDG_DATA_HOME", str(project.library.folder.parents[1]))
    given = []
    monkeypatch.setattr("os.nice", given.append)
    events = finetune_command(FinetuneRequest(store=str(project.url), snapshot="gone"))
    with pytest.raises(StoreError, match="there is no snapshot gone"):
        next(events)
    assert given == [10]


def test_the_precision_is_settled_when_it_begins(project, monkeypatch):
    monkeypatch.setattr("sonoloop_training.fit.devices.autocast_dtype", lambda device: None)
    events = tune(project, settings=("steps=2", "epochs=1", "batch=4", "graph=false"), judged=False)
    plan = open_job(Path(only(events, Job).folder)).plan
    assert plan.recipe["fit"]["precision"] == "float32"


@pytest.mark.slow
def test_a_reader_that_leaves_does_not_end_it(project):
    environment = os.environ | {"XDG_DATA_HOME": str(project.library.folder.parents[1])}
    arguments = ["finetune", "--store", str(project.url), "--no-gate", "--threads", "1"]
    for setting in QUICK:
        arguments += ["--set", setting]
    with subprocess.Popen(
        [sys.executable, "-m", "sonoloop_training", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment,
    ) as process:
        job = json.loads(process.stdout.readline())
        process.stdout.close()
        errors = process.stderr.read()
    assert process.returncode == 0, errors
    lines = (Path(job["folder"]) / "events.jsonl").read_text().splitlines()
    assert json.loads(lines[-1])["event"] == "finished"


def test_a_finetuning_goes_on_where_its_project_was_moved_to(project, tmp_path):
    folder = break_off(project, after=EpochDone)
    place = tmp_path / "elsewhere"
    place.mkdir()
    for name in (project.url.name, project.url.with_suffix(".sonoloop").name):
        (project.url.parent / name).rename(place / name)
    moved, job = place / project.url.name, place / folder.relative_to(project.url.parent)
    events = list(finetune(FinetuneRequest(store=str(moved), job=job, judged=False), library=project.library))
    assert only(events, Started).epoch == 1
    assert only(events, Finished)
    # from now on it is known there
    assert open_job(job).plan.store == str(moved)
