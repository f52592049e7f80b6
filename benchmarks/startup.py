"""How soon the first mask is there, on the command line and in napari, and how much disk an install takes.

    python benchmarks/startup.py [--repeats 5] [--window] [--sizes WITHOUT WITH] [--json] [--out FILE]

Each figure is of processes of their own, with this interpreter; files are in the disk's cache from the
second one on, and the best counts. For `sonoloop predict IMAGE` the clock stops when the first result is
printed, its mask on disk. With --window (under Xvfb where there is no display) napari opens on the sample
study with the Annotate, Train and Models panels docked, and the clock runs from the press of Predict to the
mask in the viewer. --sizes compares two virtual environments, the first with `napari[pyqt6]` alone.
On a machine that does something else meanwhile, `chrt -r 1` before it gives the figures of one that does not.
In results/startup.json the sizes are of an environment with `napari-sonoloop[annotate]`, the times of one
with everything.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from PIL import Image

from sonoloop.imaging.phantom import phantom

TARGETS = {"predict_s": 1.5, "window_s": 1.0, "installed_mb": 150}
_PANELS = ("Train", "Models", "Annotate")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--window", action="store_true", help="measure in napari too")
    parser.add_argument("--sizes", nargs=2, type=Path, metavar=("WITHOUT", "WITH"), help="environments")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--out", type=Path, help="write the result there too")
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.inside:
        print(measure_window())
        return
    with tempfile.TemporaryDirectory() as scratch:
        result = measure(Path(scratch), repeats=options.repeats, window=options.window)
    if options.sizes:
        without, with_ = map(count_megabytes, options.sizes)
        result |= {"installed_mb": round(with_ - without, 1), "without_mb": round(without, 1)}
    result["targets"] = {name: target for name, target in TARGETS.items() if name in result}
    if options.out:
        options.out.write_text(json.dumps(result, indent=1) + "\n")
    if options.json:
        print(json.dumps(result))
        return
    for name, value in result.items():
        print(f"{name.replace('_', ' '):24}{value}")


def measure(scratch: Path, *, repeats: int, window: bool) -> dict[str, object]:
    """Time each start, in seconds; `scratch` stands for the user's own folders."""
    os.environ |= {"XDG_DATA_HOME": str(scratch / "data"), "XDG_CONFIG_HOME": str(scratch / "config")}
    os.environ["NAPARI_CONFIG"] = str(scratch / "napari.yaml")
    image = scratch / "image.png"
    Image.fromarray(phantom("benign", seed=1).image).save(image)
    sonoloop = [sys.executable, "-m", "sonoloop"]
    predict = [*sonoloop, "predict", str(image), "--out", str(scratch / "out"), "--json"]
    result: dict[str, object] = {
        "help_s": best(repeats, lambda: time_first_line([*sonoloop, "--help"])),
        "predict_s": best(repeats, lambda: time_first_line(predict)),
    }
    if window:
        inside = [sys.executable, __file__, "--inside"]
        run = lambda: float(subprocess.run(inside, capture_output=True, text=True, check=True).stdout)  # noqa: E731
        result["window_s"] = best(repeats, run)
    return result | {
        "torch": _version("torch"),
        "onnxruntime": _version("onnxruntime"),
        "openvino": _version("openvino"),
        "machine": {
            "cpu": platform.processor() or platform.machine(),
            "cores": os.cpu_count(),
            "load": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
            "python": platform.python_version(),
        },
    }


def best(repeats: int, run: Callable[[], float]) -> float:
    """Give the least of some runs, in seconds."""
    return round(min(run() for _ in range(repeats)), 3)


def time_first_line(command: list[str]) -> float:
    """Time a command from its start to its first line."""
    start = time.perf_counter()
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        line = process.stdout.readline() if process.stdout else ""
        seconds = time.perf_counter() - start
        rest = process.communicate()[0]
    if process.returncode or "error" in json.loads(line if line.startswith("{") else "{}"):
        raise SystemExit(f"{' '.join(command)} failed: {line}{rest}")
    return seconds


def wait(condition: Callable[[], bool], seconds: float) -> None:
    """Handle events until something holds."""
    from qtpy.QtWidgets import QApplication  # noqa: PLC0415 - there is a window by now

    end = time.perf_counter() + seconds
    while not condition():
        if time.perf_counter() > end:
            raise TimeoutError("the window did not get there")
        QApplication.processEvents()
        time.sleep(0.001)


def measure_window() -> float:
    """Open napari and press Predict; give the seconds until the mask is there."""
    import napari  # noqa: PLC0415 - the others need no window
    from qtpy.QtWidgets import QApplication, QPushButton  # noqa: PLC0415

    viewer = napari.Viewer()
    docked = {name: viewer.window.add_plugin_dock_widget("napari-sonoloop", name)[1] for name in _PANELS}
    viewer.open_sample("napari-sonoloop", "study")
    (predict,) = (each for each in docked["Annotate"].findChildren(QPushButton) if each.text() == "Predict")
    wait(predict.isEnabled, 60)
    settled = time.perf_counter() + 3
    wait(lambda: time.perf_counter() > settled, 10)
    start = time.perf_counter()
    predict.click()
    wait(lambda: any(layer.name.endswith(" lesions") and layer.data.any() for layer in viewer.layers), 60)
    QApplication.processEvents()
    seconds = time.perf_counter() - start
    viewer.close()
    return seconds


def count_megabytes(environment: Path) -> float:
    """Count what an environment takes, in MB of a million bytes, each file once."""
    files = {
        (s.st_dev, s.st_ino): s.st_size for p in environment.rglob("*") if (s := p.lstat()) and p.is_file()
    }
    return sum(files.values()) / 1e6


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


if __name__ == "__main__":
    main()
