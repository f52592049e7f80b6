"""A fine-tuning from the corrections to the gate's verdict, as a generator of events."""

from __future__ import annotations

import json
from collections.abc import Callable, Generator, Iterator
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
from sqlalchemy import URL

from sonoloop.crash_points import crash_here
from sonoloop.errors import SonoloopError, TrainingError
from sonoloop.jobs.events import EpochDone, Event, Finished, Gate, Job, Notice, failure
from sonoloop.jobs.folder import GATE, JOBS, JobFolder, Plan, create_job, is_free, name_job, open_job
from sonoloop.jobs.request import DEFAULT_WHO, FinetuneRequest, asked_of, values_of
from sonoloop.models.bundle import Bundle
from sonoloop.models.card import DEFAULT, read_card, shipped_card
from sonoloop.models.devices import choose_device
from sonoloop.models.library import Library, bundle_folder
from sonoloop.project import begin_with_shipped
from sonoloop.store import CorrectionStore
from sonoloop.store.database import describe, is_file, read_existing, read_location
from sonoloop.store.file_index import work_folder
from sonoloop.store.leases import lease, renewed
from sonoloop.store.model_registry import find_model, list_models, register
from sonoloop.store.promotions import incumbent
from sonoloop.store.settings import read_settings
from sonoloop.store.snapshots import read_snapshot, take_snapshot
from sonoloop.store.test_sets import Evaluation, evaluations, read_test_set
from sonoloop_training.datasets.registry import check_folder
from sonoloop_training.finetune.learn import HISTORY, learn
from sonoloop_training.fit.checkpoint import OtherTrainingError
from sonoloop_training.fit.devices import device_watched, settle_precision
from sonoloop_training.fit.loop import CHECKPOINT
from sonoloop_training.fit.recipe import TUNING, Recipe, parse_recipe, read_recipe
from sonoloop_training.gate.comparison import judge, promote_if_free
from sonoloop_training.gate.scoring import score_every


def find_store(request: FinetuneRequest, job: JobFolder) -> str:
    """Give the store that a fine-tuning began with, as it was named now or then.

    A file that is not where it was may have been moved: then the one that is named now is taken, and
    `check_same` sees by the snapshot whether it is the same.
    """
    began = job.plan.store
    if request.store is None:
        if "://" in began:
            raise TrainingError(
                f"the corrections of the fine-tuning in {job.path} are in {began}: give it with --store"
            )
        return began
    here, there = read_location(request.store), read_location(began)
    moved = is_file(here) and is_file(there) and _is_gone(there) and bool(job.plan.snapshot_sha256)
    if not _is_same(here, there) and not moved:
        raise TrainingError(
            f"the fine-tuning in {job.path} began with another --store, {began}, and not {describe(here)}: "
            "give that one to go on, or another --job to begin anew"
        )
    return request.store


def _is_same(here: URL, there: URL) -> bool:
    if is_file(here) and is_file(there):
        return Path(str(here.database)).resolve() == Path(str(there.database)).resolve()
    # what is kept has no password
    return here._replace(password=None) == there._replace(password=None)


def _is_gone(url: URL) -> bool:
    try:
        return not Path(str(url.database)).exists()
    except OSError:  # in a folder that is closed to us
        return False


def read_finetune_recipe(request: FinetuneRequest) -> Recipe:
    """Read the recipe of a fine-tuning."""
    name = request.recipe_name or TUNING
    recipe = read_recipe(name, request.settings)
    if recipe.model != read_recipe(name).model:
        raise TrainingError("a fine-tuning has the network of the model it starts from; leave model.* out")
    if recipe.fit.start or recipe.final.epochs or recipe.fit.phantoms:
        raise TrainingError(
            "a fine-tuning starts from --from, and learns once and from corrections: leave fit.start, "
            "fit.phantoms and final.epochs as they are"
        )
    return recipe


def begin_job(request: FinetuneRequest, store: CorrectionStore, library: Library, who: str) -> JobFolder:
    """Settle what was asked for, take the snapshot, and make the folder."""
    recipe = read_finetune_recipe(request)
    device = request.device or "auto"
    precision = settle_precision(recipe.fit, device)
    recipe = replace(recipe, fit=replace(recipe.fit, precision=precision))
    if request.base_data is not None:
        check_folder(request.base_data)
    base = _find_base(request.start, store, library, who)
    # before a snapshot is taken: a model that cannot be used is told first
    library.load(base)
    snapshot = (
        take_snapshot(store, who=who) if request.snapshot is None else read_snapshot(store, request.snapshot)
    )
    crash_here("after-snapshot")
    settled = {
        "store": describe(store.url),
        "job": None,  # where the plan itself lies
        "snapshot": snapshot.name,
        "snapshot_sha256": snapshot.sha256,
        "base": base,
        "base_data": _absolute(request.base_data),
        "recipe": recipe.to_dict(),
        "device": device,
        "threads": torch.get_num_threads(),
    }
    plan = Plan(**{**values_of(request), **settled})
    return create_job(request.job or work_folder(store.url) / JOBS / name_job(), plan, who)


