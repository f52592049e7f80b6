"""How models do on a test set: predicted once, and kept in the store."""

from __future__ import annotations

from collections.abc import Callable, Collection, Generator, Mapping, Sequence

import numpy as np

from sonoloop.errors import ImageError, ModelError, TrainingError
from sonoloop.imaging.grey import check_frame
from sonoloop.imaging.orientation import onto_frame
from sonoloop.jobs.events import Event, Notice, Progress, Unreadable
from sonoloop.leakage import Leak
from sonoloop.models.card import read_card
from sonoloop.models.engines.auto import AUTO, open_engine
from sonoloop.models.library import Library
from sonoloop.models.manifest import SPLIT
from sonoloop.models.predictor import Predictor
from sonoloop.store.corrections import CorrectionStore
from sonoloop.store.file_index import Places, reread
from sonoloop.store.metrics import FrameScore
from sonoloop.store.model_registry import find_model, list_models
from sonoloop.store.revisions import read_revision, select_revisions
from sonoloop.store.tables import REVISIONS
from sonoloop.store.test_sets import TestFrame, TestSet, note_known, read_scores, scores_on, write_scores
from sonoloop.values import Prediction
from sonoloop_training.evaluation.scores import Case, dice, malignant_share
from sonoloop_training.leakage import find_relatives, find_trained

_SHORT = 8


def short(frame_id: str) -> str:
    """Give the digits by which a frame is named before people."""
    return frame_id[:_SHORT]


def load_predictor(
    library: Library,
    version: str,
    model: str,
    device: str,
    *,
    engine: str = "torch",
    on_notice: Callable[[str], None] | None = None,
) -> Predictor:
    """Load a model that the gate can compare."""
    folder = library.find(version)
    spec = read_card(folder).spec
    if "lesion" not in spec.heads:
        raise TrainingError(f"{model} predicts classes and no mask: the gate cannot judge it")
    if spec.takes_prompts:
        raise TrainingError(f"{model} repairs masks by clicks: the gate cannot judge it")
    if not spec.has_weights and engine == "torch":
        engine = AUTO  # torch, which judges the others, cannot run a user's own graph
    loaded = open_engine(folder, device, engine=engine, on_notice=on_notice)
    return Predictor(loaded, on_notice=on_notice)


def score_models(
    store: CorrectionStore,
    test_set: TestSet,
    versions: Sequence[str],
    *,
    device: str = "auto",
    engine: str = "torch",
    library: Library,
    trained: Mapping[str, Collection[str]] | None = None,
) -> Generator[Event, None, dict[str, dict[str, FrameScore]]]:
    """Score models on a test set: by version, then by the frame's id. What was scored before is read.

    Nothing is put on record. Each batch is kept as soon as it is there, so that little is lost if the process
    ends. Which frames a model knows is noted anew beside its scores: a patient's number may have come since.
    `trained` gives by version the groups of frames that a model knows, where that was looked up.
    """
    places = Places(store.url)
    told: set[str] = set()
    for version in versions:
        known = read_scores(store, version)
        missing = [frame for frame in test_set.members if frame.revision_id not in known]
        model = find_model(store, version).model
        groups: Collection[str] | None = (trained or {}).get(version)
        if missing:
            notices: list[str] = []
            predictor = load_predictor(
                library, version, model, device, engine=engine, on_notice=notices.append
            )
            if groups is None:
                groups = yield from _find_trained(store, test_set, version, model, library)
            stage = f"Judging {model}"
            yield Progress(stage=stage, done=0, total=len(missing))
            for first in range(0, len(missing), predictor.batch):
                some = missing[first : first + predictor.batch]
                batch: list[tuple[TestFrame, Case]] = []
                for frame in some:
                    try:
                        batch.append((frame, read_test_frame(store, places, frame)))
                    except TrainingError as error:
                        if (name := short(frame.frame_id)) not in told:
                            told.add(name)
                            yield Unreadable(image=name, error=str(error))
                predictions = predictor.predict_batch([case.frame for _, case in batch])
                scores = {
                    frame.revision_id: _score(frame, case, prediction, known=frame.group_id in groups)
                    for (frame, case), prediction in zip(batch, predictions, strict=True)
                }
                write_scores(store, version, scores)
                yield Progress(stage=stage, done=min(first + len(some), len(missing)), total=len(missing))
            for text in notices:
                yield Notice(message=text)
        elif groups is None:
            groups = _find_again(store, test_set, version, library, known)
        note_known(store, version, {one.revision_id: one.group_id in groups for one in test_set.members})
    # read back: another process may have been quicker, and all evaluations see the same figures
    return scores_on(store, test_set, versions)


def read_test_frame(store: CorrectionStore, places: Places, frame: TestFrame) -> Case:
    """Read a test frame with its truth, and make sure that it is the one that was corrected."""
    with store.reading() as connection:
        row = connection.execute(select_revisions().where(REVISIONS.c.id == frame.revision_id)).one()
    revision = read_revision(row)
    if revision.withdrawn:
        raise TrainingError("it was withdrawn")
    place, correction = places.find(frame.frame_id), revision.correction
    if place is None or not place.path.is_file():
        raise TrainingError(
            "its file is not on this machine; say where it is with: sonoloop store relink FOLDER"
        )
    try:
        pixels = check_frame(reread(place, frame.frame_id, correction.pixels_hash))
    except ImageError as error:
        raise TrainingError(str(error).replace(place.path.name, "its file")) from error
    return Case(
        frame=pixels,
        mask=onto_frame(correction.mask > 0, pixels, correction.pixels_hash),
        label=frame.reference or correction.label,
        dataset="",
        group=frame.group_id,
    )


def _score(frame: TestFrame, case: Case, prediction: Prediction, *, known: bool) -> FrameScore:
    predicted = np.asarray(prediction.mask > 0)
    return FrameScore(
        # not that of the file at hand, which may be saved anew
        frame=frame.frame_id,
        group=case.group,
        label=case.label,
        lesion=bool(case.mask.any()),
        dice=dice(predicted, case.mask),
        claimed=bool(predicted.any()),
        malignant=malignant_share(prediction.classes),
        predicted=prediction.label,
        expected_dice=float(prediction.expected_dice),
        known=known,
    )


def _find_trained(
    store: CorrectionStore, test_set: TestSet, version: str, model: str, library: Library
) -> Generator[Event, None, set[str]]:
    """Find the groups that trained the model, to keep beside its scores; the gate tells of them itself."""
    steps = find_trained(store, test_set, version, model, library)
    while True:
        try:
            event = next(steps)
        except StopIteration as end:
            return groups_of(test_set, end.value)
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
    return noted | groups_of(test_set, find_relatives(store, test_set, folder / SPLIT))


def groups_of(test_set: TestSet, leaks: Sequence[Leak]) -> set[str]:
    """Name the groups of the test frames that leak."""
    leaked = {leak.image for leak in leaks}
    return {frame.group_id for frame in test_set.members if frame.frame_id in leaked}


def score_every(
    store: CorrectionStore,
    test_set: TestSet,
    *,
    device: str,
    library: Library,
    judged: Collection[str] = (),
) -> Generator[Event, None, int]:
    """Score every model that was not deleted; what was scored before is read, nothing is put on record."""
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
