"""The command, a small model for it, and a folder of images in BUSI's layout."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from sonoloop.imaging.phantom import phantom

Run = Callable[..., subprocess.CompletedProcess[str]]
START = subprocess.Popen


@pytest.fixture(scope="session")
def sonoloop() -> Run:
    """Run `sonoloop` with arguments as a user would, in this process, which loads torch only once.

    Where the process itself is what is tested (signals, pipes), start ``python -m sonoloop``.
    """

    def run(*arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
        from sonoloop.cli import main

        line = ["sonoloop", *map(str, arguments)]
        with as_process(line, environment) as (out, err):
            code = run_to_exit(main)
        return subprocess.CompletedProcess(line, code, out.getvalue(), err.getvalue())

    return run


@contextmanager
def as_process(line: list[str], environment: dict[str, str]) -> Iterator[tuple[io.StringIO, io.StringIO]]:
    """Take standard output and error, and leave of a run what a process would."""
    from sonoloop.models.torch_import import before_torch

    # tests with windows may have come first
    before_torch()
    import torch

    out, err = io.StringIO(), io.StringIO()
    threads = torch.get_num_threads()
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(err):
            patch.setattr(sys, "argv", line)
            patch.setattr(subprocess, "Popen", start)
            patch.setattr(os, "nice", lambda less: less, raising=False)
            for name, value in environment.items():
                patch.setenv(name, value)
            yield out, err
    finally:
        torch.set_num_threads(threads)
        for number, handler in handlers.items():
            signal.signal(number, handler)


def run_to_exit(main: Callable[[], int]) -> int:
    try:
        return main()
    except SystemExit as ended:
        return ended.code if isinstance(ended.code, int) else int(ended.code is not None)


class TrainingHere:
    """What `subprocess.Popen` gives, for a command of training that ran in this process."""

    def __init__(self, arguments: list[str]) -> None:
        from sonoloop_training.__main__ import main

        told = io.StringIO()
        with redirect_stdout(told):
            self.returncode = run_to_exit(lambda: main(arguments))
        self.stdout = io.StringIO(told.getvalue())

    def __enter__(self) -> TrainingHere:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def wait(self, timeout: float | None = None) -> int:
        return self.returncode

    poll = wait


def start(line: list[str], **options: Any) -> Any:
    """Start a process, unless it is one of training."""
    if line[1:3] == ["-m", "sonoloop_training"]:
        return TrainingHere(line[3:])
    return START(line, **options)


@pytest.fixture(scope="session")
def model(tmp_path_factory) -> Path:
    """A bundle that knows nothing and is quick; it marks about half of every image."""
    import torch

    from sonoloop.models.bundle import Card, save_bundle
    from sonoloop.models.card import ModelSpec
    from sonoloop.models.networks import build_network

    torch.manual_seed(0)
    small = {"decoder_channels": [32, 16, 8, 8, 4]}
    spec = ModelSpec(encoder="tu-test_efficientnet", size=64, arguments=small)
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
