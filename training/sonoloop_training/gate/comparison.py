"""The gate: two models of a store on its test set, the evaluation on record, and what it said."""

from __future__ import annotations

from collections.abc import Collection, Generator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from sonoloop.crash_points import crash_here
from sonoloop.errors import StoreError, TrainingError
from sonoloop.jobs.events import Event, Gate, Notice, Promoted
from sonoloop.models.card import GRAPH, read_card
from sonoloop.models.library import Library
from sonoloop.store.corrections import CorrectionStore
from sonoloop.store.model_registry import LEAKED, find_model, mark
from sonoloop.store.promotions import promote
from sonoloop.store.settings import read_settings
from sonoloop.store.test_sets import Evaluation, TestSet, evaluations, freeze_test_set, record_evaluation
from sonoloop_training.gate.decision import Margins, Verdict, decide
from sonoloop_training.gate.pictures import draw_changes
from sonoloop_training.gate.scoring import groups_of, score_models, short
from sonoloop_training.leakage import find_fitted, find_trained


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """What came out, and the evaluation as it is on record."""

    # its reason tells of frames that were left out too
    verdict: Verdict
    evaluation: Evaluation
    # how often this test set was used, this time counted
    evaluations: int
    test_set: TestSet
    # paths of PNG files, by "scatter", "improved" and "harmed"; fewer where there is nothing to show
    pictures: dict[str, str]
    # ids of the frames in the last two, from the top
    changed: dict[str, list[str]]


def judge(
    store: CorrectionStore,
    candidate: str,
    incumbent: str,
    *,
    out: Path,
    who: str,
    device: str = "auto",
    library: Library,
    resumed: bool = False,
) -> Generator[Event, None, Judgement]:
    """Judge a candidate against the incumbent on today's test frames of a store.

    Frames that trained either model, or copies of such, judge neither. The evaluation is put on record, and a
    refused candidate is marked; nothing is promoted.
    """
    if candidate == incumbent:
        raise TrainingError("a model cannot be judged against itself; name another one with --against")
    names = (find_model(store, candidate).model, find_model(store, incumbent).model)
    versions = (candidate, incumbent)
    test_set = freeze_test_set(store)
    fitted, favoured = (find_fitted(store, test_set, version, library) for version in versions)
    if fitted or favoured:
        _check_other_weights(versions, names, library)
    trained = yield from _find_trained(store, test_set, versions, names, who=who, library=library)
    known = {
        frame.frame_id: model
        for version, model in zip(versions, names, strict=True)
        for frame in test_set.members
        if frame.group_id in trained[version]
    }
    flattered = [frame.frame_id for frame in test_set.members if frame.group_id in fitted - favoured]
    known = dict.fromkeys(flattered, names[0]) | known
    scores = yield from score_models(
        store, test_set, versions, device=device, library=library, trained=trained
    )
    ours, theirs = (scores[version] for version in versions)
    read = [frame.frame_id for frame in test_set.members if frame.frame_id in ours.keys() & theirs.keys()]
    kept = [frame for frame in read if frame not in known]
    pairs = ([ours[frame] for frame in kept], [theirs[frame] for frame in kept])
    verdict = decide(*pairs, _margins(store))
    missing = _describe_missing(known, unread=len(test_set.members) - len(read))
    missing += _describe_fitted(kept, test_set, names[1], favoured - fitted)
    for text in missing:
        yield Notice(message=text)
    verdict = replace(verdict, reason=" ".join([verdict.reason, *missing]))
    crash_here("before-look")
    evaluation = record_evaluation(
        store,
        test_set=test_set.number,
        candidate=candidate,
        incumbent=incumbent,
        verdict=verdict.verdict,
        reason=verdict.reason,
        figures=asdict(verdict),
        who=who,
        resumed=resumed,
    )
    crash_here("after-look")
    pictures, changed = yield from draw_changes(
        store, test_set, versions, *pairs, names=names, device=device, library=library, out=out
    )
    judgement = Judgement(
        verdict=verdict,
        evaluation=evaluation,
        evaluations=len(evaluations(store, test_set.number)),
        test_set=test_set,
        pictures=pictures,
        changed=changed,
    )
    yield _tell(judgement)
    return judgement


