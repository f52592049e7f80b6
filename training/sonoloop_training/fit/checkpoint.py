"""A training between two epochs, on disk."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins.precision import Precision

from sonoloop.atomic import sweep, whole, write_whole
from sonoloop.crash_points import crash_here
from sonoloop.errors import TrainingError
from sonoloop.jobs.events import EpochDone
from sonoloop_training.fit.devices import is_device_fault
from sonoloop_training.fit.fitting import Fitting
from sonoloop_training.fit.recipe import Recipe, parse_recipe

# what of a `Fitting` is neither a network nor an optimiser
_PLAIN = ("epoch", "epochs", "source", "best", "best_score", "best_epoch")
_STATES = {"network", "optimizer", "average", "scaling"}
_HELD = {"recipe", "learns_from", "precision", "history", *_STATES, *_PLAIN}


class OtherTrainingError(TrainingError):
    """A checkpoint is of another training than the one that is to go on; `what` says in what it differs."""

    def __init__(self, message: str, *, what: str) -> None:
        super().__init__(message)
        self.what = what


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """The file of one training, and what it has to agree with."""

    path: Path
    # a checkpoint of another one is refused
    recipe: Recipe
    # hash of the images that train; a checkpoint of others is refused: their test images may have trained
    learns_from: str
    # in what the network computes, and how the loss is scaled for that; in another precision the numbers
    # would not be those of one run
    plugin: Precision
    # takes the figures of each epoch, a JSON object a line, for people to look at
    history: Path

    @property
    def precision(self) -> str:
        """The precision by Lightning's name, such as "32-true"."""
        return str(self.plugin.precision)

    def save(self, fitting: Fitting) -> None:
        """Write everything an epoch's boundary holds, atomically, then the history."""
        state = {
            "recipe": self.recipe.to_dict(),
            "learns_from": self.learns_from,
            "precision": self.precision,
            "network": fitting.network.state_dict(),
            "optimizer": fitting.optimizer.state_dict(),
            "average": fitting.average.state_dict(),
            "scaling": self.plugin.state_dict(),
            "history": fitting.entries,
        } | {name: getattr(fitting, name) for name in _PLAIN}
        self._check_finite(state["network"] | state["average"], fitting.epoch)
        try:
            # what a process that was killed left; not when resuming, which every process of a run does
            sweep(self.path)
            with whole(self.path) as temporary, temporary.open("wb") as file:
                torch.save(state, file)
                crash_here("checkpoint-half-written")
        except (OSError, RuntimeError) as error:
            if isinstance(error, RuntimeError) and is_device_fault(error):
                raise
            # torch's writer hides a full disk behind an error of its own
            cause = error.__context__ if isinstance(error.__context__, OSError) else error
            kept = (
                "the checkpoint of the epoch before is kept" if fitting.epoch else "nothing was learned yet"
            )
            raise TrainingError(
                f"{self.path} cannot be written ({cause}); {kept}: make room on the disk and run the same "
                "command again"
            ) from error
        self.write_history(fitting)

    def write_history(self, fitting: Fitting) -> None:
        """Write the figures of all epochs that are in the checkpoint; no file where there are none."""
        if not fitting.history:
            return
        try:
            write_whole(self.history, "".join(json.dumps(entry) + "\n" for entry in fitting.entries))
        except OSError as error:
            raise TrainingError(
                f"{self.history} cannot be written ({error.strerror}); epoch {fitting.epoch} is kept in "
                f"{self.path.name}: make room on the disk and run the same command again"
            ) from error

    def resume(self, fitting: Fitting) -> bool:
        """Go on from the file where there is one; whether there was.

        One in which nothing was learned yet binds nobody: a training that differs begins anew.
        """
        if not self.path.is_file():
            return False
        state = read_checkpoint(self.path)
        wrong = {
            "was made with another recipe": not _is_of(state["recipe"], self.recipe),
            "learned from other data or another split, so images it trained on could be tested": (
                state["learns_from"] != self.learns_from
            ),
            f"was computed in {state['precision']}, this run in {self.precision}": (
                state["precision"] != self.precision
            ),
        }
        for what, is_so in wrong.items():
            if is_so and not state["epoch"]:
                return False
            if is_so:
                raise OtherTrainingError(
                    f"{self.path} {what}; give another --out, or delete it to start anew", what=what
                )
        fitting.network.load_state_dict(state["network"])
        fitting.optimizer.load_state_dict(state["optimizer"])
        fitting.average.load_state_dict(state["average"])
        self.plugin.load_state_dict(state["scaling"])
        for name in _PLAIN:
            setattr(fitting, name, state[name])
        fitting.history = [EpochDone(**epoch) for epoch in state["history"]]
        return True

    def _check_finite(self, weights: Mapping[str, torch.Tensor], epoch: int) -> None:
        bad = [name for name, value in weights.items() if not value.isfinite().all()]
        if bad:
            raise TrainingError(
                f"after epoch {epoch} weights are NaN or infinite, the first in {bad[0]}; {self.path.name} "
                "is left as it was: lower fit.learning_rate"
            )


def read_checkpoint(path: Path, *, mapped: bool = False) -> Mapping[str, Any]:
    """Read what a checkpoint holds; where it is mapped, its tensors are not read until they are used."""
    try:
        state: Mapping[str, Any] = torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
    except Exception as error:  # zip, pickle and torch each have their own for damaged files
        raise TrainingError(f"{path} is damaged ({error}); delete it to start anew") from error
    if not isinstance(state, dict) or not state.keys() >= _HELD:
        raise TrainingError(
            f"{path} is no checkpoint of this version of Sonoloop; give another --out, or delete it "
            "to start anew"
        )
    return state


def held_precision(path: Path) -> str | None:
    """Tell in which precision a checkpoint was computed, by Lightning's name; None where nothing was."""
    if not path.is_file():
        return None
    try:
        state = read_checkpoint(path, mapped=True)
    except TrainingError:  # `Checkpoint.resume` says it
        return None
    return str(state["precision"]) if state["epoch"] else None


def _is_of(stored: Mapping[str, Any], recipe: Recipe) -> bool:
    try:
        # what an earlier version did not know yet was as it is by default
        return parse_recipe(stored).to_dict() == recipe.to_dict()
    except TrainingError:
        return False
