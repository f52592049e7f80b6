"""A real napari is killed while somebody paints: what comes back is at most two seconds old."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

pytestmark = [pytest.mark.nightly, pytest.mark.gui, pytest.mark.timeout(900)]

KILLS = 5
START_SECONDS = 120


def start(folder: Path, seed: int) -> subprocess.Popen:
    (folder / "back.json").unlink(missing_ok=True)
    own = {f"XDG_{name}_HOME": str(folder / name) for name in ("DATA", "CONFIG", "CACHE")}
    script = Path(__file__).with_name("painting_napari.py")
    arguments = [folder / "case.png", f"sqlite:///{folder / 'study.sqlite'}", folder, seed]
    return subprocess.Popen(
        [sys.executable, str(script), *map(str, arguments)],
        env=os.environ | own,
        stderr=(folder / "errors").open("ab"),
    )


def wait_for_back(folder: Path, process: subprocess.Popen) -> dict:
    end = time.monotonic() + START_SECONDS
    while not (folder / "back.json").exists():
        assert process.poll() is None and time.monotonic() < end, (folder / "errors").read_text()
        time.sleep(0.05)
    return json.loads((folder / "back.json").read_text())


def read_steps(folder: Path) -> list[list[str]]:
    """Read when what was on the canvas; the next napari begins a file of its own."""
    lines = [line.split() for line in (folder / "steps").read_text().splitlines()]
    (folder / "steps").unlink()
    return lines


def seconds_lost(lines: list[list[str]], killed: float, back: str) -> float:
    """How long before the kill that was on the canvas for the last time what came back."""
    until = [float(moment) for moment, _ in lines[1:]] + [killed]
    shown = [end for end, (_, digest) in zip(until, lines, strict=True) if digest == back]
    assert shown, "what came back was never on the canvas"
    return max(0.0, killed - shown[-1])


@pytest.mark.parametrize("seed", range(4))
def test_a_kill_costs_at_most_two_seconds_and_the_rest_comes_back_each_time(tmp_path, seed, capsys):
    image = np.random.default_rng(seed).integers(0, 255, (300, 400)).astype(np.uint8)
    Image.fromarray(image).save(tmp_path / "case.png")
    chance, lost, made = random.Random(seed), [], []
    process = start(tmp_path, seed)
    try:
        assert wait_for_back(tmp_path, process)["said"] == ""
        for kill in range(KILLS):
            time.sleep(chance.uniform(2.1, 4))
            process.send_signal(signal.SIGKILL)
            process.wait()
            killed = time.time()
            steps = read_steps(tmp_path)
            made.append(len(steps))
            process = start(tmp_path, 100 * seed + kill + 1)
            back = wait_for_back(tmp_path, process)
            assert back["said"].startswith("Your unfinished work of ")
            assert back["label"] == "malignant"
            lost.append(seconds_lost(steps, killed, back["digest"]))
    finally:
        process.kill()
        process.wait()
    with capsys.disabled():
        said = (f"{seconds:.2f} after {steps} steps" for seconds, steps in zip(lost, made, strict=True))
        sys.stdout.write(f"\nseconds lost by {KILLS} kills: {', '.join(said)}\n")
    assert max(lost) <= 2
    assert not list((tmp_path / "DATA").rglob("*.aside-*"))
