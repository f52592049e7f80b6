"""Whether one engine answers as another does, and which is quicker: asked before either is used."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sonoloop.errors import ModelError
from sonoloop.imaging.grey import frame_from_array
from sonoloop.imaging.phantom import phantom
from sonoloop.models.engines import Engine
from sonoloop.models.engines.unprompted import Unprompted
from sonoloop.models.predictor import Predictor
from sonoloop.values import CLASSES, Frame

if TYPE_CHECKING:
    from sonoloop.models.bundle import Bundle

# how far the mean Dice and the class probabilities may be from the reference's
MAX_DICE = 0.002
MAX_CLASSES = 0.02
# frames that a new graph is tried on, which takes seconds
MOST_CASES = 60
_SIDE = 256
_ROUNDS = 5

Case = tuple[Frame, NDArray[np.uint8]]


@dataclass(frozen=True, slots=True)
class Parity:
    """How far an engine is from the one that is right: of mean Dice, of lesions, of class probabilities."""

    dice: float
    lost: int
    classes: float
    frames: int = field(default=0, compare=False)

    @property
    def holds(self) -> bool:
        """Whether the engine may be used; NaN may not."""
        return self.dice <= MAX_DICE and self.lost == 0 and self.classes <= MAX_CLASSES

    def __str__(self) -> str:
        return (
            f"mean Dice differs by {self.dice:.4f}, {self.lost} lesions are lost, class probabilities differ "
            f"by {self.classes:.4f}"
        )

    def figures(self) -> dict[str, Any]:
        """Return it as a part of a card's metrics, whose name is `sonoloop.models.card.PARITY`."""
        apart = {"dice_apart": self.dice, "lesions_lost": self.lost, "classes_apart": self.classes}
        told = {name: {"value": round(value, 6), "n": self.frames} for name, value in apart.items()}
        return {"images": self.frames, **told}


def compare(engine: Engine, reference: Engine, cases: Sequence[Case]) -> Parity:
    """Compare an engine with one that is right, on frames whose lesions are known."""
    frames = [frame for frame, _ in cases]
    # one that takes prompts is asked without: with one it was tried when its graph was made
    both = (Unprompted(each) if each.card.spec.takes_prompts else each for each in (engine, reference))
    mine, theirs = (Predictor(each, views=1).predict_batch(frames) for each in both)
    dices = [
        [_dice(made.mask, truth) for made, (_, truth) in zip(some, cases, strict=True)]
        for some in (mine, theirs)
    ]
    lost = sum(_count_lost(one.mask, other.mask) for one, other in zip(mine, theirs, strict=True))
    apart = [np.abs(one.classes - other.classes).mean() for one, other in zip(mine, theirs, strict=True)]
    return Parity(
        abs(float(np.mean(dices[0]) - np.mean(dices[1]))), lost, float(np.mean(apart)), frames=len(frames)
    )


def check_graph_answers(graph: bytes, bundle: Bundle, cases: Sequence[Case] = ()) -> Parity:
    """Refuse a graph that answers otherwise than its network does in torch, in float32, on the CPU.

    Without frames whose lesions are known it is tried on simulated ones.
    """
    from sonoloop.models.engines.onnx import OnnxEngine  # noqa: PLC0415 - engines are loaded when asked for
    from sonoloop.models.engines.torch import TorchEngine  # noqa: PLC0415 - as above

    engines = OnnxEngine(bundle.card, graph), TorchEngine(bundle, "cpu", "float32")
    parity = compare(*engines, cases or simulated_cases())
    if not parity.holds:
        raise ModelError(f"on {parity.frames} frames the graph answers otherwise than torch: {parity}")
    return parity


def simulated_cases(seeds: int = 2) -> list[Case]:
    """Make frames that are there everywhere, of each class."""
    made = [phantom(kind, seed=seed, shape=(_SIDE, _SIDE)) for kind in CLASSES for seed in range(seeds)]
    return [(frame_from_array(each.image, name=f"phantom {n}"), each.mask) for n, each in enumerate(made)]


def time_engines(engines: Sequence[Engine]) -> list[float]:
    """Take the time of one image in each, in seconds: by turns, since other programs run too."""
    spec = engines[0].card.spec
    images = np.zeros((1, spec.channels, spec.size, spec.size), np.float32)
    least = [float("inf")] * len(engines)
    # the first round warms up
    for number in range(_ROUNDS + 1):
        for place, engine in enumerate(engines):
            prepared = engine.upload(engine.put(images))
            start = time.perf_counter()
            engine.run(prepared)
            if number:
                least[place] = min(least[place], time.perf_counter() - start)
    return least


def _count_lost(mask: NDArray[np.uint8], reference: NDArray[np.uint8]) -> int:
    """Count the lesions of the reference of which a mask has no pixel."""
    found = set(np.unique(reference[mask > 0]).tolist())
    return len(set(np.unique(reference).tolist()) - found - {0})


def _dice(mask: NDArray[np.uint8], truth: NDArray[np.uint8]) -> float:
    one, other = mask > 0, truth > 0
    total = int(one.sum() + other.sum())
    return 1.0 if not total else float(2 * (one & other).sum() / total)
