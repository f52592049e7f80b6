"""Both datasets in small, made of phantoms, and a recipe that trains on them in seconds."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from corrected import Project, copy_project, make_project
from PIL import Image
from tuning import tune

from sonoloop.imaging.phantom import phantom
from sonoloop.jobs.events import EpochDone, Event
from sonoloop.values import CLASSES
from sonoloop_training.fit.batches import Cache
from sonoloop_training.fit.loop import fit
from sonoloop_training.fit.recipe import Recipe, read_recipe

# float32: a trial of what pays could come to another answer in the run that is compared with
TINY = """
name = "tiny"
[model]
encoder = "tu-test_efficientnet"
size = 64
arguments = { decoder_channels = [32, 16, 8, 8, 4] }
[split]
validation = 0.25
test = 0.25
[fit]
epochs = 2
batch = 4
draws = 8
pretrained = false
phantoms = 1
precision = "float32"
graph = false
"""


@pytest.fixture(scope="session")
def recipe_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("recipe") / "tiny.toml"
    path.write_text(TINY)
    return path


@pytest.fixture(scope="session")
def tiny(recipe_file: Path) -> Callable[..., Recipe]:
    """Read the tiny recipe, with settings as `--set` takes them."""
    return lambda *settings: read_recipe(str(recipe_file), settings)


@pytest.fixture(scope="session")
def tiny_cache() -> Callable[..., Cache]:
    """Make images of noise, all but the first with a bright rectangle as lesion, the classes in turn."""

    def make(count: int = 8) -> Cache:
        rng = np.random.default_rng(0)
        masks = torch.zeros(count, 64, 64, dtype=torch.uint8)
        masks[1:, 20:40, 16:48] = 1
        images = torch.from_numpy(rng.integers(0, 120, (count, 64, 64), dtype=np.uint8)) + masks * 120
        names = tuple(f"busi/case {number}" for number in range(count))
        return Cache(images, masks, torch.arange(count) % 3, names, ("busi",) * count, torch.ones(count, 2))

    return make


@pytest.fixture(scope="session")
def run_fit(tiny_cache: Callable[..., Cache]) -> Callable[..., list[Event]]:
    """Fit on the images of `tiny_cache`, to the end or until an epoch is done, and give the events."""

    def run(recipe: Recipe, out: Path, *, stop_after: int | None = None, **options: Any) -> list[Event]:
        caches = {"train": tiny_cache(), "validation": tiny_cache(4)}
        events = []
        for event in fit(recipe, **{**caches, "out": out, "learns_from": "a", "device": "cpu", **options}):
            events.append(event)
            if isinstance(event, EpochDone) and event.epoch == stop_after:
                break
        return events

    return run


@pytest.fixture(scope="session")
def datasets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("datasets")
    busi = root / "Dataset_BUSI_with_GT"
    for label in CLASSES:
        (busi / label).mkdir(parents=True)
        for number in range(1, 9):
            made = phantom(label, seed=number, shape=(96, 128))
            Image.fromarray(made.image).save(busi / label / f"{label} ({number}).png")
            Image.fromarray(made.mask * 255).save(busi / label / f"{label} ({number})_mask.png")
    extra = phantom("benign", seed=99, shape=(96, 128)).mask
    Image.fromarray(extra * 255).convert("1").save(busi / "benign" / "benign (1)_mask_1.png")
    groups = [
        {"images": ["benign (1)", "benign (2)"]},
        {"images": ["benign (8)", "malignant (8)"], "conflicting_classes": True},
    ]
    (root / "busi_groups.json").write_text(json.dumps({"groups": groups}))

    busbra = root / "BUSBRA"
    (busbra / "Images").mkdir(parents=True)
    (busbra / "Masks").mkdir()
    with (busbra / "bus_data.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["ID", "Case", "Pathology"])
        for case in range(1, 9):
            label = CLASSES[1 + case % 2]
            for side in "lr":
                made = phantom(label, seed=case * 10 + ord(side), shape=(96, 128))
                table.writerow([f"bus_{case:04}-{side}", case, label])
                Image.fromarray(made.image).save(busbra / "Images" / f"bus_{case:04}-{side}.png")
                Image.fromarray(made.mask * 255).save(busbra / "Masks" / f"mask_{case:04}-{side}.png")
    return root


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> Project:
    return make_project(tmp_path_factory.mktemp("project"))


@pytest.fixture
def project(template: Project, tmp_path: Path) -> Project:
    """A store with nine corrections that train and six that judge, and the model in use."""
    return copy_project(template, tmp_path)


@pytest.fixture(autouse=True)
def _nothing_drawn(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave out the gate's pictures, a third of a small fine-tuning; that of `made` has them."""
    if request.path.name.startswith("test_finetune_"):
        monkeypatch.setattr("sonoloop_training.gate.comparison.draw_changes", draw_nothing)


def draw_nothing(*_: object, **__: object) -> Iterator[Event]:
    return {}, {}
    yield


@pytest.fixture(scope="session")
def made(template: Project, tmp_path_factory: pytest.TempPathFactory) -> tuple[Project, list[Event]]:
    """A fine-tuning that nobody disturbed."""
    project = copy_project(template, tmp_path_factory.mktemp("made"))
    return project, tune(project)
