"""What is fitted once the weights stand: temperature, threshold, smallest area, gate, expected Dice."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import isotonic_regression, minimize_scalar
from torch import nn

from sonoloop.errors import TrainingError
from sonoloop.models.bundle import Bundle
from sonoloop.models.card import Card
from sonoloop.models.postprocess import number_lesions
from sonoloop.models.predictor import Predictor
from sonoloop.models.tta import VIEWS
from sonoloop.values import CLASSES, Prediction
from sonoloop_training.evaluation.scores import Case, dice

_THRESHOLDS = (0.3, 0.35, 0.4, 0.45, 0.5, 0.55, 0.6, 0.65)
_MIN_AREAS = (0.0005, 0.001, 0.002, 0.004)
# of the lesions, at most this share may fall to the gate that clears normals
_GATED = 0.005
_BINS = 8
# what a card says before anything is fitted: nothing gated, nothing dropped
_RAW = {"normal_gate": 1.005, "min_area": 0.0, "temperature": 1.0, "agreement": {}, "foreground": {}}


def calibrate(
    card: Card,
    network: nn.Module,
    cases: Sequence[Case],
    *,
    device: str = "auto",
    on_batch: Callable[[], None] = lambda: None,
) -> Card:
    """Fit a card's numbers on validation frames.

    In turn: the temperature by likelihood; threshold and smallest area by the mean Dice over lesions; the
    gate, as the lowest probability of "normal" (from one half on) that at most one in two hundred lesions
    reaches; for each number of views the line from the mean lesion probability inside the mask to Dice,
    isotonic over equal bins.
    """
    segments = "lesion" in card.spec.heads
    if segments and not any(case.mask.any() for case in cases):
        raise TrainingError("no validation frame has a lesion, so that nothing can be fitted; give more data")
    truths = np.array([CLASSES.index(case.label) for case in cases])
    raw = dataclasses.replace(card, **_RAW)  # type: ignore[arg-type]
    predictor = Predictor(Bundle(raw, network), device=device)
    temperature = fit_temperature(_class_logits(predictor, cases, on_batch), truths)
    raw = dataclasses.replace(raw, temperature=temperature)
    if not segments:
        return raw
    predicted = _predict(Predictor(Bundle(raw, network), device=device, views=card.views), cases, on_batch)
    with_lesion = [(p, c) for p, c in zip(predicted, cases, strict=True) if c.mask.any()]
    threshold, min_area = max(
        ((t, a) for t in _THRESHOLDS for a in _MIN_AREAS),
        key=lambda pair: _mean_dice(with_lesion, *pair),
    )
    normals = np.array([p.classes[CLASSES.index("normal")] for p, _ in with_lesion])
    fitted = dataclasses.replace(
        raw, threshold=threshold, min_area=min_area, normal_gate=lowest_gate(normals, _GATED)
    )
    curves = {}
    for views in VIEWS:
        again = _predict(Predictor(Bundle(fitted, network), device=device, views=views), cases, on_batch)
        pairs = [
            (float(p.lesion[p.mask > 0].mean()), dice(p.mask > 0, c.mask))
            for p, c in zip(again, cases, strict=True)
            if p.mask.any()
        ]
        if pairs:
            curves[str(views)] = fit_line(np.array(pairs))
    return dataclasses.replace(fitted, foreground=curves)


def fit_temperature(logits: torch.Tensor, truths: NDArray[np.intp]) -> float:
    """Find the temperature that makes the mean over views most likely (Guo et al. 2017)."""

    def loss(log_temperature: float) -> float:
        probabilities = (logits / float(np.exp(log_temperature))).softmax(-1).mean(0).numpy()
        return float(-np.log(probabilities[np.arange(len(truths)), truths].clip(1e-9)).mean())

    found = minimize_scalar(loss, bounds=(-2.0, 2.0), method="bounded")
    return round(float(np.exp(found.x)), 4)


def lowest_gate(normal_probabilities: NDArray[np.floating], most: float) -> float:
    """Return the lowest gate, in steps of 0.01 from 0.5, that at most a share `most` of lesions reaches."""
    for percent in range(50, 100):
        if (normal_probabilities >= percent / 100).mean() <= most:
            return percent / 100
    return 1.0


def fit_line(pairs: NDArray[np.floating]) -> dict[str, list[float]]:
    """Fit a rising line through (foreground, Dice) pairs (N, 2): means of equal bins, made isotonic."""
    ordered = pairs[np.argsort(pairs[:, 0], kind="stable")]
    bins = [chunk.mean(0) for chunk in np.array_split(ordered, min(_BINS, len(ordered)))]
    x, y = np.array(bins).T
    rising = isotonic_regression(y).x
    return {"x": [round(float(v), 4) for v in x], "y": [round(float(v), 4) for v in rising]}


@torch.inference_mode()
def _class_logits(predictor: Predictor, cases: Sequence[Case], on_batch: Callable[[], None]) -> torch.Tensor:
    chunks = []
    for first in range(0, len(cases), 8):
        on_batch()
        chunks.append(predictor.see([case.frame for case in cases[first : first + 8]])[1].cpu())
    return torch.cat(chunks, dim=1)


def _predict(predictor: Predictor, cases: Sequence[Case], on_batch: Callable[[], None]) -> list[Prediction]:
    predictions = []
    for first in range(0, len(cases), predictor.batch):
        on_batch()
        some = cases[first : first + predictor.batch]
        predictions += predictor.predict_batch([case.frame for case in some])
    return predictions


def _mean_dice(pairs: Sequence[tuple[Prediction, Case]], threshold: float, min_area: float) -> float:
    number = functools.partial(number_lesions, threshold=threshold, min_area=min_area)
    return float(np.mean([dice(number(prediction.lesion) > 0, case.mask) for prediction, case in pairs]))
