"""How a fine-tuning begins, and whether one that broke off is the one that is to go on."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch
from sqlalchemy import URL

from sonoloop.crash_points import crash_here
from sonoloop.errors import TrainingError
from sonoloop.jobs.jobs import JobFolder, Plan, create_job, name_job
from sonoloop.models.card import read_card
from sonoloop.models.library import Library
from sonoloop.models.places import DEFAULT, shipped_card
from sonoloop.models.registry import bundle_folder
from sonoloop.store import CorrectionStore
from sonoloop.store.database import describe, is_file, read_location
from sonoloop.store.file_index import work_folder
from sonoloop.store.model_registry import find_model, list_models, register
from sonoloop.store.promotions import ensure_incumbent
from sonoloop.store.snapshots import read_snapshot, take_snapshot
from sonoloop_training.finetune.request import Request, read_finetune_recipe
from sonoloop_training.fit.devices import settle_precision
from sonoloop_training.fit.recipe_ import TUNING, parse_recipe


def find_store(request: Request, job: JobFolder) -> str:
    """Give the store that a fine-tuning began with, as it was named now or then.

    A file that is not where it was may have been moved: then the one that is named now is taken, and
    `check_same` sees by the snapshot whether it is the same.

    Raises
    ------
    TrainingError
        If another one is named, or its password is not known.
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


def begin_job(request: Request, store: CorrectionStore, library: Library, who: str) -> JobFolder:
    """Settle what was asked for, take the snapshot, and make the folder.

    Raises
    ------
    SonoloopError
        If it cannot be done; nothing was made then.
    """
    recipe = read_finetune_recipe(request.recipe or TUNING, request.settings)
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
        snapshot_sha256=snapshot.sha256,
        base=base,
        recipe=recipe.to_dict(),
        base_data="" if request.base_data is None else str(request.base_data.absolute()),
        promote=request.promote,
        skip_missing=request.skip_missing,
        max_minutes=request.max_minutes,
        device=device,
        threads=torch.get_num_threads(),
    )
    return create_job(request.job or work_folder(store.url) / "jobs" / name_job(), plan, who)


def check_same(request: Request, plan: Plan, store: CorrectionStore, library: Library, who: str) -> None:
    """Refuse to go on with something else than what was begun.

    Raises
    ------
    TrainingError
        If something differs; the options are named.
    """
    differs: dict[str, bool] = {
        "--snapshot": request.snapshot not in (None, plan.snapshot),
        "--base-data": request.base_data is not None and str(request.base_data.absolute()) != plan.base_data,
        "--max-minutes": request.max_minutes not in (None, plan.max_minutes),
        "--device": request.device not in (None, plan.device),
        "--from": request.start is not None and _find_base(request.start, store, library, who) != plan.base,
    }
    if request.recipe is not None or request.settings:
        recipe = read_finetune_recipe(request.recipe or TUNING, request.settings)
        if recipe.fit.precision == "auto":
            recipe = replace(recipe, fit=replace(recipe.fit, precision=plan.recipe["fit"]["precision"]))
        differs["--set" if request.recipe is None else "--recipe or --set"] = (
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
    card = read_card(library.import_(bundle_folder(start)))
    register(store, version=card.version, model=card.model, origin="imported", who=who, parent=card.parent)
    return card.version
