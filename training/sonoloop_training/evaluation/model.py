"""The model that is judged: its bundle, and what lies beside it of how it was made."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sonoloop.models.bundle import Bundle, read_bundle
from sonoloop.models.registry import bundle_folder
from sonoloop_training.evaluation.split_list import SplitList, read_split_list
from sonoloop_training.membership import SPLIT

# where a training leaves its epochs: in the bundle, or in the run's folder around it
_HISTORIES = ("history.json", "../history.jsonl")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Judged:
    """A model to evaluate.

    Parameters
    ----------
    bundle : Bundle
        The model itself.
    folder : pathlib.Path
        Where it lies.
    split : SplitList, optional
        Who trained it; None where it does not say.
    """

    bundle: Bundle
    folder: Path
    split: SplitList | None

    @property
    def leaky_by_design(self) -> bool:
        """Whether its card says that its split leaks, or that of a model that it was started from."""
        snapshot = self.bundle.card.snapshot
        recipe = snapshot.get("recipe") or {}
        return bool(snapshot.get("leaked")) or (recipe.get("split") or {}).get("method") == "leaky"


def load_judged(name_or_path: str | None, *, split: SplitList | None = None) -> Judged:
    """Load a model with its split.

    Parameters
    ----------
    name_or_path : str, optional
        See `sonoloop.models.registry.bundle_folder`.
    split : SplitList, optional
        Who trained it, where it does not say so itself.

    Raises
    ------
    ModelError
        If there is no such model, or it is damaged.
    TrainingError
        If its split cannot be read.
    """
    folder = bundle_folder(name_or_path)
    bundle = read_bundle(folder)
    own = folder / SPLIT
    # its own word first: a later fit may have trained on more than the split at hand says
    return Judged(bundle=bundle, folder=folder, split=read_split_list(own) if own.is_file() else split)


def read_history(folder: Path) -> list[dict[str, Any]]:
    """Read the epochs of the training that made a bundle, in order; empty where none are kept.

    Each has what `sonoloop.jobs.events.EpochDone` has.
    """
    for name in _HISTORIES:
        try:
            text = (folder / name).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError):
            continue
        epochs = {e["epoch"]: e for e in _entries(text) if isinstance(e.get("epoch"), int) and "dice" in e}
        if epochs:
            # a run that was gone on with tells of an epoch again
            return [epochs[number] for number in sorted(epochs)]
    return []


def _entries(text: str) -> list[dict[str, Any]]:
    try:
        values = json.loads(text)
    except ValueError:
        values = []
        for line in text.splitlines():
            try:
                values.append(json.loads(line))
            except ValueError:
                continue  # the last line of a run that was killed
    if isinstance(values, dict):
        values = [values]
    return [value for value in values if isinstance(value, dict)]
