"""How a model learns from a snapshot: what of it is read, the fit, and the new model's card."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from sonoloop.crash_points import crash_here
from sonoloop.errors import TrainingError
from sonoloop.jobs.events import EpochDone, Event, LeftOut, Notice, Selected
from sonoloop.jobs.folder import JobFolder, Plan
from sonoloop.models.bundle import Bundle, read_bundle, save_bundle
from sonoloop.models.card import Card
from sonoloop.models.devices import choose_device
from sonoloop.models.library import Library
from sonoloop.models.manifest import SPLIT, Manifest, Member, hash_listing, read_manifest
from sonoloop.models.origin import LICENCES, NOT_RECORDED, OWN, OWN_LICENCE
from sonoloop.models.predictor import Predictor
from sonoloop.store import CorrectionStore
from sonoloop.store.file_index import Places
from sonoloop.store.metrics import FrameScore, summarise_scores
from sonoloop.store.snapshots import Snapshot, read_snapshot, revisions_of
from sonoloop.values import CLASSES
from sonoloop_training.evaluation.scores import Case, dice, malignant_share
from sonoloop_training.finetune.replay import (
    choose_replay,
    count_by_dataset,
    read_replay,
    with_replay,
    without_classes,
)
from sonoloop_training.finetune.samples import (
    CorrectedSample,
    Find,
    Selection,
    check_classes,
    check_enough,
    find_missing,
    read_cases,
    read_samples,
    select,
)
from sonoloop_training.fit.batches import Cache, count_replayed
from sonoloop_training.fit.calibration import calibrate
from sonoloop_training.fit.checkpoint import OtherTrainingError
from sonoloop_training.fit.devices import device_watched
from sonoloop_training.fit.fitting import Fitting
from sonoloop_training.fit.loop import fit
from sonoloop_training.fit.recipe import FitConfig, Recipe, parse_recipe
from sonoloop_training.fit.train import as_shipped, library_versions, pick_evenly, write_graph
from sonoloop_training.leakage import TestSide, read_corrected, read_test_side

HISTORY = "history.json"
_EARLIER = "earlier corrections, or without a name"
# below this many lesions the numbers of the model started from are the better guess
LESIONS_TO_CALIBRATE = 40
# an epoch ends with a checkpoint, which costs about as much as a few steps
_FEWEST_STEPS = 8
_NOTHING_HOLDS = (
    "the images that trained this model are not at hand: it may forget some of what it knew; "
    "--base-data shows them again"
)
_BLENDED = (
    "the images that trained this model are not at hand: a share of {share:g} of its weights is kept, so "
    "that less is forgotten; --base-data shows them again"
)


def learn(
    job: JobFolder,
    store: CorrectionStore,
    library: Library,
    *,
    on_batch: Callable[[], None] = lambda: None,
) -> Generator[Event, None, Bundle]:
    """Tune a model on a snapshot; the bundle is in the job's folder.

    Where the folder holds a bundle already, that is given; where it holds a checkpoint, it is gone on from.
    """
    if job.bundle.exists():
        yield Notice(message="the model is made already; going on with what was left to do")
        return read_bundle(job.bundle)
    plan, began = job.plan, time.monotonic()
    base = library.load(plan.base)
    job.check_room(sum(tensor.numel() for tensor in base.network.state_dict().values()))
    recipe = parse_recipe(plan.recipe)
    gathered = yield from gather(plan, recipe, base, library.find(plan.base), store)
    config = held(recipe.fit, replays=bool(gathered.replayed))
    recipe = replace(recipe, model=base.card.spec, fit=replace(config, draws=gathered.draws))
    try:
        fitted = yield from fit(
            recipe,
            gathered.training,
            gathered.validation,
            out=job.path,
            learns_from=hash_listing({"base": plan.base, "gathered": gathered.sha256}),
            device=plan.device,
            test=gathered.selection.test_groups,
            start=base.network.state_dict(),
            start_name=base.model,
            max_minutes=_time_left(plan.max_minutes, began, job),
            validate_start=True,
            on_batch=on_batch,
        )
    except OtherTrainingError as error:
        raise OtherTrainingError(
            "this fine-tuning cannot be gone on with: what may be learned from is not what it was when it "
            "began, since images were withdrawn, are gone or back, or belong to those that judge by now; "
            "begin a new fine-tuning, without --job",
            what=error.what,
        ) from error
    card = _describe(recipe, base, gathered, fitted)
    network = as_shipped(card, fitted.kept)
    validation = gathered.selection.validation
    calibrates, cases = count_to_calibrate(validation) >= LESIONS_TO_CALIBRATE, []
    try:
        cases = yield from read_cases(validation, gathered.find)
    except TrainingError as error:
        if calibrates:
            raise
        yield Notice(message=f"the new model is not measured on the images that validated: {error}")
    with device_watched(choose_device(plan.device)):
        if calibrates:
            card = calibrate(card, network, cases, device=plan.device, on_batch=on_batch)
        if cases and "lesion" in card.spec.heads:
            measured = _validate(card, network, cases, plan.device, on_batch)
            card = replace(card, metrics={"validation": measured})
    beside = {
        SPLIT: gathered.members.to_json(),
        HISTORY: json.dumps(fitted.entries, indent=1).encode(),
    }
    graph, parity = yield from write_graph(recipe.fit, card, network, pick_evenly(cases))
    card = replace(card, metrics={**card.metrics, **parity})
    bundle = save_bundle(job.bundle, network, card, graph=graph, beside=beside)
    crash_here("after-bundle")
    return bundle


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Gathered:
    """What a fine-tuning learns from."""

    snapshot: Snapshot
    selection: Selection
    # what is replayed stands behind the corrections
    training: Cache
    validation: Cache | None
    # everyone who trained the new model, or validated, as ``split.json`` has it: those that trained the model
    # started from among them
    members: Manifest
    # "dataset/name" of what is replayed
    replayed: tuple[str, ...]
    # images that an epoch draws
    draws: int
    # where files are
    find: Find

    @property
    def sha256(self) -> str:
        """Hash of what is learned from, without the model started from."""
        return hash_listing(
            {
                "snapshot": self.snapshot.sha256,
                "train": list(self.training.names),
                "validation": [] if self.validation is None else list(self.validation.names),
            }
        )


def gather(
    plan: Plan, recipe: Recipe, base: Bundle, base_folder: Path, store: CorrectionStore
) -> Generator[Event, None, Gathered]:
    """Select, find, check and read."""
    known_to_base = read_manifest(base_folder / SPLIT) if (base_folder / SPLIT).is_file() else Manifest()
    seen = frozenset(key for listed in known_to_base.train for key in listed.hashes)
    snapshot = read_snapshot(store, plan.snapshot)
    test_side = read_test_side(store)
    selection = select(
        revisions_of(store, snapshot),
        recipe.fit,
        recipe.split,
        seen=seen,
        test_frames={listed.id for listed in test_side.listed},
        outsiders=test_side.outsiders,
    )
    check_enough(selection)
    find, size = Places(store.url).find, recipe.fit.size or base.card.spec.size
    missing = yield from find_missing(
        (*selection.train, *selection.validation), find, skip_missing=plan.skip_missing
    )
    selection = selection.without(missing)
    check_enough(selection)
    read = []
    for samples in (selection.train, selection.validation):
        found = yield from read_samples(
            samples,
            find,
            size=size,
            skip_changed=plan.skip_missing,
            unseen=test_side.unseen,
            is_spoilt=test_side.has_near_copy,
        )
        selection = selection.without(found.left_out)
        read.append(found)
    check_enough(selection)
    taught, validating = read
    if taught.cache is None:
        raise TrainingError("none of the corrections that are left teaches: correct more images")

    replayed, draws = yield from _replay(
        plan,
        recipe.fit,
        base_folder=base_folder,
        test_side=test_side,
        snapshot=snapshot,
        fresh=len(selection.train),
        size=size,
    )
    yield Selected(
        snapshot=snapshot.name,
        sha256=snapshot.sha256,
        base=base.model,
        train=len(selection.train) + len(selection.validation),
        by_class=selection.by_class,
        test_groups=selection.test_groups,
        left_out=[LeftOut(frame=frame, why=why) for frame, why in selection.left_out],
        replay=0 if replayed is None else len(replayed),
    )
    known = [] if replayed is None else [CLASSES[label] for label in set(replayed.labels.tolist())]
    learns_classes, notice = check_classes(selection.train, known, base.card.spec.heads)
    if notice is not None:
        yield Notice(message=notice)
    training = with_replay(taught.cache, replayed)
    return Gathered(
        snapshot=snapshot,
        selection=selection,
        training=training if learns_classes else without_classes(training),
        validation=validating.cache,
        members=Manifest(
            train=taught.members + _inherit(known_to_base.train, taught.members),
            # the numbers of the card may still be the base's
            validation=validating.members
            + _inherit(known_to_base.validation, taught.members + validating.members),
            calibration=()
            if count_to_calibrate(selection.validation) >= LESIONS_TO_CALIBRATE
            else known_to_base.calibration,
        ),
        replayed=() if replayed is None else replayed.names,
        draws=draws,
        find=find,
    )


def plan_draws(config: FitConfig, fresh: int, *, replays: bool) -> tuple[int, int]:
    """Say how many images an epoch draws, and how many are replayed over all epochs.

    Where corrections are few an epoch shows them several times, so that it is not over in a step or two.
    """
    share = config.replay if replays else 0.0
    once = fresh + round(share * fresh)
    draws = config.draws or once * max(1, -(-_FEWEST_STEPS * config.batch // once))
    if not share:
        return draws, 0
    epochs = max(config.epochs, round(config.steps / max(1, draws // config.batch)))
    return draws, count_replayed(draws, share) * epochs


def held(config: FitConfig, *, replays: bool) -> FitConfig:
    """Give what holds a model where nothing else does: a share of the weights that it started from."""
    if replays or config.l2sp or config.blend:
        return config
    return replace(config, blend=config.blend_alone)


def _replay(
    plan: Plan,
    config: FitConfig,
    *,
    base_folder: Path,
    test_side: TestSide,
    snapshot: Snapshot,
    fresh: int,
    size: int,
) -> Generator[Event, None, tuple[Cache | None, int]]:
    draws, wanted = plan_draws(config, fresh, replays=bool(plan.base_data))
    replayed: Cache | None = None
    if wanted and plan.base_data is not None:
        chosen = yield from choose_replay(
            plan.base_data,
            base_folder,
            test_side,
            config,
            corrected=read_corrected(test_side.store, snapshot),
            wanted=wanted,
            size=size,
        )
        replayed = yield from read_replay(chosen, test_side, size=size)
    if replayed is None:
        draws, _ = plan_draws(config, fresh, replays=False)
        if not (config.l2sp or config.blend):
            share = config.blend_alone
            yield Notice(message=_BLENDED.format(share=share) if share else _NOTHING_HOLDS)
    return replayed, draws


def _inherit(trained: tuple[Member, ...], members: tuple[Member, ...]) -> tuple[Member, ...]:
    known = {member.id for member in members}
    return tuple(listed for listed in trained if listed.id not in known)


def count_to_calibrate(samples: Sequence[CorrectedSample]) -> int:
    """Count the lesions that the model's numbers can be fitted on: those whose class is known."""
    return sum(sample.label is not None and bool(sample.mask.any()) for sample in samples)


