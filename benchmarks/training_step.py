"""Images a second of a training against those of its bare step: whether making batches is the limit.

python benchmarks/training_step.py --data PACK [--recipe default-base] [--set KEY=VALUE] [--device auto]
    [--workers N] [--steps 20] [--rounds 4] [--out FILE]

The whole loop is that of `sonoloop train`: images drawn, augmented and copied to the device, the step, the
averaged weights, the events. The bare step is forward, loss, backward, clipping and optimiser on one batch
that lies on the device already. Both go by turns, round by round: whatever else the machine does falls
on both; beside the wall's time stands the process's own, since on a shared machine the wall's is somebody
else's too (with workers, or on a GPU, it says nothing, for what is done there is not in it).
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch

from sonoloop.jobs.events import drain
from sonoloop.models.devices import choose_device
from sonoloop_training.augment import build_augmentation
from sonoloop_training.datasets import find_datasets
from sonoloop_training.fit.batches import Batch, cache_samples, draw_epoch, draw_weights, make_batch
from sonoloop_training.fit.devices import count_workers, make_fabric
from sonoloop_training.fit.fitting import begin, set_training
from sonoloop_training.fit.loop import Learning, Pace, joint_loss
from sonoloop_training.fit.recipe import read_recipe

_IMAGES = 256


def main() -> None:
    """Time both by turns, and write images a second and their ratio."""
    options = parse()
    if options.threads:
        torch.set_num_threads(options.threads)
    recipe = read_recipe(options.recipe, ["start=", "blend=0", "pretrained=false", *options.settings])
    config, device = recipe.fit, choose_device(options.device)
    workers = count_workers(device) if options.workers is None else options.workers
    samples = find_datasets(options.data)
    every = max(1, len(samples) // _IMAGES)
    cache = drain(cache_samples(samples[::every][:_IMAGES], size=recipe.model.size))

    fabric = make_fabric(config, options.device)
    fitting = begin(recipe)
    network, optimizer = fabric.setup(fitting.network, fitting.optimizer)
    fitting.average.to(fabric.device)
    fitting.epochs = 1 + options.rounds
    pace = Pace(config=config, steps=options.steps)
    learning = Learning(fabric, network, optimizer, fitting, recipe, pace, lambda: None, workers=workers)
    augmentation, weights = build_augmentation(recipe.augment), draw_weights(cache, config)
    wanted = options.steps * config.batch

    def loop(epoch: int) -> None:
        drawn = draw_epoch(weights, config, epoch, draws=wanted)
        drain(learning.epoch(cache, drawn, augmentation, seconds=None))

    drawn = draw_epoch(weights, config, 0, draws=config.batch)
    ready = make_batch(cache, drawn, augmentation, config, epoch=0, first=0).to(fabric.device)

    def bare(batch: Batch) -> None:
        set_training(network, config)
        for _ in range(options.steps):
            optimizer.zero_grad()
            lesion, classes = network(batch.images)
            loss = joint_loss(lesion, classes, batch, config).mean()
            fabric.backward(loss)
            fabric.clip_gradients(network, optimizer, max_norm=config.clip, error_if_nonfinite=False)
            optimizer.step()

    loop(0)
    bare(ready)
    times: dict[str, list[tuple[float, float]]] = {"loop": [], "bare": []}
    for number in range(options.rounds):
        times["loop"].append(clock(fabric.device, partial(loop, 1 + number)))
        times["bare"].append(clock(fabric.device, lambda: bare(ready)))
    result = {
        "what": "images a second of the whole training loop, and of the bare step on a batch that lies ready",
        "recipe": recipe.name,
        "size": recipe.model.size,
        "batch": config.batch,
        "device": torch.cuda.get_device_name() if fabric.device.type == "cuda" else str(fabric.device),
        "precision": fabric._precision.precision,
        "threads": torch.get_num_threads(),
        "workers": workers,
        "images": wanted * options.rounds,
        **{kind: describe(kind, times, wanted) for kind in ("wall", "own")},
    }
    text = json.dumps(result, indent=1)
    if options.out:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(text + "\n", encoding="utf-8")
    print(text)


def clock(device: torch.device, run: Callable[[], object]) -> tuple[float, float]:
    """Give the seconds that a call takes, by the wall and by the process."""
    wall, own = time.perf_counter(), time.process_time()
    run()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - wall, time.process_time() - own


def describe(kind: str, times: dict[str, list[tuple[float, float]]], wanted: int) -> dict[str, float]:
    """Give images a second of both, by the median round, and the median of the rounds' ratios."""
    place = ("wall", "own").index(kind)
    loop, bare = ([each[place] for each in times[what]] for what in ("loop", "bare"))
    return {
        "loop": round(wanted / statistics.median(loop), 2),
        "bare": round(wanted / statistics.median(bare), 2),
        "ratio": round(statistics.median(b / a for a, b in zip(loop, bare, strict=True)), 3),
    }


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--recipe", default="default-base")
    parser.add_argument("--set", dest="settings", action="append", default=[])
    parser.add_argument("--device", default="auto")
    parser.add_argument("--workers", type=int)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--out", type=Path)
    return parser.parse_args()


if __name__ == "__main__":
    main()
