"""Recipes: those that ship, how one builds on another, and what is refused."""

from __future__ import annotations

import warnings

import pytest
import torch

from sonoloop.errors import TrainingError
from sonoloop.models.networks import build_network
from sonoloop_training.fit.recipe import FitConfig, parse_recipe, read_recipe, recipe_names

PARTS = ("_classification", "_segmentation")


@pytest.mark.parametrize("name", [*recipe_names(), *PARTS])
def test_a_shipped_recipe_is_read_and_its_network_answers(name):
    recipe = read_recipe(name)
    with torch.device("meta"), warnings.catch_warnings():
        # timm warns that it has nothing to initialise
        warnings.simplefilter("ignore")
        network = build_network(recipe.model).eval()
        lesion, classes = network(torch.zeros(2, recipe.model.channels, recipe.model.size, recipe.model.size))
    assert classes.shape == (2, 3)
    if "lesion" in recipe.model.heads:
        assert lesion.shape == (2, 1, recipe.model.size, recipe.model.size)
    else:
        assert lesion is None
    assert network.get_submodule("encoder")


def test_the_parts_that_recipes_share_are_not_listed():
    names = recipe_names()
    assert {"default", "unet", "segformer", "resnet18", "fcn", "unet-scratch"} <= set(names)
    assert not set(names) & set(PARTS)


def test_a_recipe_says_only_what_differs_from_its_base(tmp_path):
    (tmp_path / "base.toml").write_text('name = "a"\n[fit]\nepochs = 3\nbatch = 2\n[fit.weights]\nbusi = 2\n')
    path = tmp_path / "over.toml"
    path.write_text('base = "base.toml"\nname = "b"\n[fit]\nbatch = 6\n[fit.weights]\nphantom = 0.5\n')
    recipe = read_recipe(str(path))
    assert (recipe.name, recipe.fit.epochs, recipe.fit.batch) == ("b", 3, 6)
    assert recipe.fit.weights == {"busi": 2, "phantom": 0.5}


