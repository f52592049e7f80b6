"""Stands in for the training process: the same command line, folder, events and obedience, no network.

python fake_training.py sonoloop_training JOBS MODE [FOLDER]; MODE is "done", "slow", "fails" or "gone",
where files are.
"""

from __future__ import annotations

import json
import os
import socket
import sys
import time
from pathlib import Path

from sonoloop.jobs.events import (
    EpochDone,
    Event,
    Failed,
    Finished,
    Gate,
    Job,
    LeftOut,
    Selected,
    Started,
    Step,
)

EPOCHS, STEPS = 3, 4
GATE = Gate(
    verdict="promote",
    reason="Dice is higher, and nothing else is worse by more than its margin",
    difference=0.031,
    interval=(0.012, 0.05),
    missed_malignant=0.0,
    false_alarms=-0.02,
    auc=0.004,
    groups=64,
    frames=70,
    test_set=3,
    look=17,
    looks=5,
    candidate="c" * 64,
    incumbent="a" * 64,
)
SELECTED = Selected(
    snapshot="third",
    sha256="0" * 64,
    base="model-aaaaaaaa",
    train=8,
    by_class={"benign": 6, "malignant": 2},
    test_groups=64,
    left_out=[LeftOut(frame="f" * 64, why="a lesion on a frame called normal")],
    replay=0,
)


def say(folder: Path | None, event: Event) -> None:
    line = event.to_json()
    sys.stdout.write(line + "\n")
    sys.stdout.flush()
    if folder is not None:
        with (folder / "events.jsonl").open("a", encoding="utf-8") as file:
            file.write(line + "\n")


def epoch_done(epoch: int, dice: float | None) -> EpochDone:
    return EpochDone(
        epoch=epoch,
        epochs=EPOCHS,
        loss=0.3,
        dice=dice,
        missed=None,
        false_alarms=None,
        accuracy=None,
        score=None,
        best_epoch=epoch,
        seconds=1.0,
    )


def events(first: int) -> list[Event]:
    """What a training says from an epoch on."""
    started = Started(
        recipe="ft",
        device="cpu",
        precision="float32",
        train=8,
        validation=0,
        test=0,
        epoch=first,
        epochs=EPOCHS,
        steps=STEPS,
        processes=1,
    )
    told: list[Event] = [SELECTED, started]
    for epoch in range(first + 1, EPOCHS + 1):
        for step in range(1, STEPS + 1):
            loss = 1 / (epoch + step / STEPS)
            place = {"epoch": epoch, "epochs": EPOCHS, "step": step, "steps": STEPS}
            told.append(Step(**place, loss=loss, seconds_left=70.0))
        told.append(epoch_done(epoch, 0.7 + 0.02 * epoch))
    return told


def main() -> int:
    jobs, mode = Path(sys.argv[2]), sys.argv[3]
    if mode == "fails":
        say(None, Failed(error="there are 3 corrections; fine-tuning needs 5: accept more"))
        return 1
    again = len(sys.argv) > 4
    folder = Path(sys.argv[4]) if again else jobs / f"20260101-000000-{os.getpid():04x}"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "stop").unlink(missing_ok=True)
    state: dict[str, object] = {
        "pid": os.getpid(),
        "host": socket.gethostname(),
        "who": "anna",
        "what": "a fine-tuning",
    }
    state["plan"] = {"snapshot": "third", "max_minutes": 45.0}
    (folder / "job.json").write_text(json.dumps(state))
    say(folder, Job(folder=str(folder)))
    if mode == "gone":
        error = f"{'f' * 12} is gone; go on without it with --skip-missing"
        say(folder, Failed(error=error, kind="missing_files"))
        return 1
    for event in events(2 if again else 0):
        say(folder, event)
        time.sleep(0.3 if mode == "slow" else 0)
        if (folder / "stop").exists() and mode == "slow":
            say(folder, Failed(error="interrupted", kind="interrupted"))
            return 130
    say(folder, GATE)
    say(folder, Finished(model="ft-cccccccc", path="", minutes=0.1))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
