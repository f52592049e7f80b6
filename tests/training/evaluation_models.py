"""A model and data that are evaluated in seconds."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

import torch

from sonoloop.jobs.events import Event
from sonoloop.models.bundle import Card, save_bundle
from sonoloop.models.card import ModelSpec
from sonoloop.models.networks import build_network
from sonoloop_training.datasets import find_datasets
from sonoloop_training.evaluation.evaluate import EvaluateRequest, evaluate
from sonoloop_training.evaluation.scores import read_case

SPEC = ModelSpec(encoder="tu-test_efficientnet", size=64, arguments={"decoder_channels": [32, 16, 8, 8, 4]})


def save_model(folder: Path, *, seed: int = 0, spec: ModelSpec = SPEC, **card: object) -> Path:
    torch.manual_seed(seed)
    values = {"name": "tiny", "spec": spec, "views": 1, "normal_gate": 1.0, "min_area": 0.0}
    save_bundle(folder, build_network(spec).eval(), Card(**(values | card)))
    return folder


def copy_small(datasets: Path, root: Path) -> Path:
    """A dozen images of the BUSI phantoms, one of them broken."""
    shutil.copy(datasets / "busi_groups.json", root)
    for label in ("benign", "malignant", "normal"):
        (root / "BUSI" / label).mkdir(parents=True)
        for number in range(1, 5):
            for end in (".png", "_mask.png"):
                name = f"{label} ({number}){end}"
                shutil.copy(datasets / "Dataset_BUSI_with_GT" / label / name, root / "BUSI" / label)
    broken = root / "BUSI" / "normal" / "normal (4).png"
    broken.write_bytes(broken.read_bytes()[:500])
    return root


def members(data: Path, names: set[str]) -> list[dict[str, str]]:
    samples = [s for s in find_datasets(data) if f"{s.dataset}/{s.name}" in names]
    return [dataclasses.asdict(read_case(sample).listed()) for sample in samples]


def run(data: Path, out: Path | None, model: Path, **changes: object) -> list[Event]:
    return list(evaluate(EvaluateRequest(data=data, model=str(model), out=out, device="cpu", **changes)))
