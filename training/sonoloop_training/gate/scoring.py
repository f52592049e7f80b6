"""How models do on a test set: predicted once, and kept in the store."""

from __future__ import annotations

from collections.abc import Callable, Collection, Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sonoloop.errors import ImageError, ModelError, TrainingError
from sonoloop.imaging.grey import check_frame
from sonoloop.jobs.events import Event, Notice, Progress, Unreadable
from sonoloop.models.library import Library
from sonoloop.models.predictor import Predictor
from sonoloop.store.corrections import CorrectionStore
from sonoloop.store.file_index import Places, reread
from sonoloop.store.metrics import FrameScore
from sonoloop.store.model_registry import find_model, list_models
from sonoloop.store.revisions import read_revision, select_revisions
from sonoloop.store.tables import REVISIONS
from sonoloop.store.test_sets import TestFrame, TestSet, note_known, read_scores, scores_on, write_scores
from sonoloop.values import Frame, Prediction
from sonoloop_training.evaluation.scores import dice
from sonoloop_training.gate.decision import Outcome
from sonoloop_training.leakage import find_relatives, find_trained, read_known
from sonoloop_training.membership import SPLIT

_SHORT = 8


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Judged:
    """A frame that judges, with its pixels.

    Parameters
    ----------
    judge : TestFrame
        Which, and the correction that counts as true.
    frame : Frame
        What a model sees.
    mask : numpy.ndarray
        Its lesions, bool (H, W).
    label : str
        Its class.
    """

    judge: TestFrame
    frame: Frame
    mask: NDArray[np.bool_]
    label: str


def read_judged(store: CorrectionStore, places: Places, judge: TestFrame) -> Judged:
    """Read a frame that judges, and make sure that it is the one that was corrected."""
    with store.reading() as connection:
        row = connection.execute(select_revisions().where(REVISIONS.c.id == judge.revision_id)).one()
    revision = read_revision(row)
    if revision.withdrawn:
        raise TrainingError("it was withdrawn")
    place, correction = places.find(judge.frame_id), revision.correction
    if place is None or not place.path.is_file():
        raise TrainingError(
            "its file is not on this machine; say where it is with: sonoloop store relink FOLDER"
        )
    try:
        frame = check_frame(reread(place, correction.pixels_hash))
    except ImageError as error:
        raise TrainingError(str(error).replace(place.path.name, "its file")) from error
    return Judged(
        judge=judge, frame=frame, mask=correction.mask > 0, label=judge.reference or correction.label
    )


def as_outcome(score: FrameScore) -> Outcome:
    """Keep of a stored score what the gate asks."""
    return Outcome(
        frame=score.frame,
        group=score.group,
        label=score.label,
        lesion=score.lesion,
        dice=score.dice,
        claimed=score.claimed,
        malignant=score.malignant,
    )


def short(frame_id: str) -> str:
    """Give the digits by which a frame is named before people."""
    return frame_id[:_SHORT]


@dataclass(frozen=True, slots=True, kw_only=True)
class Scored:
    """How one model did.

    Parameters
    ----------
    version : str
        Of the model.
    outcomes : dict
        By the frame's id; those of the test set that are known or could be predicted.
    """

    version: str
    outcomes: dict[str, Outcome]


def load_predictor(
    library: Library,
    version: str,
    model: str,
    device: str,
    *,
    on_notice: Callable[[str], None] | None = None,
) -> Predictor:
    """Load a model that can judge or be judged here."""
    bundle = library.load(version)
    if "lesion" not in bundle.card.spec.heads:
        raise TrainingError(f"{model} predicts classes and no mask: the gate cannot judge it")
    return Predictor(bundle, device=device, on_notice=on_notice)


