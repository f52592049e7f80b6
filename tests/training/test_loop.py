"""The loop: rates, losses, averages, patience, time, and a loss that is not finite."""

from __future__ import annotations

import copy
import dataclasses
import itertools
import json
import math

import pytest
import torch

from sonoloop.errors import ModelError, TrainingError
from sonoloop.jobs.events import EpochDone, Notice, Started, Step, drain
from sonoloop.models.bundle import Card, save_bundle
from sonoloop.models.networks import build_network
from sonoloop_training.fit.devices import make_fabric
from sonoloop_training.fit.fitting import begin, set_rate, set_training
from sonoloop_training.fit.loop import ValidationScores, fit, joint_loss
from sonoloop_training.fit.recipe import FitConfig


def epochs_of(events) -> list[EpochDone]:
    return [event for event in events if isinstance(event, EpochDone)]


def test_a_fit_tells_of_its_start_each_epoch_and_how_long_it_takes(tmp_path, tiny, run_fit):
    events = run_fit(tiny(), tmp_path)
    assert isinstance(events[0], Started)
    assert (events[0].train, events[0].validation, events[0].steps, events[0].processes) == (8, 4, 2, 1)
    assert (events[0].device, events[0].precision) == ("cpu", "32-true")
    steps = [event for event in events if isinstance(event, Step)]
    assert [(s.epoch, s.step) for s in steps] == [(1, 2), (2, 2)]
    # after the last step there is still the validation
    assert steps[0].seconds_left > steps[-1].seconds_left > 0
    done = epochs_of(events)
    assert [e.epoch for e in done] == [1, 2]
    lines = (tmp_path / "history.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == [dataclasses.asdict(e) for e in done]


def test_a_fit_learns(tmp_path, tiny, run_fit):
    done = epochs_of(run_fit(tiny("epochs=12", "draws=16", "ema=0.5", "learning_rate=0.01"), tmp_path))
    assert done[-1].loss < 0.8 * done[0].loss
    assert done[-1].dice > 0.7 > done[0].dice


@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
def test_every_optimiser_changes_the_weights(tmp_path, tiny, run_fit, optimizer):
    recipe = tiny(f"optimizer={optimizer}", "epochs=1", "schedule=constant")
    before = begin(recipe).kept
    run_fit(recipe, tmp_path)
    after = torch.load(tmp_path / "checkpoint.pt", weights_only=True)["network"]
    assert not torch.equal(before["segmentation_head.0.weight"], after["segmentation_head.0.weight"])


def test_the_rate_rises_then_falls_by_half_a_cosine(tiny):
    recipe = tiny("warmup=0.25", "learning_rate=0.01", "encoder_learning_rate=0.001")
    optimizer = begin(recipe).optimizer
    rates = []
    for step in range(100):
        set_rate(optimizer, recipe.fit, step, 100)
        rates.append([group["lr"] for group in optimizer.param_groups])
    encoder, others = zip(*rates, strict=True)
    assert others.index(max(others)) == 25
    assert max(others) == pytest.approx(0.01)
    assert max(encoder) == pytest.approx(0.001)
    assert others[0] == pytest.approx(0.01 / 26)
    assert others[62] == pytest.approx(0.01 * (1 + math.cos(math.pi * 37 / 75)) / 2)
    assert others[99] < 1e-5
    set_rate(optimizer, dataclasses.replace(recipe.fit, schedule="constant"), 99, 100)
    assert optimizer.param_groups[1]["lr"] == 0.01


def test_the_average_follows_the_weights_and_none_is_the_weights(tmp_path, tiny, run_fit):
    states = {}
    for ema in (0.0, 0.9):
        run_fit(tiny(f"ema={ema}"), tmp_path / str(ema))
        states[ema] = torch.load(tmp_path / str(ema) / "checkpoint.pt", weights_only=True)
    for ema, same in ((0.0, True), (0.9, False)):
        network, average = states[ema]["network"], states[ema]["average"]
        name = "segmentation_head.0.weight"
        assert torch.equal(network[name], average[f"module.{name}"]) is same
    assert torch.equal(*(states[ema]["network"][name] for ema in states))


def test_patience_ends_a_fit_and_keeps_the_best_epoch(tmp_path, tiny, run_fit, monkeypatch):
    scores = iter([0.3, 0.6, 0.5, 0.6, 0.4, 0.9])
    kept = []

    def scored(network, *_, **__):
        kept.append(copy.deepcopy(network.state_dict()))
        return ValidationScores(dice=0.5, missed=0.0, accuracy=0.5, score=next(scores))

    monkeypatch.setattr("sonoloop_training.fit.loop.validate", scored)
    done = epochs_of(run_fit(tiny("epochs=6", "patience=2"), tmp_path))
    # 0.6 again is no better
    assert [(e.epoch, e.best_epoch) for e in done] == [(1, 1), (2, 2), (3, 2), (4, 2)]
    state = torch.load(tmp_path / "checkpoint.pt", weights_only=True)
    assert all(torch.equal(state["best"][name], tensor) for name, tensor in kept[1].items())
    assert not torch.equal(state["best"]["segmentation_head.0.weight"], kept[3]["segmentation_head.0.weight"])
    # nothing is left to do for the same command
    assert epochs_of(run_fit(tiny("epochs=6", "patience=2"), tmp_path)) == []


def test_without_patience_the_last_weights_are_kept(tiny):
    fitting = begin(tiny())
    fitting.epoch = 1
    fitting.note(0.9, keep=False)
    fitting.note(None, keep=True)
    assert fitting.best is None
    assert fitting.best_epoch == 1
    assert not fitting.has_waited(0)
    assert fitting.kept.keys() == fitting.network.state_dict().keys()


def test_too_little_time_makes_fewer_epochs_and_says_so(tmp_path, tiny, run_fit, monkeypatch):
    ticks = itertools.count()
    # every look at the clock is a second later, so that thirty epochs do not fit into half a minute
    monkeypatch.setattr("sonoloop_training.fit.loop.time.monotonic", lambda: float(next(ticks)))
    events = run_fit(tiny("epochs=30"), tmp_path, max_minutes=0.5)
    notices = [event.message for event in events if isinstance(event, Notice)]
    done = epochs_of(events)
    assert 1 <= len(done) < 30
    assert notices[0] == f"only {done[0].epochs} of 30 epochs fit into the time allowed"
    assert notices[-1].startswith(f"only {len(done)} of ")
    assert done[-1].epoch == done[-1].epochs == len(done)


def test_too_little_time_for_one_epoch_is_told_and_it_is_made(tmp_path, tiny, run_fit, monkeypatch):
    ticks = itertools.count()
    monkeypatch.setattr("sonoloop_training.fit.loop.time.monotonic", lambda: float(next(ticks)))
    events = run_fit(tiny("epochs=30"), tmp_path, max_minutes=0.01)
    (notice,) = (event.message for event in events if isinstance(event, Notice))
    assert notice.startswith("the time allowed does not suffice for one epoch, which takes about 0.0 min")
    assert [event.epoch for event in epochs_of(events)] == [1]


def test_enough_time_changes_nothing(tmp_path, tiny, run_fit):
    events = run_fit(tiny(), tmp_path, max_minutes=60.0)
    assert not [event for event in events if isinstance(event, Notice)]
    assert len(epochs_of(events)) == 2


def test_a_loss_that_is_not_finite_names_its_images_and_keeps_the_checkpoint(
    tmp_path, tiny, tiny_cache, run_fit, monkeypatch
):
    run_fit(tiny(), tmp_path, stop_after=1)
    before = (tmp_path / "checkpoint.pt").read_bytes()

    def spoiled(lesion, classes, batch, config):
        return joint_loss(lesion, classes, batch, config) * math.nan

    monkeypatch.setattr("sonoloop_training.fit.loop.joint_loss", spoiled)
    with pytest.raises(TrainingError, match=r"nan in epoch 2, batch 1 \((busi/case \d, ){3}busi/case \d\)"):
        run_fit(tiny(), tmp_path)
    assert (tmp_path / "checkpoint.pt").read_bytes() == before
    assert len((tmp_path / "history.jsonl").read_text().splitlines()) == 1


def test_nothing_is_learned_from_a_loss_that_is_not_finite(tmp_path, tiny, tiny_cache, monkeypatch):
    recipe = tiny("epochs=1")
    seen = []
    monkeypatch.setattr(
        "sonoloop_training.fit.loop.joint_loss", lambda lesion, *_: lesion.mean((1, 2, 3)) * math.inf
    )
    monkeypatch.setattr(
        "sonoloop_training.fit.loop.begin", lambda *given: seen.append(begin(*given)) or seen[-1]
    )
    with pytest.raises(TrainingError, match="the loss is"):
        list(fit(recipe, tiny_cache(), tiny_cache(4), out=tmp_path, learns_from="a", device="cpu"))
    trained, untouched = seen[0].network, begin(recipe).network
    pairs = zip(trained.named_parameters(), untouched.parameters(), strict=True)
    assert all(torch.equal(one, other) for (_, one), other in pairs)


def test_a_gradient_that_is_not_finite_names_its_images_and_keeps_the_checkpoint(
    tmp_path, tiny, run_fit, monkeypatch
):
    run_fit(tiny(), tmp_path, stop_after=1)
    before = (tmp_path / "checkpoint.pt").read_bytes()
    calls = itertools.count(1)

    def spoiled(lesion, classes, batch, config):
        loss = joint_loss(lesion, classes, batch, config)
        # in the last step the square root of nothing: itself finite, its slope not
        return loss + (lesion.mean((1, 2, 3)) * 0).sqrt() if next(calls) == 2 else loss

    monkeypatch.setattr("sonoloop_training.fit.loop.joint_loss", spoiled)
    with pytest.raises(
        TrainingError,
        match=r"the gradient is not finite in epoch 2, batch 2 \((busi/case \d, ){3}busi/case \d\); the",
    ):
        run_fit(tiny(), tmp_path)
    assert (tmp_path / "checkpoint.pt").read_bytes() == before


def test_weights_that_are_not_finite_are_never_kept(tmp_path, tiny, run_fit, monkeypatch):
    run_fit(tiny(), tmp_path, stop_after=1)
    before = (tmp_path / "checkpoint.pt").read_bytes()

    def spoil(fitting, *_):
        fitting.network.get_buffer("encoder.model.bn1.running_var").fill_(math.inf)

    monkeypatch.setattr("sonoloop_training.fit.loop.draw_back", spoil)
    with pytest.raises(
        TrainingError,
        match=r"after epoch 2 weights are NaN or infinite, the first in encoder\.model\.bn1\.running_var",
    ):
        run_fit(tiny(), tmp_path)
    assert (tmp_path / "checkpoint.pt").read_bytes() == before
    assert len((tmp_path / "history.jsonl").read_text().splitlines()) == 1


def test_the_first_epochs_see_smaller_images(tmp_path, tiny, run_fit, monkeypatch):
    from sonoloop_training.fit import batches as steps

    sizes = []
    real = steps.make_batch
    monkeypatch.setattr(
        steps, "make_batch", lambda cache, *a, **k: sizes.append(cache.size) or real(cache, *a, **k)
    )
    run_fit(tiny("epochs=3", "small_epochs=2"), tmp_path)
    assert sizes == [32, 32, 32, 32, 64, 64]


def test_one_image_is_no_batch_of_its_own(tmp_path, tiny, tiny_cache, run_fit):
    # batch normalisation has no statistics of one image on one pixel
    recipe = tiny("architecture=DeepLabV3Plus", "model.arguments.decoder_channels=16", "epochs=1", "draws=5")
    assert [event.steps for event in run_fit(recipe, tmp_path / "five") if isinstance(event, Started)] == [1]
    assert run_fit(tiny("epochs=1", "draws=6"), tmp_path / "six")[0].steps == 2
    with pytest.raises(TrainingError, match=r"1 images an epoch are less than a batch of 4; set fit\.batch"):
        run_fit(tiny("draws=1"), tmp_path / "one")
    assert not (tmp_path / "one").exists()


def test_frozen_kernels_stay_and_the_others_learn(tmp_path, tiny, run_fit):
    recipe = tiny("encoder=tu-tf_efficientnet_lite0", "freeze_depthwise=true", "epochs=1", "draws=4")
    before = begin(recipe).network.state_dict()
    run_fit(recipe, tmp_path)
    after = torch.load(tmp_path / "checkpoint.pt", weights_only=True)["network"]
    kernels = {k: v for k, v in before.items() if k.startswith("encoder") and v.shape[-2:] == (5, 5)}
    assert kernels
    assert all(torch.equal(after[k], v) for k, v in kernels.items())
    assert any(not torch.equal(after[k], v) for k, v in before.items() if v.ndim == 4 and k not in kernels)


def test_frozen_normalisation_keeps_its_statistics(tmp_path, tiny, run_fit):
    recipe = tiny("freeze_norm=true", "epochs=1")
    before = begin(recipe).network.state_dict()
    run_fit(recipe, tmp_path)
    after = torch.load(tmp_path / "checkpoint.pt", weights_only=True)["network"]
    statistics = [name for name in before if name.endswith("running_mean")]
    assert statistics
    assert all(torch.equal(after[name], before[name]) for name in statistics)
    network = begin(tiny()).network
    set_training(network, tiny().fit)
    assert all(module.training for module in network.modules())


def test_a_fit_starts_from_a_bundle_of_the_same_network_only(tmp_path, tiny):
    torch.manual_seed(7)
    network = build_network(tiny().model)
    bundle = save_bundle(tmp_path / "start", network, Card(name="start", spec=tiny().model))
    fitting = begin(tiny(f"fit.start={tmp_path / 'start'}"))
    assert fitting.source == bundle.model
    torch.testing.assert_close(fitting.kept, {k: v.clone() for k, v in bundle.network.state_dict().items()})
    with pytest.raises(TrainingError, match=f"{bundle.model} is of another architecture"):
        begin(tiny(f"fit.start={tmp_path / 'start'}", "model.arguments.decoder_channels=[16, 16, 8, 8, 4]"))
    with pytest.raises(ModelError, match="gone"):
        begin(tiny("fit.start=gone"))


def test_a_last_fit_starts_from_the_tested_weights(tiny):
    tested = begin(tiny("seed=3")).kept
    last = begin(tiny(), tested)
    assert last.source == "the judged model"
    torch.testing.assert_close(last.kept, tested, atol=0, rtol=0)


def test_a_batch_that_cannot_be_shared_is_refused(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "3")
    with pytest.raises(TrainingError, match=r"a batch of 8 cannot be shared by 3 processes; set fit\.batch"):
        make_fabric(FitConfig(), "cpu")


def test_blended_weights_lie_between_the_start_and_what_was_learned(tmp_path, tiny, tiny_cache):
    recipe = tiny("fit.blend=0.25", "epochs=1")
    start = build_network(recipe.model).state_dict()
    learned = drain(
        fit(recipe, tiny_cache(), tiny_cache(4), out=tmp_path, learns_from="a", device="cpu", start=start)
    )
    name = "segmentation_head.0.weight"
    expected = 0.75 * learned.averaged[name] + 0.25 * start[name]
    assert not torch.equal(learned.averaged[name], start[name])
    torch.testing.assert_close(learned.kept[name], expected)


def test_blending_needs_something_to_start_from(tiny):
    with pytest.raises(TrainingError, match=r"fit\.blend averages with a model to start from"):
        begin(tiny("fit.blend=0.5"))


def test_a_batch_too_large_for_the_memory_goes_in_parts_and_teaches_the_same(
    tmp_path, tiny, run_fit, monkeypatch
):
    # with frozen statistics the parts are independent of each other
    recipe = tiny("freeze_norm=true", "model.dropout=0.0", "epochs=1")
    whole = run_fit(recipe, tmp_path / "whole")

    def scarce(lesion, classes, batch, config):
        if len(batch) > 1:
            raise torch.OutOfMemoryError("too much")
        return joint_loss(lesion, classes, batch, config)

    monkeypatch.setattr("sonoloop_training.fit.loop.joint_loss", scarce)
    parts = run_fit(recipe, tmp_path / "parts")
    notices = [event.message for event in parts if isinstance(event, Notice)]
    assert notices == [f"out of memory; going on with batches in {n} parts" for n in (2, 4)]
    assert parts[-1].loss == pytest.approx(whole[-1].loss, rel=1e-5)


def test_a_single_image_too_large_for_the_memory_is_an_error(tmp_path, tiny, run_fit, monkeypatch):
    def never(*_):
        raise torch.OutOfMemoryError("too much")

    monkeypatch.setattr("sonoloop_training.fit.loop.joint_loss", never)
    with pytest.raises(TrainingError, match="not enough memory for 1 images at once"):
        run_fit(tiny("epochs=1"), tmp_path)


@pytest.mark.cuda
@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_a_step_in_half_precision_on_cuda_is_finite(tmp_path, tiny, run_fit, precision):
    events = run_fit(tiny(f"precision={precision}"), tmp_path, device="cuda")
    assert events[0].device.startswith("cuda")
    assert events[0].precision == {"bfloat16": "bf16-mixed", "float16": "16-mixed"}[precision]
    assert all(math.isfinite(event.loss) for event in epochs_of(events))
    state = torch.load(tmp_path / "checkpoint.pt", weights_only=True, map_location="cpu")
    assert all(tensor.isfinite().all() for tensor in state["network"].values())
    kernel = state["network"]["segmentation_head.0.weight"]
    assert kernel.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.cuda
def test_a_scaler_leaves_out_a_step_in_float16(tmp_path, tiny, run_fit, monkeypatch):
    calls = itertools.count(1)

    def spoiled(lesion, classes, batch, config):
        loss = joint_loss(lesion, classes, batch, config)
        return loss + (lesion.float().mean((1, 2, 3)) * 0).sqrt() if next(calls) == 2 else loss

    monkeypatch.setattr("sonoloop_training.fit.loop.joint_loss", spoiled)
    assert len(epochs_of(run_fit(tiny("precision=float16"), tmp_path, device="cuda"))) == 2
    state = torch.load(tmp_path / "checkpoint.pt", weights_only=True, map_location="cpu")
    assert all(tensor.isfinite().all() for tensor in state["network"].values())


@pytest.mark.cuda
def test_a_resumed_run_on_cuda_is_the_uninterrupted_one(tmp_path, tiny, run_fit):
    recipe = tiny("precision=bfloat16", "epochs=3")
    whole = epochs_of(run_fit(recipe, tmp_path / "whole", device="cuda"))
    run_fit(recipe, tmp_path / "broken", device="cuda", stop_after=1)
    resumed = epochs_of(run_fit(recipe, tmp_path / "broken", device="cuda"))
    assert [e.epoch for e in resumed] == [2, 3]
    # cuDNN's sums are in no fixed order
    assert resumed[-1].loss == pytest.approx(whole[-1].loss, rel=1e-2)
