"""Which images an epoch draws, and that what is random about one follows from its place alone."""

from __future__ import annotations

import dataclasses
import os

import pytest
import torch

from sonoloop.errors import TrainingError
from sonoloop.jobs.events import Progress
from sonoloop.values import CLASSES
from sonoloop_training.augment import AugmentConfig, build_augmentation
from sonoloop_training.fit.batches import EpochBatches, cache_samples, draw_epoch, draw_weights, make_batch
from sonoloop_training.fit.recipe import FitConfig


def finish(generator):
    """Run a generator to its end and give its events and its value."""
    events = []
    while True:
        try:
            events.append(next(generator))
        except StopIteration as stop:
            return events, stop.value


def test_weights_are_by_dataset_and_class_the_closest_first(tiny_cache):
    cache = dataclasses.replace(tiny_cache(6), datasets=("busi", "busi", "busbra", "busi", "busbra", "udiat"))
    assert [CLASSES[label] for label in cache.labels.tolist()] == [*CLASSES, *CLASSES]
    config = FitConfig(weights={"busi": 2.0, "busi/normal": 5.0, "/benign": 0.5, "busbra": 3.0})
    assert draw_weights(cache, config).tolist() == [5.0, 2.0, 3.0, 5.0, 3.0, 1.0]


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        (
            {"busii": 2.0},
            "fit.weights names 'busii'; the datasets are breast-usg, busbra, busi, phantom, udiat",
        ),
        ({"busii/normal": 2.0}, "fit.weights names 'busii/normal'"),
        ({"busi": 0.0}, "fit.weights leave no image to draw; give one of them a weight above 0"),
    ],
)
def test_weights_that_cannot_be_drawn_by_are_named(tiny_cache, weights, message):
    with pytest.raises(TrainingError, match=message):
        draw_weights(tiny_cache(), FitConfig(weights=weights))


def test_a_weight_may_name_a_dataset_of_ones_own(tiny_cache):
    cache = dataclasses.replace(tiny_cache(2), datasets=("busi", "clinic"))
    assert draw_weights(cache, FitConfig(weights={"clinic": 4.0})).tolist() == [1.0, 4.0]


def test_an_epoch_draws_every_image_once_unless_told_otherwise():
    drawn = draw_epoch(torch.ones(20), FitConfig(), 0)
    assert sorted(drawn.tolist()) == list(range(20))
    assert not torch.equal(drawn, draw_epoch(torch.ones(20), FitConfig(), 1))
    assert not torch.equal(drawn, draw_epoch(torch.ones(20), FitConfig(seed=1), 0))
    assert torch.equal(drawn, draw_epoch(torch.ones(20), FitConfig(), 0))
    assert len(draw_epoch(torch.ones(20), FitConfig(draws=50), 0)) == 50


def test_images_are_drawn_as_often_as_they_weigh():
    weights = torch.tensor([0.0, 1.0, 3.0], dtype=torch.float64)
    drawn = draw_epoch(weights, FitConfig(draws=4000), 3)
    counts = torch.bincount(drawn, minlength=3)
    assert counts[0] == 0
    # three standard deviations of a binomial
    assert abs(int(counts[2]) - 3000) < 3 * (4000 * 0.75 * 0.25) ** 0.5


def test_an_image_is_augmented_by_its_place_not_by_its_batch(tiny_cache):
    cache, augmentation = tiny_cache(), build_augmentation(AugmentConfig(elastic=1.0, overlay=1.0))
    config = FitConfig(strips=0.5)
    drawn = torch.tensor([3, 5, 5, 1])
    whole = make_batch(cache, drawn, augmentation, config, epoch=2, first=8)
    torch.manual_seed(99)
    halves = [make_batch(cache, drawn[i : i + 2], augmentation, config, epoch=2, first=8 + i) for i in (0, 2)]
    assert torch.equal(whole.images, torch.cat([half.images for half in halves]))
    assert torch.equal(whole.masks, torch.cat([half.masks for half in halves]))
    assert torch.equal(whole.labels, torch.cat([half.labels for half in halves]))
    # the same image twice in a batch is not the same twice
    assert not torch.equal(whole.images[1], whole.images[2])
    for epoch, first, seed in ((3, 8, 0), (2, 9, 0), (2, 8, 1)):
        other = make_batch(
            cache, drawn, augmentation, dataclasses.replace(config, seed=seed), epoch=epoch, first=first
        )
        assert not torch.equal(whole.images, other.images)


def test_balance_draws_each_hospital_equally_often(tiny_cache):
    cache = dataclasses.replace(
        tiny_cache(8), datasets=("busi",) + ("busbra",) * 4 + ("own",) + ("phantom",) * 2
    )
    # classes go round: normal, benign, malignant
    config = FitConfig(weights={"busbra/benign": 3.0, "own": 7.0, "phantom": 0.5}, balance="site")
    weights = draw_weights(cache, config)
    assert [float(part.sum()) for part in weights.split([1, 4, 1, 2])] == pytest.approx([16 / 3] * 3 + [1.0])
    # within one, classes are as they weigh: the benign ones are the first and the last of the four
    assert (weights[1:5] / weights[2]).tolist() == pytest.approx([3, 1, 1, 3])
    root = draw_weights(cache, dataclasses.replace(config, balance="root"))
    assert [float(part.sum()) for part in root.split([1, 4, 1, 2])] == pytest.approx([4, 8, 4, 1])
    # who is not drawn has no share, and the others have it
    none = draw_weights(cache, dataclasses.replace(config, weights={"own": 0.0}, balance="site"))
    assert [float(part.sum()) for part in none.split([1, 4, 1, 2])] == pytest.approx([2.5, 2.5, 0, 2])


