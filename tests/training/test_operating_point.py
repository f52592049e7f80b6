"""Numbers of a card fitted on hospitals that were left out, by runs that are there already."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
from evaluation_models import save_model

from sonoloop.errors import TrainingError
from sonoloop.jobs.events import Notice, drain
from sonoloop.models.bundle import read_bundle
from sonoloop.models.card import CARD, read_card
from sonoloop_training.datasets import find_datasets
from sonoloop_training.fit.operating_point import find_runs, fit_operating_point
from sonoloop_training.fit.recipe import read_recipe

LEFT_OUT = {"recipe": {"split": {"method": "leave-dataset", "left_out": "busbra"}}}


@pytest.fixture
def samples(datasets):
    return find_datasets(datasets)


@pytest.fixture
def recipe(tiny):
    return tiny()


def make_run(folder: Path, samples, *, snapshot=LEFT_OUT, train=(), test=None) -> Path:
    save_model(folder / "bundle", seed=0, name="tiny")
    card = dataclasses.replace(read_card(folder / "bundle"), snapshot=snapshot)
    (folder / "bundle" / CARD).write_text(card.to_json())
    chosen = [sample for sample in samples if sample.dataset == "busbra"] if test is None else test
    listing = {"train": list(train), "validation": [], "test": [sample.key for sample in chosen]}
    (folder / "bundle" / "split.json").write_text(json.dumps(listing))
    return folder


def test_the_numbers_are_those_of_what_was_left_out(samples, recipe, tmp_path):
    run = make_run(tmp_path / "run", samples)
    (found,) = drain(find_runs([run], samples, recipe))
    assert (found.site, len(found.samples)) == ("busbra", 16)
    assert found.describe()["groups"] == 8
    card = read_bundle(run / "bundle").card
    fitted = drain(fit_operating_point(card, [found], device="cpu"))
    assert fitted.temperature != card.temperature
    assert 0.3 <= fitted.threshold <= 0.65
    # whatever it was at home
    assert fitted.agreement == {}


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"snapshot": {}}, "left no hospital out .its split is not recorded."),
        (
            {"snapshot": {"recipe": {"split": {"method": "folds"}}}},
            "left no hospital out .its split is folds.",
        ),
        ({"test": []}, "lists no image that it left out"),
        ({"train": ["busbra/bus_0001-l"]}, "trained on 1 of the images that it left out"),
    ],
)
def test_a_run_that_says_nothing_of_a_new_hospital_is_refused(samples, recipe, tmp_path, changes, why):
    run = make_run(tmp_path / "run", samples, **changes)
    with pytest.raises(TrainingError, match=why):
        drain(find_runs([run], samples, recipe))


def test_a_run_that_is_none_or_of_other_data_is_refused(samples, recipe, tmp_path):
    with pytest.raises(TrainingError, match="holds no finished training"):
        drain(find_runs([tmp_path], samples, recipe))
    run = make_run(tmp_path / "run", samples)
    others = [sample for sample in samples if sample.dataset == "busi"]
    with pytest.raises(TrainingError, match=r"none of the 16 images that .* left out"):
        drain(find_runs([run], others, recipe))


def test_a_run_of_another_network_is_told(samples, tmp_path):
    run = make_run(tmp_path / "run", samples)
    (notice,) = (e for e in find_runs([run], samples, read_recipe("unet")) if isinstance(e, Notice))
    assert "another network or size" in notice.message


def test_a_run_counts_once_and_images_that_are_not_here_are_told(samples, recipe, tmp_path):
    run = make_run(tmp_path / "run", samples)
    with pytest.raises(TrainingError, match=r"is given twice with --operating-point; give it once"):
        drain(find_runs([run, run / "bundle"], samples, recipe))
    some = [sample for sample in samples if sample.dataset == "busi"]
    some += [sample for sample in samples if sample.dataset == "busbra"][:3]
    told = [e.message for e in find_runs([run], some, recipe) if isinstance(e, Notice)]
    assert any("3 of the 16 images that tiny-" in message for message in told)
