"""A fine-tuning from the corrections to the gate's verdict, as a generator of events."""

from __future__ import annotations

import json
from collections.abc import Callable, Generator, Iterator
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch

from sonoloop.crash_points import crash_here
from sonoloop.errors import SonoloopError, TrainingError
from sonoloop.jobs.events import Event, Failed, Finished, Job, Notice
from sonoloop.jobs.jobs import GATE, JobFolder, is_free, open_job
from sonoloop.models.bundle import Bundle
from sonoloop.models.devices import choose_device
from sonoloop.models.library import Library
from sonoloop.store import CorrectionStore
from sonoloop.store.database import describe, read_existing
from sonoloop.store.leases import lease
from sonoloop.store.looks import Look, looks
from sonoloop.store.model_registry import find_model, register
from sonoloop.store.promotions import incumbent
from sonoloop.store.settings import read_settings
from sonoloop.store.test_sets import read_test_set
from sonoloop_training.finetune.beginning import begin_job, check_same, find_store
from sonoloop_training.finetune.keeping import renewed
from sonoloop_training.finetune.learning import HISTORY, learn
from sonoloop_training.finetune.request import Request
from sonoloop_training.fit.checkpoint import OtherTrainingError
from sonoloop_training.fit.device_faults import device_watched
from sonoloop_training.fit.loop import CHECKPOINT
from sonoloop_training.gate.comparison import judge
from sonoloop_training.gate.every import score_every
from sonoloop_training.gate.promoting import promote_if_free

LEASE = "finetune"


def finetune(request: Request, *, library: Library | None = None) -> Iterator[Event]:
    """Learn from corrections, keep the model, have it judged and, if asked to, put it into use.

    Parameters
    ----------
    request : Request
        What to do.
    library : Library, optional
        Where models lie; the user's own unless given.

    Yields
    ------
    Event
        `Job`, `Selected`, those of `sonoloop_training.fit.loop.fit`, those of the gate, `Promoted` where the
        model is in use, and `Finished`. All are kept in the job's folder too.

    Raises
    ------
    LeaseError
        If another fine-tuning works on the store.
    SonoloopError
        If it cannot be done, or not go on; what is done stays, and the message says how to go on.
    """
    library = library or Library()
    who = request.who or "command line"
    job = None if request.job is None or is_free(request.job) else open_job(request.job, request.who)
    location = request.store
    if job is not None:
        location = find_store(request, job)
    read_existing(location)
    what = f"a fine-tuning by {who}" if job is None else f"the fine-tuning in {job.path.name}"
    with CorrectionStore(location) as store, lease(store, LEASE, what=what) as held:
        if job is None:
            job = begin_job(request, store, library, who)
        else:
            check_same(request, job.plan, store, library, who)
            job.plan = replace(
                job.plan,
                # it may have been moved
                store=describe(store.url),
                promote=job.plan.promote or request.promote,
                # what it says when files are gone is to try again with it
                skip_missing=job.plan.skip_missing or request.skip_missing,
            )
            if request.threads is None and job.plan.threads:
                torch.set_num_threads(job.plan.threads)
        job.begin()
        with renewed(held.renew) as check:
            heed = partial(_heed, job, check)
            yield from _kept(job, _work(job, store, library, heed, judged=request.judged), heed)


def _work(
    job: JobFolder, store: CorrectionStore, library: Library, heed: Callable[[], None], *, judged: bool
) -> Generator[Event, None, None]:
    yield Job(folder=str(job.path))
    finished = job.last("finished")
    made = None if finished is None else _find_made(str(finished["model"]), store)
    if made is None or job.bundle.exists():
        bundle = yield from learn(job, store, library, on_batch=heed)
        folder = library.add(job.bundle)
        register(
            store,
            version=bundle.version,
            model=bundle.model,
            parent=bundle.card.parent,
            snapshot=job.plan.snapshot,
            origin="tuned",
            who=job.who,
        )
        crash_here("after-register")
    else:
        bundle, folder = library.load(made), library.find(made)
    if judged and made is not None and job.last("gate") is not None:
        # asked once more, it would be one more look
        again = f"sonoloop gate {bundle.model}{' --promote' if job.plan.promote else ''}"
        yield Notice(message=f"{bundle.model} was judged already; to judge it again: {again}")
    elif judged:
        yield from _judge(job, store, library, bundle)
    # the model is made: what it could be gone on from is not needed any more
    with suppress(OSError):
        (job.path / CHECKPOINT).unlink(missing_ok=True)
    yield Finished(model=bundle.model, path=str(folder), minutes=round(_minutes(folder), 1))
    job.drop_bundle()