def _validate(
    card: Card, network: nn.Module, cases: Sequence[Case], device: str, on_batch: Callable[[], None]
) -> dict[str, Any]:
    """Measure a model on the images that validated; they chose its epoch, so that it is flattered."""
    predictor = Predictor(Bundle(card, network), device=device)
    scores = []
    for number, case in enumerate(cases):
        on_batch()
        prediction = predictor.predict(case.frame)
        predicted = np.asarray(prediction.mask > 0)
        scores.append(
            FrameScore(
                frame=str(number),
                group=case.group,
                label=case.label,
                lesion=bool(case.mask.any()),
                dice=dice(predicted, case.mask),
                claimed=bool(predicted.any()),
                malignant=malignant_share(prediction.classes),
            )
        )
    found = summarise_scores(scores)
    named = {
        "lesion_dice": found.dice,
        "false_alarms": found.false_alarms,
        "missed_malignant": found.missed_malignant,
        "auc": found.auc,
    }
    figures = {
        name: {
            "value": round(one.value, 4),
            "ci95": None if one.low is None or one.high is None else [round(one.low, 4), round(one.high, 4)],
            "n": one.frames,
        }
        for name, one in named.items()
        if one is not None
    }
    return {**figures, "images": found.frames, "groups": found.groups}


def _count_sites(gathered: Gathered) -> dict[str, int]:
    """Count all that the model knows by where it comes from, what trained the model started from among it."""
    own = {one.frame_id for one in (*gathered.selection.train, *gathered.selection.validation)}
    counts: Counter[str] = Counter()
    for member in gathered.members.known:
        site, named, _ = member.name.partition("/")
        counts[OWN if member.id in own else site if named else _EARLIER] += 1
    return dict(counts.most_common())


