"""A fine-tuning from the corrections to the gate's verdict, as a generator of events."""

from __future__ import annotations

import json
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from sonoloop.crash_points import crash_here
from sonoloop.errors import SonoloopError, StoreError, TrainingError
from sonoloop.labels import CorrectionStore
from sonoloop.labels.leases import lease
from sonoloop.labels.location import describe
from sonoloop.labels.places import work_folder
from sonoloop.labels.pointer import ensure_incumbent, incumbent, promote
from sonoloop.labels.settings import read_settings
from sonoloop.labels.snapshots import read_snapshot, take_snapshot
from sonoloop.labels.versions import find_model, list_models, register
from sonoloop.models.bundle import Bundle
from sonoloop.models.card import read_card
from sonoloop.models.library import Library
from sonoloop.models.places import DEFAULT, shipped_card
from sonoloop.models.registry import bundle_folder
from sonoloop_training.events import Event, Failed, Finished, Job, Notice, Promoted
from sonoloop_training.fabric import settle_precision
from sonoloop_training.finetune.jobs import GATE, JobFolder, Plan, create_job, is_free, name_job, open_job
from sonoloop_training.finetune.keeping import renewed
from sonoloop_training.finetune.learning import HISTORY, learn
from sonoloop_training.gate.judge import judge
from sonoloop_training.loop import CHECKPOINT
from sonoloop_training.recipe import Recipe, parse_recipe, read_recipe