def test_a_recipe_of_ones_own_builds_on_a_shipped_one(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text('base = "unet"\nname = "mine"\n[fit]\nepochs = 1\n')
    recipe, shipped = read_recipe(str(path)), read_recipe("unet")
    assert recipe.fit.epochs == 1
    assert recipe.model == shipped.model
    assert recipe.split == shipped.split


def test_recipes_in_a_circle_are_named(tmp_path):
    one, other = tmp_path / "one.toml", tmp_path / "other.toml"
    one.write_text('base = "other.toml"\nname = "one"\n')
    other.write_text('base = "one.toml"\nname = "other"\n')
    with pytest.raises(TrainingError, match=r"in a circle: \S*one\.toml -> \S*other\.toml -> \S*one\.toml"):
        read_recipe(str(one))


def test_settings_change_a_recipe_with_and_without_their_table():
    settings = ["epochs=2", "augment.scale=[0.9, 1.1]", "encoder=tu-resnet18", "fit.weights.busi=3", "name=x"]
    recipe = read_recipe("unet", settings)
    assert recipe.name == "x"
    assert recipe.fit.epochs == 2
    assert recipe.augment.scale == (0.9, 1.1)
    assert recipe.model.encoder == "tu-resnet18"
    assert recipe.fit.weights == {"busi": 3}
    # the rest stays
    assert recipe.fit.patience == read_recipe("unet").fit.patience


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("epochs", "'epochs' is no setting; write it as fit.epochs=20"),
        ("=3", "'=3' is no setting"),
        ("epoch=3", "the setting 'epoch' is in no table"),
        ("fit.epoch=3", r"unknown in the recipe: fit\.epoch; known: epochs, batch"),
        ("fits.epochs=3", "unknown in the recipe: fits; known: name, model, split, augment, fit, final"),
        ("fit=3", "the setting 'fit' is in no table"),
        ("epochs=abc", r"fit\.epochs must be a whole number, got 'abc'"),
        ("epochs=2.5", r"fit\.epochs must be a whole number, got 2\.5"),
        ("learning_rate=true", r"fit\.learning_rate must be a number, got True"),
        ("learning_rate=inf", r"fit\.learning_rate must be a number of ordinary size, got inf"),
        ("clip=nan", r"fit\.clip must be a number of ordinary size, got nan"),
        ("fit.weights.busi=inf", r"fit\.weights must be a number of ordinary size, got inf"),
        (f"fit.seed=1{'0' * 400}", r"fit\.seed must be a number of ordinary size, got 1000"),
        (f"fit.seed=1{'0' * 5000}", r"fit\.seed must be a whole number, got '1000"),
        (f"fit.seed={'[' * 5000}", r"fit\.seed must be a whole number, got '\[\["),
        ("freeze_norm=1", r"fit\.freeze_norm must be true or false, got 1"),
        ("fit.optimizer=3", r"fit\.optimizer must be text, got 3"),
    ],
)
def test_a_setting_that_is_wrong_is_named(setting, message):
    with pytest.raises(TrainingError, match=message):
        read_recipe("unet", [setting])


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({}, "no name"),
        ({"name": "a", "fits": {}}, "unknown in the recipe: fits"),
        ({"name": "a", "fit": 3}, r"fit is a table of the recipe: write fit\.KEY = VALUE"),
        ({"name": "a", "fit": {"epochs": 0}}, "epochs must be at least 1, got 0"),
        ({"name": "a", "fit": {"learning_rate": 0.0}}, "learning_rate must be positive, got 0"),
        ({"name": "a", "fit": {"ema": 1.0}}, r"ema must be in \[0, 1\), got 1"),
        ({"name": "a", "fit": {"strips": -0.1}}, r"strips must be in \[0, 1\)"),
        ({"name": "a", "fit": {"patience": -1}}, "patience must be 0 or more"),
        (
            {"name": "a", "fit": {"optimizer": "lion"}},
            "optimizer must be one of adamw, adam, sgd, got 'lion'",
        ),
        ({"name": "a", "fit": {"precision": "float8"}}, "precision must be one of auto, float32"),
        ({"name": "a", "fit": {"loss": "dice"}}, "loss must be one of cross-entropy"),
        ({"name": "a", "fit": {"weights": {"busi/bening": 2}}}, "no class 'bening' in 'busi/bening'"),
        ({"name": "a", "fit": {"weights": {"busi": -2}}}, "weight of 'busi' must be 0 or more, got -2"),
        ({"name": "a", "final": {"epochs": -1}}, "table final is wrong: epochs must be 0 or more"),
        ({"name": "a", "augment": {"blur": 1.5}}, r"blur must be in \[0, 1\], got 1\.5"),
        ({"name": "a", "augment": {"scale": [1.3, 0.7]}}, "scale must be two positive numbers in order"),
        ({"name": "a", "augment": {"scale": [0.5, float("inf")]}}, "scale must be two positive numbers"),
        (
            {"name": "a", "augment": {"rotation": -5.0}},
            r"augment is wrong: rotation must be in \[0, 180\], got -5",
        ),
        ({"name": "a", "augment": {"shear": 90.0}}, r"shear must be in \[0, 90\), got 90"),
        ({"name": "a", "augment": {"translation": 2.0}}, r"translation must be in \[0, 1\], got 2"),
        ({"name": "a", "model": {"size": 33}}, "multiple of 32"),
        ({"name": "a", "model": {"library": "keras"}}, "library must be one of smp, timm"),
        ({"name": "a", "model": {"library": "timm"}}, "only networks of smp have an encoder"),
        ({"name": "a", "split": {"test": 0.6, "validation": 0.6}}, "sum to less than 1"),
        ({"name": "a", "split": {"method": "random"}}, "method must be one of hashed, folds"),
    ],
)
def test_a_wrong_recipe_is_refused(values, message):
    with pytest.raises(TrainingError, match=message):
        parse_recipe(values)


def test_what_is_no_recipe_is_named(tmp_path):
    with pytest.raises(
        TrainingError,
        match=r"there is no recipe 'defualt'; there are: .*default, "
        r".*unetplusplus, and finetune for `sonoloop finetune` alone$",
    ):
        read_recipe("defualt")
    with pytest.raises(TrainingError, match=r"there is no recipe \S*gone\.toml"):
        read_recipe(str(tmp_path / "gone.toml"))
    damaged = tmp_path / "damaged.toml"
    damaged.write_text("name = ")
    with pytest.raises(TrainingError, match=r"damaged\.toml is not valid TOML"):
        read_recipe(str(damaged))
    damaged.write_bytes(b'name = "\xff"')
    with pytest.raises(TrainingError, match=r"damaged\.toml is not valid TOML"):
        read_recipe(str(damaged))


def test_half_precision_needs_cuda():
    config = FitConfig(precision="float16")
    config.check_device("cuda")
    for device in ("cpu", "mps"):
        with pytest.raises(TrainingError, match=f"float16, which needs CUDA, and this run is on {device}"):
            config.check_device(device)