def score_models(
    store: CorrectionStore,
    test_set: TestSet,
    versions: Sequence[str],
    *,
    device: str = "auto",
    library: Library | None = None,
    trained: Mapping[str, Collection[str]] | None = None,
) -> Generator[Event, None, list[Scored]]:
    """Score models on a test set; what was scored before is read, and nothing is a look.

    Which frames a model knows is noted anew beside its scores: a patient's number may have come since.

    Each batch is kept as soon as it is there, so that little is lost if the process ends.
    """
    library, places = library or Library(), Places(store.url)
    told: set[str] = set()
    found = []
    for version in versions:
        known = read_scores(store, version)
        missing = [judge for judge in test_set.members if judge.revision_id not in known]
        model = find_model(store, version).model
        taught: Collection[str] | None = (trained or {}).get(version)
        if missing:
            notices: list[str] = []
            predictor = load_predictor(library, version, model, device, on_notice=notices.append)
            if taught is None:
                taught = yield from _find_trained(store, test_set, version, model, library)
            stage = f"Judging {model}"
            yield Progress(stage=stage, done=0, total=len(missing))
            for first in range(0, len(missing), predictor.batch):
                some = missing[first : first + predictor.batch]
                batch, refused = _read_some(store, places, some)
                yield from (event for event in refused if event.image not in told)
                told |= {event.image for event in refused}
                predictions = predictor.predict_batch([one.frame for one in batch])
                scores = {
                    one.judge.revision_id: _score(one, prediction, known=one.judge.group_id in taught)
                    for one, prediction in zip(batch, predictions, strict=True)
                }
                write_scores(store, version, scores)
                yield Progress(stage=stage, done=min(first + len(some), len(missing)), total=len(missing))
            for text in notices:
                yield Notice(message=text)
        elif taught is None:
            taught = _find_again(store, test_set, version, library, known)
        note_known(store, version, {one.revision_id: one.group_id in taught for one in test_set.members})
        # read back: another process may have been quicker, and all looks are at the same figures
        scored = scores_on(store, test_set, [version])[version]
        outcomes = {frame: as_outcome(score) for frame, score in scored.items()}
        found.append(Scored(version=version, outcomes=outcomes))
    return found


def _read_some(
    store: CorrectionStore, places: Places, judges: Iterable[TestFrame]
) -> tuple[list[Judged], list[Unreadable]]:
    read: list[Judged] = []
    refused: list[Unreadable] = []
    for judge in judges:
        try:
            read.append(read_judged(store, places, judge))
        except TrainingError as error:
            refused.append(Unreadable(image=short(judge.frame_id), error=str(error)))
    return read, refused


def _find_trained(
    store: CorrectionStore, test_set: TestSet, version: str, model: str, library: Library
) -> Generator[Event, None, set[str]]:
    """Find the groups that trained the model, to keep beside its scores; the gate tells of them itself."""
    group_of = {judge.frame_id: judge.group_id for judge in test_set.members}
    steps = find_trained(store, test_set, version, model, library)
    while True:
        try:
            event = next(steps)
        except StopIteration as end:
            return {group_of[leak.image] for leak in end.value}
        if isinstance(event, Progress):
            yield event


def _find_again(
    store: CorrectionStore,
    test_set: TestSet,
    version: str,
    library: Library,
    scores: Mapping[str, FrameScore],
) -> set[str]:
    """Find again the groups that trained a model; its list says the same, and who is whose may be news."""
    noted = {one.group_id for one in test_set.members if scores[one.revision_id].known}
    folder = library.versions().get(version)
    if folder is None or not (folder / SPLIT).is_file():
        return noted
    group_of = {judge.frame_id: judge.group_id for judge in test_set.members}
    leaks = find_relatives(store, test_set, read_known(folder / SPLIT))
    return noted | {group_of[leak.image] for leak in leaks}


def _score(one: Judged, prediction: Prediction, *, known: bool) -> FrameScore:
    predicted = np.asarray(prediction.mask > 0)
    _, benign, malignant = (float(p) for p in prediction.classes)
    return FrameScore(
        frame=one.judge.frame_id,
        group=one.judge.group_id,
        label=one.label,
        lesion=bool(one.mask.any()),
        dice=dice(predicted, one.mask),
        claimed=bool(predicted.any()),
        malignant=malignant / max(malignant + benign, 1e-9),
        predicted=prediction.label,
        expected_dice=float(prediction.expected_dice),
        known=known,
    )


def score_every(
    store: CorrectionStore,
    test_set: TestSet,
    *,
    device: str,
    library: Library,
    judged: Collection[str] = (),
) -> Generator[Event, None, int]:
    """Score every model that was not deleted; what was scored before is read, and nothing is a look."""
    scored = 0
    here, told = library.versions(), set[str]()
    for row in list_models(store):
        if row.is_deleted or row.version in judged or (judged and row.version not in here):
            continue
        try:
            for event in score_models(store, test_set, [row.version], device=device, library=library):
                if isinstance(event, Unreadable):
                    if judged or event.image in told:
                        continue
                    told.add(event.image)
                yield event
            scored += 1
        except (ModelError, TrainingError) as error:
            yield Notice(message=f"{row.model} is not scored: {error}")
    return scored
