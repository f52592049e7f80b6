"""How late a 20 ms timer of napari's event loop is while a fine-tuning runs, against without one.

xvfb-run -a -s "-screen 0 1600x1000x24" python benchmarks/heartbeat.py [--seconds 60] [--out FILE]

The Train panel is open and starts the real process, as a user would. Without, with and without again are
measured in one run, on one machine; the two without are taken together.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import napari
import numpy as np
from phantom_project import make_project
from qtpy.QtCore import QObject, Qt, QTimer
from qtpy.QtWidgets import QApplication, QPushButton

from sonoloop.gui.preferences import Preferences
from sonoloop.gui.train.panel import TrainPanel
from sonoloop.gui.train.progress import Stage

BEAT_MS = 20
TARGET = 1.5


class Heartbeat(QObject):
    """Notes how late each beat is, in milliseconds."""

    def __init__(self) -> None:
        super().__init__()
        self._timer = QTimer(self)
        self._timer.setTimerType(Qt.TimerType.PreciseTimer)
        self._timer.setInterval(BEAT_MS)
        self._timer.timeout.connect(self._beat)
        self._last = 0.0
        self.late: list[float] = []

    def _beat(self) -> None:
        now = time.perf_counter()
        self.late.append(max(0.0, 1000 * (now - self._last) - BEAT_MS))
        self._last = now

    def measure(self, seconds: float) -> list[float]:
        """Let the event loop run, and return how late the beats were."""
        self.late = []
        self._last = time.perf_counter()
        self._timer.start()
        end = time.monotonic() + seconds
        spin(lambda: time.monotonic() > end, seconds=seconds + 60)
        self._timer.stop()
        return self.late[5:]


def spin(condition: Callable[[], bool], *, seconds: float) -> None:
    """Run the event loop until something holds; it sleeps in between, as it does for a user."""
    end = time.monotonic() + seconds
    app = QApplication.instance()
    assert app is not None
    check = QTimer()
    check.setInterval(100)
    check.timeout.connect(lambda: app.exit() if condition() or time.monotonic() > end else None)
    check.start()
    app.exec()
    check.stop()
    if not condition():
        raise TimeoutError("the window did not get there")


def describe(late: list[float]) -> dict[str, float]:
    """Sum up the lateness of beats."""
    return {
        "beats": len(late),
        "median_ms": round(float(np.median(late)), 3),
        "p99_ms": round(float(np.percentile(late, 99)), 3),
        "most_ms": round(max(late), 3),
    }


def main() -> None:
    """Measure, and write the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=60, help="with training, and without")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "heartbeat.json")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        # the models of whoever runs this are left alone
        os.environ["XDG_DATA_HOME"] = scratch
        url = make_project(Path(scratch), train=24, test=0)
        viewer = napari.Viewer(show=True)
        viewer.open_sample("napari-sonoloop", "study")
        panel = TrainPanel(viewer, preferences=lambda: Preferences(store=url, device="cpu"))
        viewer.window.add_dock_widget(panel, name="Train", area="right")
        start = next(button for button in panel.findChildren(QPushButton) if button.text() == "Fine-tune")
        spin(start.isEnabled, seconds=60)
        heart = Heartbeat()
        heart.measure(5)  # what is loaded late
        before = heart.measure(options.seconds / 2)
        start.click()
        spin(lambda: bool(panel.watch.progress.losses), seconds=300)
        during = heart.measure(options.seconds)
        ran = panel.watch.progress.stage is Stage.RUNNING
        losses = len(panel.watch.progress.losses)
        panel.watch.stop()
        spin(lambda: not panel.watch.progress.stage.alive, seconds=60)
        after = heart.measure(options.seconds / 2)
        panel.close_session()
        viewer.close()
    if not ran:
        raise RuntimeError("the fine-tuning ended before the measurement did: give fewer --seconds")
    without, with_training = describe(before + after), describe(during)
    ratio = with_training["p99_ms"] / without["p99_ms"]
    result = {
        "what": f"lateness of a {BEAT_MS} ms timer of napari's event loop",
        "without": without,
        "with": with_training,
        "ratio_p99": round(ratio, 3),
        "target": TARGET,
        "losses_shown": losses,
        "machine": {
            "cpu": platform.processor() or platform.machine(),
            "cores": os.cpu_count(),
            "load": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
            "python": platform.python_version(),
            "napari": napari.__version__,
        },
    }
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result, indent=1))
    sys.exit(ratio > TARGET)


if __name__ == "__main__":
    main()