def _describe_limits(base: Bundle, gathered: Gathered) -> list[str]:
    """Say what the model has not seen."""
    selection = gathered.selection
    limits = []
    lacking = [name for name in CLASSES if not selection.by_class[name]]
    if lacking:
        limits.append(f"no {' and no '.join(lacking)} image among the own corrections")
    if not selection.validation:
        limits.append("too few groups to keep any apart: not measured on images that it did not learn from")
    if not gathered.replayed:
        limits.append("the images that trained the model before were not shown again: it may know them less")
    earlier = base.card.snapshot.get("limits")
    told = [str(one) for one in earlier] if isinstance(earlier, list) else []
    return list(dict.fromkeys([*limits, "images of other scanners and sites than those listed", *told]))


def _describe(recipe: Recipe, base: Bundle, gathered: Gathered, fitted: Fitting) -> Card:
    """Write the new model's card: the base's numbers, and where it comes from."""
    selection, replay = gathered.selection, count_by_dataset(gathered.replayed)
    leaked = bool(base.card.snapshot.get("leaked"))
    sites, earlier = _count_sites(gathered), base.card.snapshot.get("licences")
    known = {**LICENCES, **(earlier if isinstance(earlier, dict) else {}), OWN: OWN_LICENCE}
    learned: dict[str, Any] = {
        "name": gathered.snapshot.name,
        "sha256": gathered.snapshot.sha256,
        "start": base.model,
        "images": {
            "train": len(selection.train),
            "validation": len(selection.validation),
            "test": 0,
            "replay": sum(replay.values()),
        },
        "by_class": selection.by_class,
        "by_site": sites,
        "licences": {site: known.get(site, NOT_RECORDED) for site in sites},
        "limits": _describe_limits(base, gathered),
        "left_out": len(selection.left_out),
        "replay": replay,
        "epochs": fitted.epoch,
        "recipe": recipe.to_dict(),
        "members_sha256": gathered.members.sha256,
        "threads": torch.get_num_threads(),
        "leaked": leaked,
    }
    try:
        return replace(
            base.card,
            name=f"{recipe.name}-leaked" if leaked else recipe.name,
            parent=base.version,
            snapshot=learned,
            # those of the model started from are not this one's
            metrics={},
            libraries=library_versions(),
        )
    except ValueError as error:
        raise TrainingError(f"no model can have the recipe's name: {error}") from error


def _time_left(minutes: float | None, began: float, job: JobFolder) -> float | None:
    """Say what is left of the time allowed; when going on, the epochs of earlier count by themselves."""
    if minutes is None:
        return None
    spent = 0.0 if job.last(EpochDone) is not None else (time.monotonic() - began) / 60
    return max(0.05, minutes - spent)