RECIPE = "finetune"
LEASE = "finetune"


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What a fine-tuning is asked for; see ``sonoloop finetune --help``.

    Parameters
    ----------
    store : str, optional
        The store's URL; the default one, or that of `job`, unless given.
    job : pathlib.Path, optional
        The folder to work in; one beside the store, named by the time, unless given. Where a fine-tuning
        broke off there, it is gone on with as it began: what else is given has to agree.
    snapshot : str, optional
        A snapshot's name; one is taken unless given.
    start : str, optional
        The model to start from: an id, the first digits of a version, or a bundle's folder; the model in use
        unless given.
    base_data : pathlib.Path, optional
        Folder with the data that trained it.
    recipe : str, optional
        A shipped recipe's name, or a TOML file; `RECIPE` unless given.
    settings : sequence of str
        What to change in the recipe; see `sonoloop_training.recipe.read_recipe`.
    max_minutes : float, optional
        Time for reading and learning.
    promote, skip_missing, device
        See `sonoloop_training.finetune.jobs.Plan`.
    judged : bool
        Whether the gate judges the new model.
    who : str, optional
        Pseudonym of the person.
    """

    store: str | None = None
    job: Path | None = None
    snapshot: str | None = None
    start: str | None = None
    base_data: Path | None = None
    recipe: str | None = None
    settings: Sequence[str] = ()
    max_minutes: float | None = None
    promote: bool = False
    skip_missing: bool = False
    device: str | None = None
    judged: bool = True
    who: str | None = None


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
        `Job`, `Selected`, those of `sonoloop_training.loop.fit`, those of the gate, `Promoted` where the
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
    if location is None and job is not None and "://" not in job.plan.store:
        location = job.plan.store
    what = f"a fine-tuning by {who}" if job is None else f"the fine-tuning in {job.path.name}"
    with CorrectionStore(location) as store, lease(store, LEASE, what=what) as held:
        if job is None:
            job = _begin(request, store, library, who)
        else:
            _check_same(request, job.plan, store, library, who)
            job.plan = replace(job.plan, promote=job.plan.promote or request.promote)
        job.begin()
        with renewed(held.renew) as check:
            heed = partial(_heed, job, check)
            yield from _kept(job, _work(job, store, library, heed, judged=request.judged), heed)


def read_finetune_recipe(name_or_path: str = RECIPE, settings: Sequence[str] = ()) -> Recipe:
    """Read the recipe of a fine-tuning.

    Raises
    ------
    TrainingError
        If it cannot be read, or a setting changes what is not fine-tuning's to choose.
    """
    recipe = read_recipe(name_or_path, settings)
    if recipe.model != read_recipe(name_or_path).model:
        raise TrainingError("a fine-tuning has the network of the model it starts from; leave model.* out")
    if recipe.fit.start or recipe.final.epochs or recipe.fit.phantoms:
        raise TrainingError(
            "a fine-tuning starts from --from, and learns once and from corrections: leave fit.start, "
            "fit.phantoms and final.epochs as they are"
        )
    return recipe


def _begin(request: Request, store: CorrectionStore, library: Library, who: str) -> JobFolder:
    recipe = read_finetune_recipe(request.recipe or RECIPE, request.settings)
    device = request.device or "auto"
    precision = settle_precision(recipe.fit, device)
    recipe = replace(recipe, fit=replace(recipe.fit, precision=precision))
    if request.base_data is not None and not request.base_data.is_dir():
        raise TrainingError(f"there is no folder {request.base_data}; give the data that trained the model")
    base = _find_base(request.start, store, library, who)
    # before a snapshot is taken: a model that cannot be used is told first
    library.load(base)
    snapshot = (
        take_snapshot(store, who=who) if request.snapshot is None else read_snapshot(store, request.snapshot)
    )
    crash_here("after-snapshot")
    plan = Plan(
        store=describe(store.url),
        snapshot=snapshot.name,
        base=base,
        recipe=recipe.to_dict(),
        base_data="" if request.base_data is None else str(request.base_data.absolute()),
        promote=request.promote,
        skip_missing=request.skip_missing,
        max_minutes=request.max_minutes,
        device=device,
    )
    return create_job(request.job or work_folder(store.url) / "jobs" / name_job(), plan, who)


def _check_same(request: Request, plan: Plan, store: CorrectionStore, library: Library, who: str) -> None:
    """Refuse to go on with something else than what was begun."""
    differs: dict[str, bool] = {
        "--snapshot": request.snapshot not in (None, plan.snapshot),
        "--base-data": request.base_data is not None and str(request.base_data.absolute()) != plan.base_data,
        "--max-minutes": request.max_minutes not in (None, plan.max_minutes),
        "--device": request.device not in (None, plan.device),
        "--from": request.start is not None and _find_base(request.start, store, library, who) != plan.base,
    }
    if request.recipe is not None or request.settings:
        recipe = read_finetune_recipe(request.recipe or RECIPE, request.settings)
        if recipe.fit.precision == "auto":
            recipe = replace(recipe, fit=replace(recipe.fit, precision=plan.recipe["fit"]["precision"]))
        differs["--recipe or --set"] = parse_recipe(plan.recipe) != recipe
    others = [option for option, is_so in differs.items() if is_so]
    if others:
        raise TrainingError(
            f"the fine-tuning in that folder began with another {', '.join(others)}: leave it out to go on, "
            "or give another --job to begin anew"
        )


def _find_base(start: str | None, store: CorrectionStore, library: Library, who: str) -> str:
    """Give the version to start from; what the store does not know yet is added to it."""
    shipped = shipped_card()
    in_use = ensure_incumbent(store, version=shipped.version, model=shipped.model, who=who)
    if start is None:
        return in_use.version
    if start == DEFAULT:
        start = shipped.version
    if any(row.version.startswith(start) or row.model.startswith(start) for row in list_models(store)):
        return find_model(store, start).version
    card = read_card(library.add(bundle_folder(start)))
    register(store, version=card.version, model=card.model, origin="imported", who=who, parent=card.parent)
    return card.version


def _work(
    job: JobFolder, store: CorrectionStore, library: Library, heed: Callable[[], None], *, judged: bool
) -> Generator[Event, None, None]:
    yield Job(folder=str(job.path))
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
    if judged:
        yield from _judge(job, store, library, bundle)
    minutes = _minutes(job)
    # the model is made: what it could be gone on from is not needed any more
    with suppress(OSError):
        (job.path / CHECKPOINT).unlink(missing_ok=True)
    yield Finished(model=bundle.model, path=str(folder), minutes=round(minutes, 1))


def _minutes(job: JobFolder) -> float:
    history = json.loads((job.bundle / HISTORY).read_text(encoding="utf-8"))
    return sum(float(epoch["seconds"]) for epoch in history) / 60


def _judge(
    job: JobFolder, store: CorrectionStore, library: Library, bundle: Bundle
) -> Generator[Event, None, None]:
    in_use = incumbent(store)
    if in_use is None or in_use.version == bundle.version:
        yield Notice(message=f"{bundle.model} is in use already")
        return
    judgement = yield from judge(
        store,
        bundle.version,
        in_use.version,
        out=job.path / GATE,
        who=job.who,
        device=job.plan.device,
        library=library,
    )
    wanted = job.plan.promote or read_settings(store).promote == "automatic"
    if judgement.verdict.verdict != "promote" or not wanted:
        return
    library.load(bundle.version)
    try:
        promote(
            store,
            bundle.version,
            kind="gate",
            who=job.who,
            why=judgement.verdict.reason,
            look=judgement.look.number,
            expected=in_use.version,
        )
    except StoreError as error:
        yield Notice(message=f"{bundle.model} passed and is not in use: {error}")
        return
    yield Promoted(model=bundle.model, version=bundle.version)


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
        error.args = (f"{error}{_how_to_go_on(job)}", *error.args[1:])
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


def _how_to_go_on(job: JobFolder) -> str:
    if job.bundle.exists() or (job.path / CHECKPOINT).exists():
        return f". What is done is kept; go on with: sonoloop finetune --job {job.path}"
    return ""
