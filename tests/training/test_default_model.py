"""The model that ships, on the frames that its recipe keeps for testing."""

from __future__ import annotations

import json

import pytest

from sonoloop.models.predictor import Predictor
from sonoloop.models.registry import load_bundle
from sonoloop_training.datasets import find_datasets
from sonoloop_training.recipe import read_recipe
from sonoloop_training.run import describe_split, evaluate, hash_split
from sonoloop_training.splits import split


@pytest.mark.data
def test_the_default_model_reaches_on_its_test_groups_what_its_card_says(data, root):
    recipe, bundle = read_recipe("default"), load_bundle()
    parts = split(
        find_datasets(data), validation=recipe.split.validation, test=recipe.split.test, key=recipe.split.key
    )
    assert hash_split(describe_split(parts)) == bundle.card.snapshot["split_sha256"], "other frames trained"
    results = json.loads((root / "training" / "results" / "default.json").read_text())
    assert results["version"] == bundle.version
    measured = evaluate(Predictor(bundle, device="cpu"), parts["test"])
    for dataset, least in (("busi", 0.75), ("busbra", 0.87)):
        written = results["metrics"]["test"][dataset]["lesion_dice"]["value"]
        assert measured[dataset]["lesion_dice"]["value"] == pytest.approx(written, abs=0.01)
        assert written >= least


def test_the_card_and_the_recipe_are_of_one_making():
    bundle = load_bundle()
    assert bundle.card.snapshot["recipe"] == json.loads(json.dumps(read_recipe("default").to_dict()))
