"""What tuning adds to the loop: weights an image and head, layers that learn, being drawn back, replay."""

from __future__ import annotations

import dataclasses
import math
from contextlib import nullcontext

import pytest
import torch

from sonoloop.errors import TrainingError
from sonoloop.imaging.grey import frame_from_array
from sonoloop.imaging.phantom import phantom
from sonoloop.jobs.events import EpochDone, Started
from sonoloop.models.card import Card
from sonoloop.models.networks import build_network
from sonoloop_training.evaluation.scores import Case
from sonoloop_training.fit.batches import Batch, Cache, count_draws, draw_epoch, make_batch
from sonoloop_training.fit.calibration import calibrate
from sonoloop_training.fit.devices import device_watched
from sonoloop_training.fit.fitting import begin, choose_layers, shallow_half
from sonoloop_training.fit.loop import joint_loss, validate
from sonoloop_training.fit.recipe import FitConfig


@pytest.fixture(scope="module")
def start(tiny):
    torch.manual_seed(1)
    return build_network(tiny().model).state_dict()


def weights_after(tmp_path, run_fit, recipe, **options):
    run_fit(recipe, tmp_path, **options)
    return torch.load(tmp_path / "checkpoint.pt", weights_only=True)["network"]


def test_each_image_weighs_each_head():
    images = torch.zeros(3, 1, 8, 8)
    weights = torch.tensor([[1.0, 1.0], [0.5, 0.0], [0.0, 0.25]])
    batch = Batch(images, images, torch.tensor([0, 1, 2]), weights)
    config = FitConfig(loss="cross-entropy", label_smoothing=0.0, class_weight=0.5)
    found = joint_loss(torch.zeros(3, 1, 8, 8), torch.zeros(3, 3), batch, config)
    mask, named = math.log(2), 0.5 * math.log(3)
    assert found.tolist() == pytest.approx([mask + named, 0.5 * mask, 0.25 * named])
    alone = joint_loss(None, torch.zeros(3, 3), batch, config)
    assert alone.tolist() == pytest.approx([math.log(3), 0, 0.25 * math.log(3)])


def test_a_batch_keeps_its_weights_when_it_is_split():
    batch = Batch(*(torch.zeros(4, 1, 2, 2),) * 2, torch.arange(4), torch.arange(8.0).reshape(4, 2))
    first, second = batch.split(2)
    assert second.weights.tolist() == [[4, 5], [6, 7]]
    assert first.to(torch.device("cpu")).weights.tolist() == [[0, 1], [2, 3]]


def test_weights_follow_their_images(tiny, tiny_cache):
    from sonoloop_training.augment import build_augmentation

    cache = dataclasses.replace(tiny_cache(), weights=torch.arange(16.0).reshape(8, 2))
    drawn = torch.tensor([5, 0, 7])
    batch = make_batch(cache, drawn, build_augmentation(tiny().augment), FitConfig(), epoch=0, first=0)
    assert batch.weights.tolist() == [[10, 11], [0, 1], [14, 15]]
    assert cache.shrink(32).weights is cache.weights


def test_what_weighs_nothing_teaches_nothing(tmp_path, tiny, tiny_cache, run_fit, start):
    recipe = tiny("epochs=1", "weight_decay=0.0", "freeze_norm=true")
    cache = dataclasses.replace(tiny_cache(), weights=torch.zeros(8, 2))
    after = weights_after(tmp_path, run_fit, recipe, train=cache, start=start)
    assert all(torch.equal(after[name], tensor) for name, tensor in start.items())


