"""A whole training on phantoms: events, resume, calibration, bundle."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from sonoloop.errors import TrainingError
from sonoloop.models.bundle import read_bundle
from sonoloop_training.cache import Cache
from sonoloop_training.checkpoint import load_averaged
from sonoloop_training.events import EpochDone
from sonoloop_training.loop import draw_weights, fit
from sonoloop_training.losses import class_loss, segmentation_loss
from sonoloop_training.recipe import Recipe, parse_recipe, read_recipe


def tiny_cache(count: int = 8) -> Cache:
    rng = np.random.default_rng(0)
    masks = torch.zeros(count, 64, 64, dtype=torch.uint8)
    masks[1:, 20:40, 16:48] = 1
    images = torch.from_numpy(rng.integers(0, 120, (count, 64, 64), dtype=np.uint8)) + masks * 120
    return Cache(images, masks, torch.arange(count) % 3, ("busi",) * count)


@pytest.fixture(scope="module")
def made(datasets: Path, recipe_file: Path, tmp_path_factory: pytest.TempPathFactory):
    """What ``python -m sonoloop_training`` says and leaves."""
    root = tmp_path_factory.mktemp("made")
    command = [sys.executable, "-m", "sonoloop_training", str(recipe_file), "--data", str(datasets)]
    run = subprocess.run(
        [*command, "--out", str(root / "out"), "--device", "cpu", "--threads", "1"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    return root / "out", [json.loads(line) for line in run.stdout.splitlines() if line.startswith("{")]


def test_a_training_tells_what_it_does(made):
    _, events = made
    names = [event["event"] for event in events]
    assert names[0] == "started"
    assert names.count("epoch_done") == 2
    assert names[-3:] == ["evaluated", "evaluated", "finished"]


def test_a_training_leaves_a_bundle_that_predicts(made):
    out, events = made
    bundle = read_bundle(out / "bundle")
    assert bundle.model == events[-1]["model"]
    assert bundle.card.snapshot["images"]["train"] > bundle.card.snapshot["images"]["test"] > 0
    assert set(bundle.card.agreement) == {"1", "2", "4"}
    for line in bundle.card.agreement.values():
        assert line["x"] == sorted(line["x"])
        assert line["y"] == sorted(line["y"])


def test_the_split_is_written_and_disjoint(made):
    out, _ = made
    parts = json.loads((out / "split.json").read_text())
    names = [name for part in parts.values() for name in part]
    assert len(names) == len(set(names)) == 38


def test_results_have_intervals(made):
    out, _ = made
    figures = json.loads((out / "results.json").read_text())["metrics"]["test"]
    assert set(figures) == {"all", "busi", "busbra"}
    low, high = figures["all"]["lesion_dice"]["ci95"]
    assert 0 <= low <= figures["all"]["lesion_dice"]["value"] <= high <= 1


def test_a_finished_run_is_not_overwritten(made, datasets, recipe_file):
    from sonoloop_training.run import train

    with pytest.raises(TrainingError, match="finished model"):
        next(iter(train(read_recipe(str(recipe_file)), datasets, made[0])))


def test_a_training_without_data_fails_in_one_event(tmp_path, recipe_file):
    command = [sys.executable, "-m", "sonoloop_training", str(recipe_file), "--data", str(tmp_path / "gone")]
    run = subprocess.run(
        [*command, "--out", str(tmp_path / "out")], capture_output=True, text=True, check=False
    )
    assert run.returncode == 1
    assert "no folder" in json.loads(run.stdout.splitlines()[-1])["error"]
    assert not (tmp_path / "out").exists()


def run_through(
    recipe: Recipe, out: Path, *, stop_after: int | None = None, learns_from: str = "a"
) -> list[EpochDone]:
    done = []
    for event in fit(recipe, tiny_cache(), tiny_cache(4), out=out, learns_from=learns_from, device="cpu"):
        if isinstance(event, EpochDone):
            done.append(event)
            if event.epoch == stop_after:
                break
    return done


def test_a_resumed_run_is_the_uninterrupted_one(tmp_path, recipe_file):
    recipe = read_recipe(str(recipe_file))
    torch.set_num_threads(1)
    whole = run_through(recipe, tmp_path / "whole")
    run_through(recipe, tmp_path / "broken", stop_after=1)
    resumed = run_through(recipe, tmp_path / "broken")
    assert [event.epoch for event in resumed] == [2]
    assert resumed[-1].loss == whole[-1].loss
    one, _ = load_averaged(recipe, tmp_path / "whole" / "checkpoint.pt")
    other, _ = load_averaged(recipe, tmp_path / "broken" / "checkpoint.pt")
    for left, right in zip(one.state_dict().values(), other.state_dict().values(), strict=True):
        torch.testing.assert_close(left, right, atol=0, rtol=0)


def test_a_checkpoint_of_another_recipe_is_refused(tmp_path, recipe_file):
    recipe = read_recipe(str(recipe_file))
    run_through(recipe, tmp_path, stop_after=1)
    other = dataclasses.replace(recipe, fit=dataclasses.replace(recipe.fit, seed=5))
    with pytest.raises(TrainingError, match="another recipe"):
        run_through(other, tmp_path)


def test_a_checkpoint_that_learned_from_another_split_is_refused(tmp_path, recipe_file):
    recipe = read_recipe(str(recipe_file))
    run_through(recipe, tmp_path, stop_after=1)
    with pytest.raises(TrainingError, match="could be tested"):
        run_through(recipe, tmp_path, learns_from="b")


def test_a_loss_that_is_not_finite_stops_and_keeps_the_checkpoint(tmp_path, recipe_file, monkeypatch):
    recipe = read_recipe(str(recipe_file))
    run_through(recipe, tmp_path, stop_after=1)
    before = (tmp_path / "checkpoint.pt").read_bytes()
    monkeypatch.setattr(
        "sonoloop_training.loop._loss", lambda *_: torch.tensor(float("nan"), requires_grad=True)
    )
    with pytest.raises(TrainingError, match=r"nan in epoch 2, batch 1 \(images"):
        run_through(recipe, tmp_path)
    assert (tmp_path / "checkpoint.pt").read_bytes() == before


def test_a_frozen_kernel_stays_and_the_others_learn(tmp_path, recipe_file):
    recipe = read_recipe(str(recipe_file))
    recipe = dataclasses.replace(
        recipe,
        model=dataclasses.replace(recipe.model, encoder="tu-tf_efficientnet_lite0", arguments={}),
        fit=dataclasses.replace(recipe.fit, freeze_depthwise=True, epochs=1, draws=4),
    )
    from sonoloop.models.spec import build_network

    torch.manual_seed(recipe.fit.seed)
    before = build_network(recipe.model).state_dict()
    run_through(recipe, tmp_path)
    after = torch.load(tmp_path / "checkpoint.pt", weights_only=True)["network"]
    kernels = {k: v for k, v in before.items() if k.startswith("encoder") and v.shape[-2:] == (5, 5)}
    assert kernels
    assert all(torch.equal(after[k], v) for k, v in kernels.items())
    assert any(not torch.equal(after[k], v) for k, v in before.items() if v.ndim == 4 and k not in kernels)


def test_weights_are_by_dataset_and_class(recipe_file):
    recipe = read_recipe(str(recipe_file))
    recipe = dataclasses.replace(
        recipe, fit=dataclasses.replace(recipe.fit, weights={"busi": 2.0, "busi/normal": 5.0})
    )
    cache = dataclasses.replace(tiny_cache(4), datasets=("busi", "busi", "busbra", "busi"))
    assert draw_weights(cache, recipe).tolist() == [5.0, 2.0, 1.0, 5.0]


def test_losses_prefer_what_is_right():
    masks = torch.zeros(2, 1, 32, 32)
    masks[0, :, 8:20, 8:20] = 1
    right, nothing = (masks * 2 - 1) * 12, torch.full_like(masks, -12.0)
    claimed = nothing.clone()
    claimed[1, :, :4, :4] = 12
    good, empty, false = (segmentation_loss(x, masks, empty_weight=1.0) for x in (right, nothing, claimed))
    assert good.shape == (2,)
    assert good[0] < 0.1 < empty[0]
    assert good[1] < 0.1 < false[1]
    assert class_loss(torch.tensor([[5.0, 0, 0]]), torch.tensor([0]), smoothing=0.05) < 0.6


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({}, "no name"),
        ({"name": "a", "fits": {}}, "unknown in the recipe: fits"),
        ({"name": "a", "fit": {"epoch": 3}}, r"unknown in the recipe: fit\.epoch; known: epochs"),
        ({"name": "a", "fit": {"epochs": 0}}, "epochs must be at least 1"),
        ({"name": "a", "model": {"size": 33}}, "multiple of 32"),
        ({"name": "a", "split": {"test": 0.6, "validation": 0.6}}, "sum to less than 1"),
        ({"name": "a", "fit": {"weights": {"busi/bening": 2}}}, "busi/bening"),
    ],
)
def test_a_wrong_recipe_is_refused(values, message):
    with pytest.raises(TrainingError, match=message):
        parse_recipe(values)


def test_the_shipped_recipe_is_read_and_an_unknown_one_named():
    assert read_recipe("default").name == "default"
    with pytest.raises(TrainingError, match="there are: default"):
        read_recipe("defualt")
