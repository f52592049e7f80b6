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
from sonoloop.models.card import read_card
from sonoloop.models.predictor import Predictor
from sonoloop_training.datasets import find_datasets
from sonoloop_training.fit.operating_point import find_runs, fit_operating_point
from sonoloop_training.fit.recipe import read_recipe


@pytest.fixture
def samples(datasets):
    return find_datasets(datasets)


@pytest.fixture
def recipe(tiny):
    return tiny()


def make_run(folder: Path, samples, *, trained=("busi",)) -> Path:
    save_model(folder / "bundle", seed=0, name="tiny")
    listing = {"train": [sample.key for sample in samples if sample.dataset in trained]}
    (folder / "bundle" / "split.json").write_text(json.dumps(listing))
    return folder


def test_the_numbers_are_those_of_what_was_left_out(samples, recipe, tmp_path):
    run = make_run(tmp_path / "run", samples)
    (found,) = drain(find_runs([run], samples, recipe))
    assert (found.sites, len(found.samples)) == (("busbra",), 16)
    assert found.describe()["groups"] == 8
    card = read_bundle(run / "bundle").card
    fitted = drain(fit_operating_point(card, [found], device="cpu"))
    assert fitted.temperature != card.temperature
    assert 0.3 <= fitted.threshold <= 0.65
    # whatever it was at home
    assert fitted.agreement == {}


def test_a_run_that_says_nothing_of_a_new_hospital_is_refused(samples, recipe, tmp_path):
    run = make_run(tmp_path / "run", samples, trained=("busi", "busbra"))
    with pytest.raises(TrainingError, match=r"every hospital in the data had a part in .*leave-out:busbra"):
        drain(find_runs([run], samples, recipe))
    (run / "bundle" / "split.json").unlink()
    with pytest.raises(TrainingError, match="does not say who trained it"):
        drain(find_runs([run], samples, recipe))
    with pytest.raises(TrainingError, match="holds no finished training"):
        drain(find_runs([tmp_path], samples, recipe))


def test_one_image_of_a_hospital_is_enough_to_have_a_part(samples, recipe, tmp_path):
    run = make_run(tmp_path / "run", samples)
    split = run / "bundle" / "split.json"
    group = next(sample.group for sample in samples if sample.dataset == "busbra")
    validation = [{"name": "another", "group": group}]
    split.write_text(json.dumps(json.loads(split.read_text()) | {"validation": validation}))
    with pytest.raises(TrainingError, match="every hospital"):
        drain(find_runs([run], samples, recipe))


def test_a_network_of_another_size_is_shown_images_of_the_cards(samples, tiny, tmp_path, monkeypatch):
    run = make_run(tmp_path / "run", samples)
    found = drain(find_runs([run], samples, tiny()))
    card = read_card(run / "bundle")
    other = dataclasses.replace(card, spec=dataclasses.replace(card.spec, size=96), mirror_scale=0.8)
    seen = []
    original = Predictor.see
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(
            Predictor, "see", lambda self, frames: seen.append(self.card) or original(self, frames)
        )
        drain(fit_operating_point(other, found, device="cpu"))
    assert {(one.spec.size, one.mirror_scale) for one in seen} == {(96, 0.8)}


def test_a_run_of_another_network_is_told(samples, tmp_path):
    run = make_run(tmp_path / "run", samples)
    (notice,) = (e for e in find_runs([run], samples, read_recipe("unet")) if isinstance(e, Notice))
    assert "another network" in notice.message


def test_a_run_counts_once(samples, recipe, tmp_path):
    run = make_run(tmp_path / "run", samples)
    with pytest.raises(TrainingError, match=r"is given twice with --operating-point; give it once"):
        drain(find_runs([run, run / "bundle"], samples, recipe))