def _find_made(model: str, store: CorrectionStore) -> str:
    """Give the version that a finished fine-tuning made; one that was deleted since does not come back."""
    row = find_model(store, model)
    if row.is_deleted:
        raise TrainingError(
            f"the fine-tuning in that folder made {model}, which was deleted: begin a new one, without --job"
        )
    return row.version


def _minutes(folder: Path) -> float:
    history = json.loads((folder / HISTORY).read_text(encoding="utf-8"))
    return sum(float(epoch["seconds"]) for epoch in history) / 60


def _judge(
    job: JobFolder, store: CorrectionStore, library: Library, bundle: Bundle
) -> Generator[Event, None, None]:
    in_use = incumbent(store)
    if in_use is None or in_use.version == bundle.version:
        yield Notice(message=f"{bundle.model} is in use already")
        return
    device = job.plan.device
    with device_watched(choose_device(device), kept="the new model is made and kept"):
        look = _find_look(job, store, bundle.version, in_use.version)
        if look is None:
            judgement = yield from judge(
                store,
                bundle.version,
                in_use.version,
                out=job.path / GATE,
                who=job.who,
                device=device,
                library=library,
                # it may have been killed between the look and telling of it
                resumed=True,
            )
            look = judgement.look
        wanted = job.plan.promote or read_settings(store).promote == "automatic"
        if look.verdict == "promote" and wanted:
            yield promote_if_free(store, library, look, who=job.who, called=bundle.model)
        # the table of models compares them on today's test set, the old ones too
        test_set = read_test_set(store, look.test_set)
        judged = (look.candidate, look.incumbent)
        yield from score_every(store, test_set, device=device, library=library, judged=judged)


def _find_look(job: JobFolder, store: CorrectionStore, candidate: str, against: str) -> Look | None:
    """Find the look of an earlier run that broke off after it; a second one would count."""
    told = job.last("gate")
    if told is None or (told["candidate"], told["incumbent"]) != (candidate, against):
        return None
    return next((one for one in looks(store, told["test_set"]) if one.number == told["look"]), None)


def _heed(job: JobFolder, check_lease: Callable[[], None]) -> None:
    job.heed()
    check_lease()


def _kept(job: JobFolder, events: Iterator[Event], heed: Callable[[], None]) -> Iterator[Event]:
    """Keep every event in the job's folder, and how it ended; between events, heed an order to stop."""
    try:
        for event in events:
            job.log(event)
            yield event
            if not isinstance(event, Finished):
                heed()
    except SonoloopError as error:
        error.args = (f"{error}{_how_to_go_on(job, error)}", *error.args[1:])
        _log_failure(job, str(error))
        raise
    except (KeyboardInterrupt, GeneratorExit):
        _log_failure(job, "interrupted")
        raise
    except Exception as error:
        _log_failure(job, f"{type(error).__name__}: {error}")
        raise


def _log_failure(job: JobFolder, message: str) -> None:
    with suppress(TrainingError):
        job.log(Failed(error=message))


def _how_to_go_on(job: JobFolder, error: SonoloopError) -> str:
    if isinstance(error, OtherTrainingError):
        return ""
    if job.bundle.exists() or job.last("epoch_done") is not None:
        return f". What is done is kept; go on with: sonoloop finetune --job {job.path}"
    return ""
