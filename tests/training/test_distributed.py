"""Several processes under ``torchrun`` learn what one does with the same batch."""

from __future__ import annotations

import io
import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from contextlib import redirect_stdout
from pathlib import Path

import pytest
import torch

from forked import Program
from sonoloop_training.__main__ import main

# What several processes compute is that of one, but for rounding, only where no statistics are of a part of
# the batch. Adam divides a gradient by its own size: of one that is about nothing, the rounding error becomes
# a whole step.
ALIKE = (
    "freeze_norm=true",
    "dropout=0.0",
    "optimizer=sgd",
    "learning_rate=0.02",
    "encoder_learning_rate=0.01",
    "epochs=3",
    "strips=0.3",
    "final.epochs=1",
)


def run_alone(recipe: Path, data: Path, out: Path, *settings: str) -> list[dict]:
    """Train in this process and give the events."""
    told, threads = io.StringIO(), torch.get_num_threads()
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        with redirect_stdout(told):
            assert main(arguments_for(recipe, data, out, settings)) == 0
    finally:
        torch.set_num_threads(threads)
        for number, handler in handlers.items():
            signal.signal(number, handler)
    return [json.loads(line) for line in told.getvalue().splitlines() if line.startswith("{")]


def arguments_for(recipe: Path, data: Path, out: Path, settings: Sequence[str]) -> list[str]:
    arguments = ["train", str(recipe), "--data", str(data), "--out", str(out), "--device", "cpu"]
    for setting in settings:
        arguments += ["--set", setting]
    return [*arguments, "--threads", "1"]


def run(command: list[str], recipe: Path, data: Path, out: Path, *settings: str) -> list[dict]:
    """Train in processes and give the events, which only one may tell."""
    arguments = arguments_for(recipe, data, out, settings)
    answer = subprocess.run(
        [sys.executable, *command, "-m", "sonoloop_training", *arguments],
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert answer.returncode == 0, answer.stdout[-2000:] + answer.stderr[-4000:]
    return [json.loads(line) for line in answer.stdout.splitlines() if line.startswith("{")]


def run_together(count: int, recipe: Path, data: Path, out: Path, *settings: str) -> list[dict]:
    """Train in processes that are told what ``torchrun`` tells its own, and give the events of all."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    shared = {
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "TORCHELASTIC_RUN_ID": "none",
        "WORLD_SIZE": str(count),
        "LOCAL_WORLD_SIZE": str(count),
    }
    arguments = arguments_for(recipe, data, out, settings)
    programs = [
        Program("sonoloop_training", *arguments, **shared, RANK=str(rank), LOCAL_RANK=str(rank))
        for rank in range(count)
    ]
    ended = [program.end() for program in programs]
    assert [code for code, *_ in ended] == [0] * count, ended
    return [json.loads(line) for _, told, _ in ended for line in told.splitlines() if line.startswith("{")]


def torchrun(processes: int) -> list[str]:
    return ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]


def weights(out: Path, name: str) -> dict[str, torch.Tensor]:
    return torch.load(out / name, weights_only=True)["average"]


def test_two_processes_learn_what_one_does(datasets, recipe_file, tmp_path):
    one, two = tmp_path / "one", tmp_path / "two"
    alone = run_alone(recipe_file, datasets, one, *ALIKE)
    together = run_together(2, recipe_file, datasets, two, *ALIKE)

    # the first process alone speaks: nothing is told twice
    assert Counter(event["event"] for event in together) == Counter(event["event"] for event in alone)
    starts = [[e["processes"] for e in events if e["event"] == "started"] for events in (alone, together)]
    assert starts == [[1, 1], [2, 2]]
    losses, others = (
        [event["loss"] for event in events if event["event"] == "epoch_done"] for events in (alone, together)
    )
    assert len(losses) == 4
    assert losses == pytest.approx(others, abs=1e-5)
    assert max(losses) - min(losses) > 1e-3
    for name in ("checkpoint.pt", "final.pt"):
        torch.testing.assert_close(weights(one, name), weights(two, name), atol=1e-5, rtol=0)
    assert sorted(path.name for path in one.iterdir()) == sorted(path.name for path in two.iterdir())
    scores = [json.loads((out / "results.json").read_text())["metrics"]["test"]["all"] for out in (one, two)]
    assert scores[0]["lesion_dice"]["value"] == pytest.approx(scores[1]["lesion_dice"]["value"], abs=1e-3)


SPOILED = """
import os
from sonoloop_training.fit import loop as steps
from sonoloop_training.__main__ import main

real = steps.joint_loss
nan = float("nan") if os.environ["RANK"] == "1" else 1.0
steps.joint_loss = lambda *given: real(*given) * nan
raise SystemExit(main())
"""


@pytest.mark.slow
def test_a_loss_that_is_not_finite_on_one_process_stops_all_and_is_told(datasets, recipe_file, tmp_path):
    script = tmp_path / "spoiled.py"
    script.write_text(SPOILED)
    arguments = ["train", recipe_file, "--data", datasets, "--out", tmp_path / "out", "--device", "cpu"]
    answer = subprocess.run(
        [sys.executable, *torchrun(2), script, *arguments, "--threads", "1"],
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert answer.returncode != 0
    (failed,) = (json.loads(line) for line in answer.stdout.splitlines() if '"failed"' in line)
    # a batch of four, of which the second process has two
    told = re.fullmatch(
        r"the loss is nan in epoch 1, batch 1 on process 1 \((.*)\); the last .*", failed["error"]
    )
    assert told, failed
    assert len(told[1].split(", ")) == 2
    assert f"process 1: {failed['error']}" in answer.stderr
    # that of before the first epoch
    assert torch.load(tmp_path / "out" / "checkpoint.pt", weights_only=True)["epoch"] == 0


@pytest.mark.slow
def test_processes_with_statistics_of_their_own_stop_together(datasets, recipe_file, tmp_path):
    settings = ("epochs=12", "patience=1", "ema=0.5", "learning_rate=0.02")
    events = run(torchrun(2), recipe_file, datasets, tmp_path / "out", *settings)
    done = [event for event in events if event["event"] == "epoch_done"]
    assert done[-1]["epoch"] == done[-1]["best_epoch"] + 1 or done[-1]["epoch"] == 12
    assert events[-1]["event"] == "finished"


@pytest.mark.slow
def test_a_batch_that_cannot_be_shared_is_refused_and_nothing_written(datasets, recipe_file, tmp_path):
    command = [*torchrun(3), "-m", "sonoloop_training", "train", recipe_file, "--data", datasets]
    answer = subprocess.run(
        [sys.executable, *command, "--out", tmp_path / "out", "--device", "cpu"],
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert answer.returncode != 0
    assert "a batch of 4 cannot be shared by 3 processes; set fit.batch" in answer.stdout
    assert not (tmp_path / "out").exists()
