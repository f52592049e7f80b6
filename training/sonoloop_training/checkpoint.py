"""A training between two epochs, on disk."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel

from sonoloop.errors import TrainingError
from sonoloop.models.spec import build_network
from sonoloop_training.recipe import Recipe

CHECKPOINT = "checkpoint.pt"


@dataclass(slots=True, eq=False)
class Fitting:
    """What a training consists of between two epochs; all of it is in the checkpoint."""

    network: nn.Module
    optimizer: torch.optim.Optimizer
    schedule: torch.optim.lr_scheduler.LRScheduler
    ema: AveragedModel
    epoch: int = 0
    weights_source: str = "random"


def save_checkpoint(fitting: Fitting, path: Path, recipe: Recipe, *, learns_from: str) -> None:
    """Write everything an epoch's boundary holds, atomically."""
    state = {
        "recipe": recipe.to_dict(),
        "learns_from": learns_from,
        "network": fitting.network.state_dict(),
        "optimizer": fitting.optimizer.state_dict(),
        "schedule": fitting.schedule.state_dict(),
        "ema": fitting.ema.state_dict(),
        "epoch": fitting.epoch,
        "weights_source": fitting.weights_source,
    }
    temporary = path.with_suffix(".tmp")
    with temporary.open("wb") as file:
        torch.save(state, file)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def resume(fitting: Fitting, path: Path, recipe: Recipe, *, learns_from: str) -> None:
    """Go on from a checkpoint.

    Raises
    ------
    TrainingError
        If it is of another recipe, or learned from another split.
    """
    state = torch.load(path, map_location="cpu", weights_only=True)
    if state["recipe"] != recipe.to_dict():
        raise TrainingError(
            f"{path} was made with another recipe; give another --out, or delete it to start anew"
        )
    if state["learns_from"] != learns_from:
        raise TrainingError(
            f"{path} learned from other data or another split, so images it trained on could be tested; "
            "give another --out, or delete it to start anew"
        )
    fitting.network.load_state_dict(state["network"])
    fitting.optimizer.load_state_dict(state["optimizer"])
    fitting.schedule.load_state_dict(state["schedule"])
    fitting.ema.load_state_dict(state["ema"])
    fitting.epoch, fitting.weights_source = state["epoch"], state["weights_source"]


def load_averaged(recipe: Recipe, path: Path) -> tuple[nn.Module, str]:
    """Read the averaged network out of a checkpoint, and where its first weights came from."""
    state = torch.load(path, map_location="cpu", weights_only=True)
    network = build_network(recipe.model)
    network.load_state_dict(
        {
            key.removeprefix("module."): value
            for key, value in state["ema"].items()
            if key.startswith("module.")
        }
    )
    return network.eval(), state["weights_source"]