@pytest.mark.parametrize(
    "case",
    [
        ("encoder", "encoder.", "decoder."),
        ("decoder", "decoder.", "encoder."),
        ("shallow", "encoder.model.conv_stem", "decoder."),
    ],
)
def test_only_the_chosen_layers_and_the_heads_learn(tmp_path, tiny, run_fit, start, case):
    layers, learn, stay = case
    recipe = tiny(f"layers={layers}", "epochs=1", "learning_rate=0.01", "freeze_norm=true")
    after = weights_after(tmp_path, run_fit, recipe, start=start)
    changed = {name for name in after if not torch.equal(after[name], start[name])}
    assert any(name.startswith(learn) for name in changed)
    assert not any(name.startswith(stay) for name in changed)
    for head in ("segmentation_head", "classification_head"):
        assert any(name.startswith(head) for name in changed)


def test_the_shallow_half_is_the_first_half_and_no_more(tiny):
    network = build_network(tiny().model)
    choose_layers(network, "shallow")
    names = [name for name, p in network.encoder.named_parameters() if p.requires_grad]
    every = [name for name, _ in network.encoder.named_parameters()]
    assert names == every[: len(names)]
    assert (
        0.4
        < len(shallow_half(network.encoder))
        / len([m for m in network.encoder.modules() if list(m.parameters(recurse=False))])
        < 0.6
    )


def distance(one, other):
    pairs = ((one[name], other[name]) for name in one if one[name].is_floating_point())
    return math.sqrt(sum(float(((a - b) ** 2).sum()) for a, b in pairs))


def test_l2sp_keeps_the_weights_near_their_start(tmp_path, tiny, run_fit, start):
    far = {}
    for l2sp in (0.0, 20.0, 10_000.0):
        recipe = tiny(f"l2sp={l2sp}", "weight_decay=0.0", "freeze_norm=true", "schedule=constant")
        far[l2sp] = distance(weights_after(tmp_path / str(l2sp), run_fit, recipe, start=start), start)
    # every step goes all the way back
    assert far[10_000.0] == 0
    assert 0 < far[20.0] < 0.995 * far[0.0]


def test_drawing_back_needs_a_start(tiny):
    with pytest.raises(TrainingError, match=r"fit\.l2sp draws back to a model to start from"):
        begin(tiny("l2sp=1.0"))


def test_a_budget_of_steps_makes_more_passes_over_fewer_images(tmp_path, tiny, tiny_cache, run_fit):
    starts = {}
    for count in (4, 16):
        recipe = tiny("steps=8", "epochs=3", "draws=0")
        events = run_fit(recipe, tmp_path / str(count), train=tiny_cache(count))
        starts[count] = next(event for event in events if isinstance(event, Started))
        assert sum(isinstance(event, EpochDone) for event in events) == starts[count].epochs
    # 4 images are one step of 4, 16 are four; three passes are made at least
    assert (starts[4].epochs, starts[4].steps) == (8, 1)
    assert (starts[16].epochs, starts[16].steps) == (3, 4)


def test_corrections_are_drawn_each_epoch_and_the_replayed_by_turns(tiny_cache):
    cache = dataclasses.replace(tiny_cache(12), replayed=8)
    config = FitConfig(replay=0.5)
    draws = count_draws(cache, config)
    assert draws == 6
    weights = torch.ones(12)
    seen = []
    for epoch in range(4):
        drawn = draw_epoch(weights, config, epoch, draws=draws, replayed=8).tolist()
        assert sorted(index for index in drawn if index < 4) == [0, 1, 2, 3]
        seen += [index for index in drawn if index >= 4]
    assert sorted(seen) == list(range(4, 12))
    again = draw_epoch(weights, config, 3, draws=draws, replayed=8).tolist()
    assert again == drawn


def test_more_draws_than_corrections_show_each_about_as_often(tiny_cache):
    drawn = draw_epoch(torch.ones(8), FitConfig(replay=1.0), 0, draws=26, replayed=3).tolist()
    counts = [drawn.count(index) for index in range(5)]
    assert sum(counts) == 13
    assert set(counts) == {2, 3}


class StopError(Exception):
    """What a caller raises to end a fit."""


