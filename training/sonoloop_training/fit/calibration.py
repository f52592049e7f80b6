"""What is fitted once the weights stand: temperature, threshold, smallest area, gate, expected Dice."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import isotonic_regression, minimize_scalar

from sonoloop.errors import TrainingError
from sonoloop.models.card import Card
from sonoloop.models.postprocess import number_lesions
from sonoloop.models.predictor import Predictor
from sonoloop.models.tta import VIEWS, average_classes
from sonoloop.values import CLASSES
from sonoloop_training.evaluation.scores import Case, dice

if TYPE_CHECKING:
    from torch import nn

THRESHOLDS = (0.3, 0.35, 0.4, 0.45, 0.5, 0.55, 0.6, 0.65)
MIN_AREAS = (0.0005, 0.001, 0.002, 0.004)
# no probability reaches it
UNGATED = 1.005
# of the lesions found, at most this share may fall to the gate that clears normals
_GATED = 0.005
_BINS = 8
# what a card says before anything is fitted: nothing gated, nothing dropped
_RAW = {"normal_gate": UNGATED, "min_area": 0.0, "temperature": 1.0, "agreement": {}, "foreground": {}}
# no network that learned a class is so sure against it, in every view of every frame
_NEVER = -50.0
_NORMAL = CLASSES.index("normal")

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
OnBatch = Callable[[], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Numbers:
    """The numbers of a card that turn a network's answer into a mask and probabilities; see `Card`."""

    threshold: float
    min_area: float
    normal_gate: float
    temperature: float

    @classmethod
    def of(cls, card: Card) -> Self:
        """Give those of a card."""
        return cls(**{field.name: getattr(card, field.name) for field in dataclasses.fields(cls)})


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Answers:
    """What a network answers to N frames, before any number of its card applies, and what is true of them.

    `dice` and `claimed` tell for each of T thresholds and A smallest areas how good the mask would be, and
    whether it would hold a pixel, were nothing gated.
    """

    # class logits of each view, (V, N, 3)
    logits: Floats
    # (N, T, A)
    dice: Floats
    claimed: Bools
    thresholds: tuple[float, ...]
    min_areas: tuple[float, ...]
    # index into `CLASSES`; -1 where nobody knows
    truth: NDArray[np.intp]
    lesion: Bools
    groups: NDArray[np.str_]

    def __len__(self) -> int:
        return len(self.truth)

    def select(self, which: Bools) -> Answers:
        """Keep the frames for which `which` (N,) is true."""
        rows = {name: getattr(self, name)[which] for name in ("dice", "claimed", "truth", "lesion", "groups")}
        return replace(self, logits=self.logits[:, which], **rows)

    @classmethod
    def join(cls, parts: Sequence[Answers]) -> Answers:
        """Put answers to several frames behind one another; what was tried is the same."""
        names = ("dice", "claimed", "truth", "lesion", "groups")
        rows: dict[str, Any] = {
            name: np.concatenate([getattr(part, name) for part in parts]) for name in names
        }
        logits = np.concatenate([part.logits for part in parts], axis=1)
        return replace(parts[0], logits=logits, **rows)

    def probabilities(self, temperature: float) -> Floats:
        """Give the class probabilities (N, 3) at a temperature."""
        return np.asarray(average_classes(self.logits, temperature), np.float64)

    def masks(self, numbers: Numbers) -> tuple[Floats, Bools]:
        """Give Dice (N,) of the masks that the numbers make, and whether each holds a pixel."""
        place = self.thresholds.index(numbers.threshold), self.min_areas.index(numbers.min_area)
        gated = self.probabilities(numbers.temperature)[:, _NORMAL] >= numbers.normal_gate
        # an empty mask is right where there is no lesion
        return np.where(gated, ~self.lesion, self.dice[:, *place]), self.claimed[:, *place] & ~gated


def ask(
    predictor: Predictor,
    cases: Sequence[Case],
    *,
    beside: Numbers | None = None,
    on_batch: OnBatch = lambda: None,
) -> Answers:
    """Ask a model of frames whose truth is known; no number of its card counts.

    The thresholds and smallest areas that are tried are this module's, and those of `beside`.
    """
    thresholds = tuple(sorted({*THRESHOLDS, *([] if beside is None else [beside.threshold])}))
    areas = tuple(sorted({*MIN_AREAS, *([] if beside is None else [beside.min_area])}))
    tried = [(t, a) for t in thresholds for a in areas]
    logits, found, claimed = [], [], []
    for first in range(0, len(cases), predictor.batch):
        on_batch()
        some = cases[first : first + predictor.batch]
        maps, classes = predictor.see([case.frame for case in some])
        logits.append(predictor.engine.fetch(classes))
        for case, mean in zip(some, predictor.engine.fetch(maps.mean(0)), strict=True):
            lesion = predictor.on_grid(case.frame, mean)
            masks = [number_lesions(lesion, threshold=t, min_area=a) > 0 for t, a in tried]
            found.append([dice(mask, case.mask) for mask in masks])
            claimed.append([mask.any() for mask in masks])
    shape = (len(cases), len(thresholds), len(areas))
    return Answers(
        logits=np.concatenate(logits, axis=1).astype(np.float64),
        dice=np.array(found, np.float64).reshape(shape),
        claimed=np.array(claimed, np.bool_).reshape(shape),
        thresholds=thresholds,
        min_areas=areas,
        truth=np.array([CLASSES.index(c.label) if c.label in CLASSES else -1 for c in cases], np.intp),
        lesion=np.array([case.mask.any() for case in cases], np.bool_),
        groups=np.array([case.group for case in cases], np.str_),
    )