def test_batches_are_the_same_however_many_processes_make_them(tiny_cache):
    cache, augmentation = tiny_cache(), build_augmentation(AugmentConfig(elastic=1.0, overlay=1.0))
    batches = EpochBatches(
        cache, torch.arange(8).repeat(2), augmentation, FitConfig(batch=5, strips=0.5, seed=3), 2, 4
    )
    made = []
    for workers in (0, 2):
        torch.manual_seed(workers)
        made.append([])
        for batch in batches.make(workers, torch.device("cpu")):
            # what comes next at random, such as dropout, is the same too
            made[-1].append((batch.images, batch.masks, batch.labels, torch.rand(3)))
    assert [len(labels) for _, _, labels, _ in made[0]] == [5, 5, 5, 1]
    for here, there in zip(*made, strict=True):
        assert all(torch.equal(one, other) for one, other in zip(here, there, strict=True))


def test_a_process_that_dies_while_it_augments_is_named(tiny_cache):
    class Dies(torch.nn.Module):
        def forward(self, image, mask):
            os._exit(9)

    batches = EpochBatches(tiny_cache(), torch.arange(8), Dies(), FitConfig(), 0, 1)
    with pytest.raises(
        TrainingError, match=r"a process that augments images ended .* go on with --workers 0"
    ):
        next(batches.make(1, torch.device("cpu")))


@pytest.mark.cuda
def test_on_a_gpu_a_batch_made_elsewhere_is_the_same_and_so_is_dropout(tiny_cache):
    device = torch.device("cuda")
    augmentation = build_augmentation(AugmentConfig(elastic=1.0))
    batches = EpochBatches(tiny_cache(), torch.arange(8), augmentation, FitConfig(batch=4), 0, 2)
    made = [
        [(b.to(device).images, torch.rand(9, device=device)) for b in batches.make(workers, device)]
        for workers in (0, 2)
    ]
    for (image, random), (other, again) in zip(*made, strict=True):
        assert image.is_cuda
        assert image.is_contiguous(memory_format=torch.channels_last)
        assert torch.equal(image, other)
        assert torch.equal(random, again)


def test_a_batch_is_what_a_network_takes(tiny_cache):
    cache = tiny_cache()
    none = AugmentConfig(
        rotation=0, translation=0, scale=(1, 1), shear=0, flip=0, elastic=0, gamma=0, gain=0, speckle=0,
        blur=0, contrast=0, resolution=0, sector=0, overlay=0,
    )  # fmt: skip
    drawn = torch.tensor([0, 4])
    batch = make_batch(cache, drawn, build_augmentation(none), FitConfig(), epoch=0, first=0)
    assert batch.images.dtype == batch.masks.dtype == torch.float32
    assert batch.images.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(batch.images[:, 0], cache.images[drawn].float() / 127.5 - 1)
    assert torch.equal(batch.masks[:, 0], cache.masks[drawn].float())
    assert batch.labels.tolist() == [0, 1]
    assert batch.to(torch.device("cpu")).labels.tolist() == [0, 1]


def test_phantoms_stand_after_the_images_and_progress_is_told(datasets):
    from sonoloop_training.datasets import find_datasets

    samples = find_datasets(datasets)[:3]
    events, cache = finish(cache_samples(samples, phantoms=2, size=64))
    assert events == [Progress(stage="Reading", done=0, total=3), Progress(stage="Reading", done=3, total=3)]
    assert len(cache) == 3 + 3 * 2
    assert cache.images.shape == cache.masks.shape == (9, 64, 64)
    assert cache.datasets[3:] == ("phantom",) * 6
    assert cache.names[3:5] == ("phantom/normal 0", "phantom/normal 1")
    assert cache.labels[3:].tolist() == [0, 0, 1, 1, 2, 2]
    assert [bool(mask.any()) for mask in cache.masks[3:]] == [False, False, True, True, True, True]


def test_a_smaller_cache_shows_the_same(tiny_cache):
    cache = tiny_cache()
    small = cache.shrink(32)
    assert small.size == 32
    assert small.names == cache.names
    assert torch.equal(small.labels, cache.labels)
    assert set(small.masks.unique().tolist()) == {0, 1}
    assert torch.equal(small.masks[1, 10:20, 8:24], torch.ones(10, 16, dtype=torch.uint8))
    assert small.masks[1].sum() == 10 * 16
    means = [images.float().mean((1, 2)) for images in (small.images, cache.images)]
    torch.testing.assert_close(*means, atol=1.0, rtol=0)