def test_a_fit_can_be_ended_before_any_batch_and_goes_on_to_the_same_weights(tmp_path, tiny, run_fit):
    recipe = tiny("epochs=3")
    whole = weights_after(tmp_path / "whole", run_fit, recipe)
    calls = []

    def on_batch():
        calls.append(1)
        # two batches an epoch: in the midst of the second
        if len(calls) == 4:
            raise StopError

    with pytest.raises(StopError):
        run_fit(recipe, tmp_path / "broken", on_batch=on_batch)
    assert torch.load(tmp_path / "broken" / "checkpoint.pt", weights_only=True)["epoch"] == 1
    resumed = weights_after(tmp_path / "broken", run_fit, recipe)
    assert all(torch.equal(resumed[name], whole[name]) for name in whole)


@pytest.mark.parametrize(
    "error",
    [RuntimeError("CUDA error: device-side assert"), torch.AcceleratorError("the GPU has fallen off")],
)
def test_a_device_that_fails_is_told_and_the_checkpoint_stays(tmp_path, tiny, run_fit, monkeypatch, error):
    run_fit(tiny(), tmp_path, stop_after=1)
    before = (tmp_path / "checkpoint.pt").read_bytes()

    def lost(*_):
        raise error

    monkeypatch.setattr("sonoloop_training.fit.loop.joint_loss", lost)
    with pytest.raises(
        TrainingError, match=r"the device cpu failed \(.*\); the checkpoint of the last epoch is"
    ):
        run_fit(tiny(), tmp_path)
    assert (tmp_path / "checkpoint.pt").read_bytes() == before


def test_errors_of_our_own_code_are_no_devices_fault():
    with pytest.raises(RuntimeError, match="shapes"), device_watched(torch.device("cpu")):
        raise RuntimeError("shapes do not fit")


def test_a_checkpoint_of_before_a_setting_existed_is_gone_on_with(tmp_path, tiny, run_fit):
    run_fit(tiny(), tmp_path, stop_after=1)
    path = tmp_path / "checkpoint.pt"
    state = torch.load(path, weights_only=True)
    for name in ("steps", "l2sp", "layers", "replay", "accepted_weight", "blend_alone"):
        del state["recipe"]["fit"][name]
    torch.save(state, path)
    events = run_fit(tiny(), tmp_path)
    assert [event.epoch for event in events if isinstance(event, EpochDone)] == [2]


def test_a_class_that_weighs_nothing_is_not_known_and_is_not_validated(tiny, tiny_cache):
    network, cpu = build_network(tiny().model), torch.device("cpu")
    cache = tiny_cache()
    known = cache.labels == 1
    both = torch.stack([torch.ones(len(cache)), known.float()], dim=1)
    among = validate(network, dataclasses.replace(cache, weights=both), cpu, nullcontext)
    names = ("a",) * int(known.sum())
    alone = Cache(cache.images[known], cache.masks[known], cache.labels[known], names, names, both[known])
    assert among.accuracy == validate(network, alone, cpu, nullcontext).accuracy
    assert among.dice == validate(network, cache, cpu, nullcontext).dice
    nothing = dataclasses.replace(cache, weights=torch.tensor([[1.0, 0.0]]).expand(len(cache), 2))
    none = validate(network, nothing, cpu, nullcontext)
    assert none.accuracy is None


def test_validating_and_calibrating_can_be_ended(tiny, tiny_cache):
    def stop():
        raise KeyboardInterrupt

    network = build_network(tiny().model).eval()
    with pytest.raises(KeyboardInterrupt):
        validate(network, tiny_cache(), torch.device("cpu"), nullcontext, stop)
    made = phantom("benign", seed=1, shape=(96, 128))
    case = Case(
        frame=frame_from_array(made.image, name="a"),
        mask=made.mask > 0,
        label="benign",
        dataset="a",
        group="g",
    )
    asked = []

    def count():
        asked.append(1)
        if len(asked) == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        calibrate(Card(name="a", spec=tiny().model), network, [case] * 3, device="cpu", on_batch=count)
    assert len(asked) == 3
