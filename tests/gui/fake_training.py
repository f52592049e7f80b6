"""Stands in for the training process: the same command line, folder, events and obedience, no network.

python fake_training.py sonoloop_training JOBS MODE [--job FOLDER]; MODE is "done", "slow", "fails" or "gone",
where files are.
"""

from __future__ import annotations

import json
import os
import socket
import sys
import time
from pathlib import Path

EPOCHS, STEPS = 3, 4
LESSONS = {"benign": 6, "malignant": 2}
GATE = {
    "event": "gate",
    "verdict": "promote",
    "reason": "Dice is higher, and nothing else is worse by more than its margin",
    "difference": 0.031,
    "interval": [0.012, 0.05],
    "missed_malignant": 0.0,
    "false_alarms": -0.02,
    "auc": 0.004,
    "groups": 64,
    "frames": 70,
    "groups_needed": None,
    "test_set": 3,
    "look": 17,
    "looks": 5,
    "candidate": "c" * 64,
    "incumbent": "a" * 64,
    "pictures": {},
}


def say(folder: Path | None, event: dict[str, object]) -> None:
    line = json.dumps(event)
    sys.stdout.write(line + "\n")
    sys.stdout.flush()
    if folder is not None:
        with (folder / "events.jsonl").open("a", encoding="utf-8") as file:
            file.write(line + "\n")


def events(first: int) -> list[dict[str, object]]:
    """What a training says from an epoch on."""
    told: list[dict[str, object]] = [
        {
            "event": "selected",
            "by_class": LESSONS,
            "left_out": [{"frame": "f" * 64, "why": "a lesion on a frame called normal"}],
        },
        {"event": "started", "device": "cpu", "epoch": first, "epochs": EPOCHS},
    ]
    for epoch in range(first + 1, EPOCHS + 1):
        for step in range(1, STEPS + 1):
            loss = 1 / (epoch + step / STEPS)
            place = {"epoch": epoch, "epochs": EPOCHS, "step": step, "steps": STEPS}
            told.append({"event": "step", **place, "loss": loss, "seconds_left": 70.0})
        told.append(
            {"event": "epoch_done", "epoch": epoch, "epochs": EPOCHS, "dice": 0.7 + 0.02 * epoch, "loss": 0.3}
        )
    return told


def main() -> int:
    jobs, mode = Path(sys.argv[2]), sys.argv[3]
    if mode == "fails":
        say(None, {"event": "failed", "error": "there are 3 corrections; fine-tuning needs 5: accept more"})
        return 1
    again = "--job" in sys.argv
    folder = Path(sys.argv[-1]) if again else jobs / f"20260101-000000-{os.getpid():04x}"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "stop").unlink(missing_ok=True)
    state: dict[str, object] = {
        "pid": os.getpid(),
        "host": socket.gethostname(),
        "who": "anna",
        "what": "a fine-tuning",
    }
    state["plan"] = {"snapshot": "third"}
    (folder / "job.json").write_text(json.dumps(state))
    say(folder, {"event": "job", "folder": str(folder)})
    if mode == "gone":
        error = f"{'f' * 12} is gone; go on without it with --skip-missing"
        say(folder, {"event": "failed", "error": error})
        return 1
    for event in events(2 if again else 0):
        say(folder, event)
        time.sleep(0.3 if mode == "slow" else 0)
        if (folder / "stop").exists() and mode == "slow":
            say(folder, {"event": "failed", "error": "interrupted"})
            return 130
    say(folder, GATE)
    say(folder, {"event": "finished", "model": "ft-cccccccc", "path": "", "minutes": 0.1})
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