def calibrate(
    card: Card,
    network: nn.Module,
    cases: Sequence[Case],
    *,
    device: str = "auto",
    on_batch: OnBatch = lambda: None,
) -> Card:
    """Fit a card's numbers on validation frames; see `fit_numbers`.

    And for each number of views the line from the mean lesion probability inside a mask to its Dice.
    """
    from sonoloop.models.bundle import Bundle  # noqa: PLC0415 - imports torch, which the rest does without

    predictor = Predictor(Bundle(card, network), device=device)
    if "lesion" not in card.spec.heads:
        temperature = fit_temperature([ask(predictor, cases, on_batch=on_batch)])
        return replace(card, **_RAW | {"temperature": temperature})  # type: ignore[arg-type]
    if not any(case.mask.any() for case in cases):
        raise TrainingError("no validation frame has a lesion, so that nothing can be fitted; give more data")
    numbers = fit_numbers([ask(predictor, cases, on_batch=on_batch)])
    fitted = replace(card, **_RAW | dataclasses.asdict(numbers))  # type: ignore[arg-type]
    bundle = Bundle(fitted, network)
    seen = {
        views: see_foregrounds(Predictor(bundle, device=device, views=views), cases, on_batch)
        for views in VIEWS
    }
    lines = {str(views): fit_line(np.array(pairs)) for views, pairs in seen.items() if pairs}
    return replace(fitted, foreground=lines)


def fit_numbers(sites: Sequence[Answers]) -> Numbers:
    """Fit the numbers on the answers at one hospital or several, each of which counts the same.

    In turn: the temperature by likelihood; threshold and smallest area by the mean Dice over lesions; the
    gate, as the lowest probability of "normal" (from one half on) that at most one in two hundred of the
    lesions reaches that the mask finds, at any of the hospitals.
    """
    threshold, min_area = fit_threshold(sites)
    numbers = Numbers(
        threshold=threshold, min_area=min_area, normal_gate=UNGATED, temperature=fit_temperature(sites)
    )
    gates = [lowest_gate(normal, _GATED) for site in sites if len(normal := normal_of_found(site, numbers))]
    return replace(numbers, normal_gate=max(gates, default=UNGATED))


def normal_of_found(answers: Answers, numbers: Numbers) -> Floats:
    """Give the probability of "normal" of each frame whose lesion the mask finds, were nothing gated.

    A lesion whose mask lies elsewhere is lost with a gate or without.
    """
    found, _ = answers.masks(replace(numbers, normal_gate=UNGATED))
    return answers.probabilities(numbers.temperature)[answers.lesion & (found > 0), _NORMAL]


def fit_threshold(sites: Sequence[Answers]) -> tuple[float, float]:
    """Give the threshold and the smallest area with the highest mean Dice over lesions."""
    means = np.mean([site.dice[site.lesion].mean(0) for site in sites if site.lesion.any()], axis=0)
    first = sites[0]
    pairs = [(t, a) for t in range(len(first.thresholds)) for a in range(len(first.min_areas))]
    best_t, best_a = max(pairs, key=lambda pair: float(means[pair]))
    return first.thresholds[best_t], first.min_areas[best_a]


def fit_temperature(sites: Sequence[Answers]) -> float:
    """Find the temperature that makes the mean over views most likely (Guo et al. 2017)."""
    known = [site.select((site.truth >= 0) & _is_told(site)) for site in sites]
    found = minimize_scalar(
        lambda log: np.mean([unlikelihood(site, float(np.exp(log))).mean() for site in known if len(site)]),
        bounds=(-2.0, 2.0),
        method="bounded",
    )
    return round(float(np.exp(found.x)), 4)


def _is_told(answers: Answers) -> Bools:
    """Whether the model can say each frame's class at all: a user's own may know nothing of normals, (N,)."""
    return np.asarray(answers.logits.max((0, 1), initial=_NEVER)[answers.truth] > _NEVER)


def unlikelihood(answers: Answers, temperature: float) -> Floats:
    """Give the negative log likelihood of each frame's class, which is known, (N,)."""
    probabilities = answers.probabilities(temperature)
    return np.asarray(-np.log(probabilities[np.arange(len(answers)), answers.truth].clip(1e-9)))


def lowest_gate(normal_probabilities: NDArray[np.floating], most: float) -> float:
    """Return the lowest gate, in steps of 0.01 from 0.5, that at most a share `most` of lesions reaches."""
    for percent in range(50, 100):
        if (normal_probabilities >= percent / 100).mean() <= most:
            return percent / 100
    return 1.0


def see_foregrounds(
    predictor: Predictor, cases: Sequence[Case], on_batch: OnBatch = lambda: None
) -> list[tuple[float, float]]:
    """Give of each mask that is not empty the mean lesion probability inside it, and its Dice."""
    pairs = []
    for first in range(0, len(cases), predictor.batch):
        on_batch()
        some = cases[first : first + predictor.batch]
        for prediction, case in zip(predictor.predict_batch([c.frame for c in some]), some, strict=True):
            mask = prediction.mask > 0
            if mask.any():
                pairs.append((float(prediction.lesion[mask].mean()), dice(mask, case.mask)))
    return pairs


def fit_line(pairs: NDArray[np.floating]) -> dict[str, list[float]]:
    """Fit a rising line through (foreground, Dice) pairs (N, 2): means of equal bins, made isotonic."""
    ordered = pairs[np.argsort(pairs[:, 0], kind="stable")]
    bins = [chunk.mean(0) for chunk in np.array_split(ordered, min(_BINS, len(ordered)))]
    x, y = np.array(bins).T
    rising = isotonic_regression(y).x
    return {"x": [round(float(v), 4) for v in x], "y": [round(float(v), 4) for v in rising]}
