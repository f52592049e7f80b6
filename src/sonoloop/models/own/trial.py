"""A bundle of a user's network, tried on simulated images: what it answers has to be an answer."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sonoloop.imaging.grey import frame_from_array, to_unit
from sonoloop.imaging.phantom import phantom
from sonoloop.models.card import GRAPH, Card
from sonoloop.models.engines import first_line
from sonoloop.models.engines.onnx import OnnxEngine
from sonoloop.models.own.description import NONE, SIGMOID, SOFTMAX, Description
from sonoloop.models.own.own_file import named_faults
from sonoloop.models.predictor import Predictor
from sonoloop.models.preprocess import Letterbox, normalise
from sonoloop.values import CLASSES

_SIZE = 256
# of probabilities: of one image and of the same image among others, and beside 0 and 1
_MAX_APART, _ROUNDING = 0.01, 0.001
_ROUNDS = 3
_ALMOST_ALL = 0.9
# of the classes' probabilities together; of outputs that are each a sigmoid it is not 1
_LEAST_SUM = 0.01

# lesion probability and class logits
Answer = tuple[NDArray[np.float32], NDArray[np.float32]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """What a model made of simulated images."""

    # of one image, on this machine
    seconds: float
    # for each class of image the share of it that is masked, and the class probabilities
    answers: tuple[tuple[str, float, tuple[float, ...]], ...]
    notes: tuple[str, ...]


def try_card(folder: Path, card: Card, description: Description, name: str) -> Trial:
    """Run a bundle's graph on simulated images; what it answers has to be an answer."""
    graph = (folder / GRAPH).read_bytes()
    with named_faults(name):
        engine = OnnxEngine(card, graph)
        # of one size, whatever the network's: a large one takes long to simulate
        shown = [phantom(label, seed=1, shape=(_SIZE, _SIZE)) for label in CLASSES]
        predictor = Predictor(engine, views=1)
        box = Letterbox(_SIZE, _SIZE, card.spec.size)
        squares = [box.apply(to_unit(each.image)) for each in shown]
        images = np.asarray(normalise(np.stack(squares)[:, None]), np.float32)
        single, seconds = [], float("inf")
        for number in range(_ROUNDS):
            start = time.perf_counter()
            single.append(_run(engine, images[number : number + 1]))
            seconds = min(seconds, time.perf_counter() - start)
        _check_answers(card, single)
        if description.classes is not None and description.classes.activation == NONE:
            _check_probabilities(single)
        _check_batch(engine, images, single)
    answers = []
    for each in shown:
        made = predictor.predict(frame_from_array(each.image, name=f"a {each.label} phantom"))
        answers.append((each.label, float((made.mask > 0).mean()), tuple(map(float, made.classes))))
    return Trial(seconds=seconds, answers=tuple(answers), notes=tuple(_find_notes(card, answers, single)))


def _run(engine: OnnxEngine, images: NDArray[np.float32]) -> Answer:
    try:
        return engine.run(images)
    except Exception as error:  # ONNX Runtime's exceptions have no base of their own
        side = images.shape[-1]
        raise ValueError(
            f"it cannot compute a simulated image of {side} x {side} pixels ({first_line(error)}); is size "
            "that of its training?"
        ) from error


def _check_answers(card: Card, answers: Sequence[Answer]) -> None:
    size = card.spec.size
    for lesion, classes in answers:
        shapes = [tuple(lesion.shape), tuple(classes.shape)]
        if shapes != [(1, 1, size, size), (1, len(CLASSES))]:
            raise ValueError(
                f"it answers one image in the shapes {shapes}; do [lesion] and [classes] fit it?"
            )
        if not (np.isfinite(lesion).all() and np.isfinite(classes).all()):
            raise ValueError("it answers a simulated image with NaN or infinity; are its weights whole?")
        low, high = float(lesion.min()), float(lesion.max())
        if low < -_ROUNDING or high > 1 + _ROUNDING:
            raise ValueError(
                f"its answer for the lesion goes from {low:.3g} to {high:.3g} and is no probability; set "
                f"[lesion] activation to {SIGMOID} or {SOFTMAX}"
            )


def _check_probabilities(answers: Sequence[Answer]) -> None:
    """Refuse an answer for the classes that was said to be probabilities, and is none."""
    told = np.exp(np.concatenate([classes for _, classes in answers]))
    if told.max() > 1 + _ROUNDING or told.sum(axis=1).min() < _LEAST_SUM:
        raise ValueError(
            "its answer for the classes is below 0 or above 1 and is no probability; set [classes] "
            f"activation to {SOFTMAX}, or to {SIGMOID} where it is one number"
        )


def _check_batch(engine: OnnxEngine, images: NDArray[np.float32], single: Sequence[Answer]) -> None:
    """Refuse a network that computes one image at a time only, or otherwise among others."""
    advice = (
        'export it for any number of images, as with torch.onnx.export(..., dynamic_shapes={"x": {0: '
        'torch.export.Dim("batch")}}), where x is the argument of its forward'
    )
    try:
        together = engine.run(images)
    except Exception as error:  # ONNX Runtime's exceptions have no base of their own
        raise ValueError(
            f"it computes one image and not three at once ({first_line(error)}); {advice}"
        ) from error
    for part, whole in enumerate(together):
        alone = np.concatenate([answer[part] for answer in single])
        if alone.shape != whole.shape or not np.abs(alone - whole).max() <= _MAX_APART:
            raise ValueError(f"it answers an image otherwise when others are beside it; {advice}")


def _find_notes(
    card: Card,
    answers: Sequence[tuple[str, float, tuple[float, ...]]],
    single: Sequence[Answer],
) -> Iterator[str]:
    if "lesion" in card.spec.heads:
        shares = [share for _, share, _ in answers]
        if not any(shares):
            yield (
                "the mask is empty on every simulated image; are size, range, mean and std those of its "
                "training?"
            )
        elif min(shares) > _ALMOST_ALL:
            yield "the mask is almost the whole image on every simulated image; is channel the lesion's?"
        values = np.concatenate([lesion.ravel() for lesion, _ in single])
        if values.min() >= 0.49 and values.max() <= 0.74:
            yield (
                "every lesion probability is between 0.5 and 0.73, as where a sigmoid is taken twice; is "
                f"activation = {NONE}?"
            )
    else:
        yield "it tells no mask: it can be used with --model, and not as the model in use"
    if "classes" not in card.spec.heads:
        yield "it tells no classes: each is given a third"
