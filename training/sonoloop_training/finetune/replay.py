"""Images that trained the model started from, shown again so that it does not forget them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Generator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from sonoloop.errors import TrainingError
from sonoloop.jobs.events import Notice, Progress
from sonoloop.models.manifest import SPLIT, Member, is_other, read_manifest
from sonoloop_training.datasets import Sample, find_datasets
from sonoloop_training.datasets.pack import packed_size
from sonoloop_training.fit.batches import Cache, CachedImage, image_weight, letterbox_pair
from sonoloop_training.fit.recipe import FitConfig
from sonoloop_training.leakage import TestSide, find_leaks_in_steps

# each is read and compared with the test groups: on one core 50 a second
_MOST = 500
_EVERY = 20
_COMPARED = 50


def choose_replay(
    data: Path,
    base: Path,
    test_side: TestSide,
    config: FitConfig,
    *,
    corrected: Collection[str],
    wanted: int,
    size: int,
) -> Generator[Progress | Notice, None, list[tuple[Sample, Member]]]:
    """Choose among the images that trained a model those that are shown again.

    Images of the test groups, near copies of them and whoever is in one group with one of these are left
    out, since they would spoil the judgement; so are those that have corrections of their own, and those who
    were withdrawn, with all of their group.
    """
    samples = find_datasets(data)
    if (packed := packed_size(samples)) is not None and packed < size:
        raise TrainingError(
            f"{data} holds images of {packed} pixels, and the model learns from {size}: begin anew with "
            f"--base-data and the files, or a pack of --size {size}"
        )
    if not (base / SPLIT).is_file():
        yield Notice(message=f"{base.name} does not say who trained it, so that nothing can be replayed")
        return []
    trained = {listed.name: listed for listed in read_manifest(base / SPLIT).train}
    found = [(s, trained[name]) for s in samples if (name := f"{s.dataset}/{s.name}") in trained]
    if not found:
        yield Notice(message=f"none of the images in {data} trained the model; nothing is replayed")
        return []
    stage = "Comparing with the images that judge"
    leaks = yield from find_leaks_in_steps(
        [listed for _, listed in found], test_side.listed, stage=stage, every=_COMPARED
    )
    spoilt = {leak.image for leak in leaks}
    gone = {sample.group for sample, listed in found if test_side.is_gone(listed, sample.patient_key)}
    groups = {
        sample.group
        for sample, listed in found
        if listed.name in spoilt or test_side.has_patient(sample.patient_key)
    }
    known = frozenset(corrected)
    kept = [
        (sample, listed)
        for sample, listed in found
        if sample.group not in groups | gone and known.isdisjoint((listed.id, listed.pixels_hash))
    ]
    if groups:
        yield Notice(
            message=f"{sum(s.group in groups for s, _ in found)} images are not replayed: they, or near "
            "copies of them, are among the images that judge"
        )
    if gone:
        yield Notice(
            message=f"{sum(s.group in gone for s, _ in found)} images are not replayed: they, or their "
            "patients, were withdrawn"
        )
    return _draw(kept, config, wanted=min(wanted, _MOST))


def _draw(
    kept: Sequence[tuple[Sample, Member]], config: FitConfig, *, wanted: int
) -> list[tuple[Sample, Member]]:
    """Draw without replacement, by the recipe's weights, the same for the same seed and images."""
    ordered = sorted(kept, key=lambda pair: pair[1].name)
    weights = np.array([image_weight(config, s.dataset, s.label) for s, _ in ordered], np.float64)
    # the largest keys are a weighted sample without replacement (Efraimidis and Spirakis 2006)
    uniform = np.random.default_rng(config.seed).random(len(ordered))
    keys = np.log(uniform) / np.maximum(weights, 1e-12)
    order = np.argsort(-keys, kind="stable")
    return [ordered[index] for index in order[:wanted] if weights[index] > 0]


def read_replay(
    chosen: Sequence[tuple[Sample, Member]], test_side: TestSide, *, size: int
) -> Generator[Progress | Notice, None, Cache | None]:
    """Read what is replayed.

    What is another image than its name says is left out, and so is whatever shows, now that its pixels are
    read, a scene of the test groups: with all of its own group.
    """
    read: list[tuple[str, CachedImage]] = []
    spoilt: set[str] = set()
    others = 0
    for done, (sample, listed) in enumerate(chosen):
        if done % _EVERY == 0:
            yield Progress(stage="Reading what is replayed", done=done, total=len(chosen))
        frame, mask = sample.read()
        if is_other(frame, listed):
            others += 1
        elif sample.group in spoilt or test_side.has_near_copy(frame):
            spoilt.add(sample.group)
        else:
            pair = letterbox_pair(frame.pixels, mask, size, original=sample.original)
            read.append((sample.group, CachedImage(*pair, sample.label, listed.name, sample.dataset)))
    yield Progress(stage="Reading what is replayed", done=len(chosen), total=len(chosen))
    if others:
        yield Notice(
            message=f"{others} images have the names of images that trained the model and are others; they "
            "are not replayed"
        )
    kept = [image for group, image in read if group not in spoilt]
    return Cache.of(kept) if kept else None


def with_replay(corrections: Cache, replayed: Cache | None) -> Cache:
    """Put replayed images behind the corrections; each of them teaches fully."""
    if replayed is None:
        return corrections
    return replace(
        corrections,
        images=torch.cat([corrections.images, replayed.images]),
        masks=torch.cat([corrections.masks, replayed.masks]),
        labels=torch.cat([corrections.labels, replayed.labels]),
        names=corrections.names + replayed.names,
        datasets=corrections.datasets + replayed.datasets,
        weights=torch.cat([corrections.weights, replayed.weights]),
        replayed=len(replayed),
    )


def without_classes(images: Cache) -> Cache:
    """Let no image teach its class, where all of them have the same one."""
    return replace(images, weights=images.weights * torch.tensor([1.0, 0.0]))


def count_by_dataset(names: Collection[str]) -> dict[str, int]:
    """Count replayed images by dataset."""
    return dict(Counter(name.partition("/")[0] for name in sorted(names)))