def check_same(
    request: FinetuneRequest, plan: Plan, store: CorrectionStore, library: Library, who: str
) -> None:
    """Refuse to go on with something else than what was begun."""
    request = replace(request, base_data=_absolute(request.base_data))
    differs = {
        asked.option.flag: getattr(request, asked.name) not in (None, getattr(plan, asked.name))
        for asked in asked_of(FinetuneRequest)
        if asked.option.settled
    }
    start = request.start
    differs["--from"] = start is not None and _find_base(start, store, library, who) != plan.base
    if request.recipe_name is not None or request.settings:
        recipe = read_finetune_recipe(request)
        if recipe.fit.precision == "auto":
            recipe = replace(recipe, fit=replace(recipe.fit, precision=plan.recipe["fit"]["precision"]))
        differs["--set" if request.recipe_name is None else "--recipe or --set"] = (
            parse_recipe(plan.recipe) != recipe
        )
    sha256 = plan.snapshot_sha256
    if sha256 and read_snapshot(store, plan.snapshot).sha256 != sha256:
        raise TrainingError(
            f"{plan.snapshot} in {describe(store.url)} is another snapshot than the one that the fine-tuning "
            "in that folder began with: put that store back to go on, or give another --job to begin anew"
        )
    others = [option for option, is_so in differs.items() if is_so]
    if others:
        raise TrainingError(
            f"the fine-tuning in that folder began with another {', '.join(others)}: leave it out to go on, "
            "or give another --job to begin anew"
        )


def _absolute(folder: Path | None) -> Path | None:
    return None if folder is None else folder.absolute()


def _find_base(start: str | None, store: CorrectionStore, library: Library, who: str) -> str:
    """Give the version to start from; what the store does not know yet is added to it."""
    in_use = begin_with_shipped(store, library, who=who)
    if start is None:
        return in_use.version
    if start == DEFAULT:
        start = shipped_card().version
    if any(row.version.startswith(start) or row.model.startswith(start) for row in list_models(store)):
        return find_model(store, start).version
    card = read_card(library.import_(bundle_folder(start)))
    register(store, version=card.version, model=card.model, origin="imported", who=who, parent=card.parent)
    return card.version


LEASE = "finetune"


def finetune(request: FinetuneRequest, *, library: Library | None = None) -> Iterator[Event]:
    """Learn from corrections, keep the model, have it judged and, if asked to, put it into use."""
    library = library or Library()
    who = request.who or DEFAULT_WHO
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
    finished = job.last(Finished)
    made = None if finished is None else _find_made(finished.model, store)
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
    if judged and made is not None and job.last(Gate) is not None:
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
            look = judgement.evaluation
        wanted = job.plan.promote or read_settings(store).promote == "automatic"
        if look.verdict == "promote" and wanted:
            yield promote_if_free(store, library, look, who=job.who, called=bundle.model)
        # the table of models compares them on today's test set, the old ones too
        test_set = read_test_set(store, look.test_set)
        judged = (look.candidate, look.incumbent)
        yield from score_every(store, test_set, device=device, library=library, judged=judged)


def _find_look(job: JobFolder, store: CorrectionStore, candidate: str, against: str) -> Evaluation | None:
    """Find the look of an earlier run that broke off after it; a second one would count."""
    told = job.last(Gate)
    if told is None or (told.candidate, told.incumbent) != (candidate, against):
        return None
    return next((one for one in evaluations(store, told.test_set) if one.number == told.look), None)


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
    except BaseException as error:
        if isinstance(error, SonoloopError):
            error.args = (f"{error}{_how_to_go_on(job, error)}", *error.args[1:])
        with suppress(TrainingError):
            job.log(failure(error))
        raise


def _how_to_go_on(job: JobFolder, error: SonoloopError) -> str:
    if isinstance(error, OtherTrainingError):
        return ""
    if job.bundle.exists() or job.last(EpochDone) is not None:
        return f". What is done is kept; go on with: sonoloop finetune --job {job.path}"
    return ""
