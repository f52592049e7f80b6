"""Images through models: each is read once, predicted by all of them and scored."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from sonoloop.errors import ImageError, ModelError, TrainingError
from sonoloop.imaging.grey import check_frame
from sonoloop.jobs.events import Event, Progress, Unreadable
from sonoloop.models.predictor import Predictor
from sonoloop.values import Prediction
from sonoloop_training.datasets import Sample
from sonoloop_training.evaluation.cases_ import Case, read_case
from sonoloop_training.evaluation.scores_ import Score, score_case
from sonoloop_training.evaluation.split_list import Listed, is_other
from sonoloop_training.leaks import identify


@dataclass(slots=True, kw_only=True)
class Assessment:
    """What came out, filled image by image.

    Parameters
    ----------
    scores : list of list of Score
        One list a model, over the same images in the same order.
    listed : list of Listed
        Those images as a split lists them; empty where nobody asked.
    failures : list of tuple
        Name and reason of each image that could not be judged.
    others : list of str
        Images that were left out since a split lists another one by their name.
    """

    scores: list[list[Score]]
    listed: list[Listed] = field(default_factory=list)
    failures: list[tuple[str, str]] = field(default_factory=list)
    others: list[str] = field(default_factory=list)


def assess(
    samples: Sequence[Sample],
    predictors: Sequence[Predictor],
    *,
    identified: bool,
    stage: str,
    wanted: Mapping[str, Listed] | None = None,
) -> Generator[Event, None, Assessment]:
    """Score every image by every model; one that cannot be read is told and the others go on.

    Parameters
    ----------
    samples : sequence of Sample
        What to judge on.
    predictors : sequence of Predictor
        What is judged.
    identified : bool
        Whether to describe each image for `sonoloop_training.leaks.find_leaks`.
    stage : str
        What the progress is called.
    wanted : mapping, optional
        What a split lists by the names of the images; others of these names are left out.

    Yields
    ------
    Event
        `Progress` after each batch, `Unreadable` for each image that failed.

    Returns
    -------
    Assessment
        Scores, failures and what was left out.

    Raises
    ------
    TrainingError
        If no image could be judged.
    """
    found = Assessment(scores=[[] for _ in predictors])
    batch = max(predictor.batch for predictor in predictors)
    for first in range(0, len(samples), batch):
        cases: list[Case] = []
        for sample in samples[first : first + batch]:
            try:
                case = read_case(sample)
                name = f"{case.dataset}/{case.name}"
                if wanted is not None and is_other(case.frame, wanted.get(name)):
                    found.others.append(name)
                    continue
                check_frame(case.frame)
                cases.append(case)
            except (ImageError, TrainingError) as error:
                yield _refuse(found, f"{sample.dataset}/{sample.name}", error)
        for case, predictions in _predict(cases, predictors):
            if isinstance(predictions, ModelError):
                yield _refuse(found, f"{case.dataset}/{case.name}", predictions)
                continue
            for scores, prediction in zip(found.scores, predictions, strict=True):
                scores.append(score_case(prediction, case))
            if identified:
                found.listed.append(identify(case))
        yield Progress(stage=stage, done=min(first + batch, len(samples)), total=len(samples))
    if len(found.others) == len(samples):
        raise TrainingError(
            f"all {len(samples)} images have the names of others that the split lists, as {found.others[0]}; "
            "give the data that the split was made of, or --part all"
        )
    if not found.scores[0]:
        raise TrainingError(
            f"none of the {len(samples)} images could be judged; the first, {found.failures[0][0]}: "
            f"{found.failures[0][1]}"
        )
    return found


def _predict(
    cases: Sequence[Case], predictors: Sequence[Predictor]
) -> Iterator[tuple[Case, tuple[Prediction, ...] | ModelError]]:
    try:
        frames = [case.frame for case in cases]
        # first, so that nothing is given before all models have answered
        answers = [predictor.predict_batch(frames) for predictor in predictors]
    except ModelError as error:  # too little memory, even for one image
        if len(cases) == 1:
            yield cases[0], error
            return
        for case in cases:
            yield from _predict([case], predictors)
        return
    yield from zip(cases, zip(*answers, strict=True), strict=True)


def _refuse(found: Assessment, name: str, error: Exception) -> Unreadable:
    found.failures.append((name, str(error)))
    return Unreadable(image=name, error=str(error))
