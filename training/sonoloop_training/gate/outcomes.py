"""What the gate knows of a model on one frame."""

from __future__ import annotations

from dataclasses import dataclass

from sonoloop_training.evaluation.scores_ import Score


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How a model did on one frame.

    Parameters
    ----------
    frame : str
        Which; unique within a test set.
    group : str
        Patient, or near-duplicates.
    label : str
        The class: the reference standard where one is recorded, else the reader's; "unsure" counts for no
        class.
    lesion : bool
        Whether there is one.
    dice : float
        Of the predicted mask, in [0, 1]; without a lesion 1 where none was predicted, else 0.
    claimed : bool
        Whether the predicted mask holds a pixel.
    malignant : float
        Probability of malignant against benign, in [0, 1].
    """

    frame: str
    group: str
    label: str
    lesion: bool
    dice: float
    claimed: bool
    malignant: float


def to_outcome(score: Score) -> Outcome:
    """Keep of a score what the gate asks."""
    return Outcome(
        frame=score.key,
        group=score.group,
        label=score.label,
        lesion=score.lesion,
        dice=score.dice,
        claimed=score.claimed,
        malignant=score.malignant,
    )
