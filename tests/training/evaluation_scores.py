"""Scores without a model: one to change, and many at random."""

from __future__ import annotations

import numpy as np

from sonoloop.values import CLASSES
from sonoloop_training.evaluation.scores import Distances, LesionCounts, Score


def a_score(**changes: object) -> Score:
    """A benign lesion that was found and named."""
    values = {
        "group": "g",
        "dataset": "busi",
        "label": "benign",
        "lesion": True,
        "dice": 0.8,
        "iou": 2 / 3,
        "claimed": True,
        "predicted": "benign",
        "probabilities": (0.1, 0.7, 0.2),
        "expected_dice": 0.7,
        "area": 0.05,
        "predicted_area": 0.05,
        "foreground": 0.9,
        "counts": LesionCounts(lesions=1, found=1, false_positives=0),
        "pixels": Distances(hd95=4.0, assd=2.0, nsd=0.9),
        "millimetres": None,
        "name": "a",
    }
    return Score(**(values | changes))


def random_scores(count: int, *, seed: int = 0, members: int = 2) -> list[Score]:
    """Scores of a model that is right more often than not, `members` images a group."""
    rng = np.random.default_rng(seed)
    scores = []
    for number in range(count):
        label = CLASSES[rng.choice(3, p=(0.2, 0.5, 0.3))]
        logits = rng.normal(0, 1, 3) + 1.5 * (np.array(CLASSES) == label)
        probabilities = np.exp(logits) / np.exp(logits).sum()
        lesion = label != "normal"
        dice = float(rng.choice([0.0, rng.uniform(0.3, 1)], p=(0.1, 0.9))) if lesion else 0.0
        scores.append(
            a_score(
                name=str(number),
                group=f"g{number // members}",
                dataset=("busi", "busbra")[number % 2],
                label=label,
                lesion=lesion,
                dice=dice,
                iou=dice / (2 - dice),
                claimed=bool(rng.random() < 0.9),
                predicted=CLASSES[int(probabilities.argmax())],
                probabilities=tuple(map(float, probabilities)),
                expected_dice=round(float(rng.random()), 1),
                area=float(rng.uniform(0.01, 0.2)) if lesion else 0.0,
                predicted_area=float(rng.uniform(0.01, 0.2)),
                foreground=float(rng.uniform(0.5, 1)),
                counts=LesionCounts(
                    lesions=int(lesion), found=int(dice > 0), false_positives=int(rng.random() < 0.2)
                ),
                pixels=Distances(hd95=float(rng.uniform(0, 40)), assd=3.0, nsd=0.5) if lesion else None,
                scanner=("", "GE")[number % 2],
                overlay=(None, True, False)[number % 3],
            )
        )
    return scores
