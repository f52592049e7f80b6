"""``train``: a recipe and data to a model."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

from sonoloop.errors import TrainingError
from sonoloop.jobs.events import Event

HELP = "make a model from a recipe and data"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Say what the command takes."""
    parser.add_argument("recipe", help="a shipped recipe's name, or a TOML file")
    parser.add_argument("--data", type=Path, required=True, help="folder with one dataset or several")
    parser.add_argument(
        "--out", type=Path, required=True, help="takes checkpoint and bundle; goes on where it broke off"
    )
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", dest="settings")
    parser.add_argument("--fold", type=int, help="test this fold, of the recipe's folds or of five")
    parser.add_argument("--leaky", action="store_true", help="split by image; every result is marked leaked")
    parser.add_argument("--max-minutes", type=float, help="make fewer epochs where time does not suffice")
    parser.add_argument("--show-augment", type=Path, metavar="PNG", help="only draw 32 augmented pairs")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or mps")
    parser.add_argument("--threads", type=int, help="CPU threads; all cores unless given")


def run(options: argparse.Namespace) -> Iterator[Event]:
    """Train; see `sonoloop_training.fit.train.train`."""
    import torch  # noqa: PLC0415 - after the arguments are known to be right

    from sonoloop_training.fit.recipe import read_recipe  # noqa: PLC0415

    if options.threads:
        torch.set_num_threads(options.threads)
    recipe = read_recipe(options.recipe, settings_of(options))
    if recipe.split.method == "leaky" and not options.leaky:
        raise TrainingError(
            "a split by image leaks twins into the test; if that is what you mean, add --leaky"
        )
    if recipe.fit.replay:
        # its learning rates would leave a network that starts from nothing where it is
        raise TrainingError(
            f"the recipe {recipe.name} replays images beside corrections, which is for `sonoloop finetune`; "
            "choose another one, or add --set fit.replay=0"
        )
    if options.show_augment is not None:
        from sonoloop_training.fit.train import show_augmentation  # noqa: PLC0415

        yield from show_augmentation(recipe, options.data, options.show_augment)
        return
    from sonoloop_training.fit.train import train  # noqa: PLC0415

    yield from train(
        recipe, options.data, options.out, device=options.device, max_minutes=options.max_minutes
    )


def settings_of(options: argparse.Namespace) -> list[str]:
    """Turn the options that change the recipe into settings, as `read_recipe` takes them."""
    from sonoloop_training.fit.recipe import read_recipe  # noqa: PLC0415 - imports torch, seconds

    if options.leaky and options.fold is not None:
        raise TrainingError("--leaky makes no folds; leave --fold out")
    settings: list[str] = list(options.settings)
    if options.leaky:
        settings.append("split.method=leaky")
    if options.fold is not None:
        settings.append(f"split.fold={options.fold}")
        if read_recipe(options.recipe, options.settings).split.method not in ("folds", "file"):
            settings.append("split.method=folds")
    return settings
