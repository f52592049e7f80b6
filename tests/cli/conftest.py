"""The command as a process, a small model for it, and a folder of images in BUSI's layout."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sonoloop.imaging.phantom import phantom

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="session")
def sonoloop() -> Run:
    """Run `sonoloop` with arguments, as a user would."""

    def run(*arguments: object) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "sonoloop", *map(str, arguments)]
        return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)

    return run


@pytest.fixture(scope="session")
def model(tmp_path_factory) -> Path:
    """A bundle that knows nothing and is quick; it marks about half of every image."""
    import torch

    from sonoloop.models.bundle import Card, save_bundle
    from sonoloop.models.card import ModelSpec
    from sonoloop.models.networks import build_network

    torch.manual_seed(0)
    spec = ModelSpec(size=64)
    card = Card(name="tiny", spec=spec, views=1, normal_gate=1.0)
    folder = tmp_path_factory.mktemp("models") / "tiny"
    save_bundle(folder, build_network(spec).eval(), card)
    return folder


@pytest.fixture(scope="session")
def study(tmp_path_factory) -> Path:
    """Four images that can be read, two that cannot in their midst, and masks."""
    folder = tmp_path_factory.mktemp("study")
    benign, normal = folder / "benign", folder / "normal"
    benign.mkdir()
    normal.mkdir()
    lesion = phantom("benign", seed=1, shape=(96, 128))
    for name in ("benign (2).png", "benign (10).png"):
        Image.fromarray(lesion.image).save(benign / name)
    for name in ("benign (2)_mask.png", "benign (2)_mask_1.png", "benign (10)_mask.png"):
        Image.fromarray(lesion.mask * 255).save(benign / name)
    (benign / "benign (3).png").write_bytes((benign / "benign (2).png").read_bytes()[:900])
    deep = phantom("normal", seed=1, shape=(80, 100)).image.astype(np.uint16) * 16
    Image.fromarray(deep).save(normal / "normal (1).tif")
    Image.fromarray(deep.astype(np.float32).astype(np.uint8)).convert("RGB").save(normal / "normal (1).png")
    Image.fromarray(np.full((70, 70), 9, np.uint8)).save(normal / "normal (2).png")
    return folder


@pytest.fixture
def interruptible():
    """Python's own handler: a shell has what it runs in the background ignore SIGINT."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)
