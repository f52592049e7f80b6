"""What a fine-tuning is asked for, and its recipe."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from sonoloop.errors import TrainingError
from sonoloop_training.fit.recipe import TUNING, Recipe, read_recipe


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What a fine-tuning is asked for; see ``sonoloop finetune --help``.

    Parameters
    ----------
    store : str, optional
        The store's URL; the default one, or that of `job`, unless given.
    job : pathlib.Path, optional
        The folder to work in; one beside the store, named by the time, unless given. Where a fine-tuning
        broke off there, it is gone on with as it began: what else is given has to agree.
    snapshot : str, optional
        A snapshot's name; one is taken unless given.
    start : str, optional
        The model to start from: an id, the first digits of a version, or a bundle's folder; the model in use
        unless given.
    base_data : pathlib.Path, optional
        Folder with the data that trained it.
    recipe : str, optional
        A shipped recipe's name, or a TOML file; `sonoloop_training.fit.recipe.TUNING` unless given.
    settings : sequence of str
        What to change in the recipe; see `sonoloop_training.fit.recipe.read_recipe`.
    max_minutes : float, optional
        Time for reading and learning.
    promote, skip_missing, device, threads
        See `sonoloop.jobs.folder.Plan`.
    judged : bool
        Whether the gate judges the new model.
    who : str, optional
        Pseudonym of the person.
    """

    store: str | None = None
    job: Path | None = None
    snapshot: str | None = None
    start: str | None = None
    base_data: Path | None = None
    recipe: str | None = None
    settings: Sequence[str] = ()
    max_minutes: float | None = None
    promote: bool = False
    skip_missing: bool = False
    device: str | None = None
    threads: int | None = None
    judged: bool = True
    who: str | None = None


def read_finetune_recipe(name_or_path: str = TUNING, settings: Sequence[str] = ()) -> Recipe:
    """Read the recipe of a fine-tuning."""
    recipe = read_recipe(name_or_path, settings)
    if recipe.model != read_recipe(name_or_path).model:
        raise TrainingError("a fine-tuning has the network of the model it starts from; leave model.* out")
    if recipe.fit.start or recipe.final.epochs or recipe.fit.phantoms:
        raise TrainingError(
            "a fine-tuning starts from --from, and learns once and from corrections: leave fit.start, "
            "fit.phantoms and final.epochs as they are"
        )
    return recipe
