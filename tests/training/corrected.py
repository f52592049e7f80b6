"""A store with corrections of phantoms, and a small model in use, for tests of fine-tuning."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch
from PIL import Image

from sonoloop.imaging.io import read_frame
from sonoloop.imaging.phantom import phantom
from sonoloop.jobs.events import Progress
from sonoloop.models.bundle import Bundle, save_bundle
from sonoloop.models.card import Card, ModelSpec
from sonoloop.models.library import Library
from sonoloop.models.networks import build_network
from sonoloop.store import CorrectionStore
from sonoloop.store.file_index import Places
from sonoloop.store.groups import place_frame
from sonoloop.store.promotions import ensure_incumbent
from sonoloop.store.test_sets import freeze_test_set, record_evaluation
from sonoloop.values import CLASSES, Correction, Prediction
from sonoloop_training.__main__ import main
from sonoloop_training.finetune import run

SPEC = ModelSpec(
    encoder="tu-test_efficientnet", size=64, arguments={"decoder_channels": [32, 16, 8, 8, 4]}, dropout=0.0
)


@dataclass(frozen=True, kw_only=True)
class Project:
    """A store, the images that its corrections are about, and where models lie."""

    url: Path
    images: Path
    library: Library
    base: Bundle


def make_base(library: Library, *, seed: int = 0, trained: Iterable[dict[str, str]] = ()) -> Bundle:
    """Make a model that knows nothing, and says who trained it."""
    torch.manual_seed(seed)
    network = build_network(SPEC).eval()
    card = Card(name="base", spec=SPEC, views=1, normal_gate=1.0, min_area=0.0)
    folder = library.folder.parent / f"base-{seed}"
    library.folder.mkdir(parents=True, exist_ok=True)
    split = {"train": list(trained), "validation": [], "test": []}
    made = save_bundle(folder, network, card, beside={"split.json": json.dumps(split).encode()})
    library.add(folder)
    return made


def copy_project(project: Project, folder: Path) -> Project:
    """Copy a store with all that belongs to it; the images are shared."""
    shutil.copy(project.url, folder / "store.sqlite")
    shutil.copytree(project.url.with_suffix(".sonoloop"), folder / "store.sonoloop")
    library = Library(folder / "data" / "sonoloop" / "models")
    shutil.copytree(project.library.folder, library.folder)
    return replace(project, url=folder / "store.sqlite", library=library)


def gate_that_says(verdict: str):
    """A gate whose look says what it is told to; how it comes to a verdict is another test's matter."""

    def judge(store, candidate, in_use, **options):
        look = record_evaluation(
            store,
            test_set=freeze_test_set(store).number,
            candidate=candidate,
            incumbent=in_use,
            verdict=verdict,
            reason="because",
            figures={},
            who=options["who"],
        )
        yield Progress(stage="Judging", done=1, total=1)
        return SimpleNamespace(verdict=SimpleNamespace(verdict=verdict, reason="because"), look=look)

    return judge


def tune_in_process(arguments: list[str], environment: dict[str, str], verdict: str | None = None) -> None:
    """Run the command ``finetune`` as this process; `verdict` stands for the gate's own."""
    os.environ.update(environment)
    if verdict is not None:
        run.judge = gate_that_says(verdict)
    raise SystemExit(main(["finetune", *arguments]))


def make_project(
    folder: Path, *, train: int = 9, test: int = 6, trained: Iterable[dict[str, str]] = ()
) -> Project:
    """Make a store with corrections of phantoms of all classes in turn, drawn without a prediction."""
    folder.mkdir(parents=True, exist_ok=True)
    # where a process finds it whose XDG_DATA_HOME is the folder "data"
    library = Library(folder / "data" / "sonoloop" / "models")
    base = make_base(library, trained=trained)
    project = Project(url=folder / "store.sqlite", images=folder / "images", library=library, base=base)
    project.images.mkdir()
    with CorrectionStore(project.url) as store:
        ensure_incumbent(store, version=base.version, model=base.model, who="test")
        for number in range(train + test):
            add(store, project.images, number, role="train" if number < train else "test")
    return project


def add(
    store: CorrectionStore,
    images: Path,
    number: int,
    *,
    role: str = "train",
    label: str | None = None,
    drawn: bool | None = None,
    patient: str | None = None,
    annotator: str = "anna",
    prediction: Prediction | None = None,
    seen: bool = False,
) -> str:
    """Write a phantom, place it and store a correction of it; gives the frame's id.

    The class goes by turns, the mask is the phantom's; `label` and `drawn` say something else than it shows.
    """
    shown = CLASSES[number % 3]
    made = phantom(shown, seed=200 + number, shape=(96, 128))
    path = images / f"image {number}.png"
    Image.fromarray(made.image).save(path)
    frame = read_frame(path)
    place_frame(store, frame, role=role, patient=patient or f"patient {number}")
    Places(store.url).remember(frame.id, path, index=0, pixels_hash=frame.pixels_hash)
    mask = (made.mask > 0).astype(np.uint8)
    if drawn is not None:
        mask = np.zeros_like(mask)
        mask[30:60, 40:80] = drawn
    correction = Correction(
        frame_id=frame.id,
        pixels_hash=frame.pixels_hash,
        mask=mask,
        label=label or shown,
        annotator=annotator,
        prediction=prediction,
        prediction_seen=seen,
    )
    store.accept(correction, parent=None)
    return frame.id