def _check_other_weights(versions: Sequence[str], names: Sequence[str], library: Library) -> None:
    """Refuse two models that differ in their numbers alone: these were fitted on the frames that judge."""
    cards = [read_card(library.find(version)) for version in versions]
    # a network without weights is its graph
    if len({card.weights_sha256 or card.graphs.get(GRAPH) for card in cards}) == 1:
        raise TrainingError(
            f"{names[0]} and {names[1]} have the same weights, and differ in the numbers of their cards "
            "alone: `sonoloop calibrate` compares those, out of fold"
        )


def _describe_fitted(
    kept: Sequence[str], test_set: TestSet, model: str, groups: Collection[str]
) -> list[str]:
    """Say that the numbers of the model in use were fitted on frames that judge."""
    group_of = {frame.frame_id: frame.group_id for frame in test_set.members}
    count = sum(group_of[frame] in groups for frame in kept)
    if not count:
        return []
    return [
        f"{count} frame{'' if count == 1 else 's'} fitted the threshold or gate of {model}, which favours it."
    ]


def _find_trained(
    store: CorrectionStore,
    test_set: TestSet,
    versions: Sequence[str],
    names: Sequence[str],
    *,
    who: str,
    library: Library,
) -> Generator[Event, None, dict[str, set[str]]]:
    """Find, by version, the groups of frames that a model knows; it is marked once."""
    trained: dict[str, set[str]] = {}
    for version, model in zip(versions, names, strict=True):
        leaks = yield from find_trained(store, test_set, version, model, library)
        trained[version] = groups_of(test_set, leaks)
        if leaks and LEAKED not in find_model(store, version).standing:
            first = leaks[0]
            share = f"{len(leaks)} of {len(test_set.members)} frames that judge"
            why = f"{share} trained it or fitted its numbers, such as {short(first.image)}"
            mark(store, version, LEAKED, why=f"{why} ({first.kind})", who=who)
    return trained


def _margins(store: CorrectionStore) -> Margins:
    settings = read_settings(store)
    return Margins(
        missed_malignant=settings.missed_malignant_margin,
        false_alarms=settings.false_alarm_margin,
        auc=settings.auc_margin,
    )


def _describe_missing(known: Mapping[str, str], *, unread: int) -> list[str]:
    told = []
    for model in dict.fromkeys(known.values()):
        count = sum(name == model for name in known.values())
        told.append(
            f"{count} frame{'' if count == 1 else 's'} did not judge, since {model} trained or was fitted on "
            f"{'it' if count == 1 else 'them'}, on copies or on the same patient."
        )
    if unread:
        told.append(f"{unread} frame{'' if unread == 1 else 's'} could not be read and did not judge.")
    return told


def _tell(found: Judgement) -> Gate:
    verdict = found.verdict
    sides = {name: getattr(verdict, name) for name in ("missed_malignant", "false_alarms", "auc")}
    return Gate(
        verdict=verdict.verdict,
        reason=verdict.reason,
        difference=verdict.difference,
        interval=verdict.interval,
        **{name: side.difference for name, side in sides.items()},
        sides=sides,
        groups=verdict.groups,
        frames=verdict.frames,
        groups_needed=verdict.groups_needed,
        test_set=found.test_set.number,
        look=found.evaluation.number,
        looks=found.evaluations,
        candidate=found.evaluation.candidate,
        incumbent=found.evaluation.incumbent,
        pictures=found.pictures,
        changed=found.changed,
    )


def promote_found(store: CorrectionStore, library: Library, evaluation: Evaluation, *, who: str) -> Promoted:
    """Put the candidate of an evaluation into use, its bundle verified."""
    card = library.check(evaluation.candidate)
    promote(
        store,
        card.version,
        kind="gate",
        who=who,
        why=evaluation.reason,
        look=evaluation.number,
        expected=evaluation.incumbent,
    )
    return Promoted(model=card.model, version=card.version)


def promote_if_free(
    store: CorrectionStore, library: Library, evaluation: Evaluation, *, who: str, called: str
) -> Event:
    """Do what `promote_found` does; where the project keeps its model, tell why, calling the new one so."""
    try:
        return promote_found(store, library, evaluation, who=who)
    except StoreError as error:
        return Notice(message=f"{called} passed and is not in use: {error}")
