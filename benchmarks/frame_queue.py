"""How soon the next frame of a queue is on screen, how soon a long queue is listed, and what it takes.

    xvfb-run -s "-screen 0 2600x1000x24" python benchmarks/frame_queue.py [--steps 200] [--cycles 500]

Two windows of napari lie side by side in one process. In one, a bare script swaps the arrays of an image and
of a labels layer; in the other, N is pressed in the Annotate panel on a folder of phantoms, 600 x 500
pixels, that the shipped model predicts. They take turns, step by step, so that whatever else the machine does
falls on both. The clock runs from the press until the canvas was drawn with image and mask of the next frame.
Before each press the panel is left alone until the next frames are read and predicted, as they are while a
person looks at one; --hurry presses at once.

Listing is of empty files in a folder; statuses are not waited for. Memory is the process's resident set, the
most of it while the list is made and shown, more than with the viewer and its panel alone. --cycles predicts,
edits and accepts that many frames, and gives how much memory grew after the first tenth of them.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image
from startup import wait

from sonoloop.imaging.phantom import phantom
from sonoloop.values import ClassName

if TYPE_CHECKING:
    from napari import Viewer

    from sonoloop.gui.annotate.panel import AnnotatePanel
    from sonoloop.gui.annotate.queue_list import QueueEntry

TARGETS = {"more_p95_ms": 30, "listing_s": 2, "listing_mb": 300, "leak_mb": 100}
SIZE = (600, 500)
_CLASSES: tuple[ClassName, ...] = ("benign", "malignant", "normal")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--files", type=int, default=10_000, help="of the listing")
    parser.add_argument("--cycles", type=int, default=0, help="predict, edit, accept; 500 for the leak")
    parser.add_argument("--hurry", action="store_true", help="do not wait for what is read ahead")
    parser.add_argument("--out", type=Path, help="write the result there too")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        result = measure(Path(scratch), options)
    print(json.dumps(result, indent=1))
    if options.out:
        options.out.write_text(json.dumps(result, indent=1) + "\n")


def measure(scratch: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Open the windows and measure; `scratch` stands for the user's own folders."""
    os.environ |= {"XDG_DATA_HOME": str(scratch / "data"), "XDG_CONFIG_HOME": str(scratch / "config")}
    os.environ["NAPARI_CONFIG"] = str(scratch / "napari.yaml")
    folder, empty = scratch / "study", scratch / "empty"
    pictures = make_study(folder, max(options.steps, options.cycles, 1) + 5)
    empty.mkdir()
    for number in range(options.files):
        (empty / f"case {number}.png").touch()

    import napari  # noqa: PLC0415 - reads where its settings are when it is imported

    from sonoloop.gui.launch import dock_panel  # noqa: PLC0415 - imports napari
    from sonoloop.store.corrections import CorrectionStore  # noqa: PLC0415 - the data folder is set above
    from sonoloop.store.settings import change_settings  # noqa: PLC0415 - the same

    store = str(scratch / "store.sqlite")
    with CorrectionStore(store) as opened:
        # what is drawn first comes without a mask
        change_settings(opened, test_cap=0, draw_first_share=0)
    bare, ours = napari.Viewer(), napari.Viewer()
    for number, viewer in enumerate((bare, ours)):
        viewer.window.resize(1280, 800)
        viewer.window._qt_window.move(number * 1300, 0)
    panel = dock_panel(ours, store=store)
    result: dict[str, Any] = {}
    if options.steps:
        result |= time_steps(bare, panel, folder, pictures, options)
    if options.cycles:
        result |= count_leak(panel, options.cycles, folder)
    result |= time_listing(panel, empty)
    panel.close_session()
    for viewer in (bare, ours):
        viewer.close()
    result["targets"] = {name: target for name, target in TARGETS.items() if name in result}
    result["machine"] = {
        "cpu": platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "load": round(os.getloadavg()[0], 2),
        "python": platform.python_version(),
    }
    return result


def make_study(folder: Path, count: int) -> list[np.ndarray]:
    """Save phantoms of one size; give a few of them, for the bare script."""
    folder.mkdir()
    several = [
        np.asarray(Image.fromarray(phantom(_CLASSES[seed % 3], seed=seed).image).resize(SIZE))
        for seed in range(12)
    ]
    for number in range(count):
        # no two are near copies: a shift and a scale of the grey levels make other pixels
        picture = np.roll(several[number % 12], (7 * number, 13 * number), axis=(0, 1))
        Image.fromarray(picture).save(folder / f"case {number}.png")
    return several


def time_steps(
    bare: Viewer, panel: AnnotatePanel, folder: Path, pictures: list[np.ndarray], options: argparse.Namespace
) -> dict[str, Any]:
    """Time the next frame in both windows, in turns."""
    masks = [(picture > np.quantile(picture, 0.97)).astype(np.uint8) for picture in pictures]
    image = bare.add_image(pictures[0])
    labels = bare.add_labels(masks[0])
    labels.contour = 2
    drawn = {"bare": count_draws(bare), "ours": count_draws(panel.session.viewer)}
    panel.queue.open([folder])
    wait(lambda: panel.queue.shown is not None and panel.session.view().probabilities is not None, 60)

    def swap(number: int) -> None:
        image.data = pictures[number % len(pictures)]
        labels.data = masks[number % len(masks)]

    def is_past(entry: QueueEntry | None) -> bool:
        return panel.queue.shown is not entry

    times: dict[str, list[float]] = {"bare": [], "ours": []}
    ready = 0
    for number in range(1, options.steps + 1):
        if not options.hurry:
            settle(panel)
        times["bare"].append(time_until_drawn(partial(swap, number), drawn["bare"]))
        before = panel.queue.shown
        ready += panel.queue.next_is_ready
        times["ours"].append(
            time_until_drawn(
                lambda: panel.run("next"),
                drawn["ours"],
                partial(is_past, before),
            )
        )
    figures = {}
    for name, some in times.items():
        figures[f"{name}_median_ms"] = round(1000 * statistics.median(some), 1)
        figures[f"{name}_p95_ms"] = round(1000 * float(np.quantile(some, 0.95)), 1)
    more = figures["ours_p95_ms"] - figures["bare_p95_ms"]
    return {
        "steps": options.steps,
        "size": list(SIZE),
        "ready": ready,
        **figures,
        "more_p95_ms": round(more, 1),
        "more_median_ms": round(figures["ours_median_ms"] - figures["bare_median_ms"], 1),
    }


def count_draws(viewer: Viewer) -> list[float]:
    """Note when a viewer's canvas was drawn."""
    drawn: list[float] = []
    viewer = getattr(viewer, "__wrapped__", viewer)
    canvas = viewer.window._qt_viewer.canvas._scene_canvas
    canvas.events.draw.connect(lambda _event: drawn.append(time.perf_counter()), position="last")
    return drawn


def time_until_drawn(
    act: Callable[[], object], drawn: list[float], arrived: Callable[[], bool] = lambda: True
) -> float:
    """Time from an act until the canvas was drawn with what it brought."""
    from qtpy.QtWidgets import QApplication  # noqa: PLC0415 - there is a window by now

    QApplication.processEvents()
    start = time.perf_counter()
    drawn.clear()
    act()
    while not arrived():
        drawn.clear()
        QApplication.processEvents()
    while not drawn:
        QApplication.processEvents()
        if time.perf_counter() - start > 10:
            raise TimeoutError("nothing was drawn")
    return drawn[0] - start


def settle(panel: AnnotatePanel) -> None:
    """Let what is read ahead be read, and what the panel still does be done."""
    from qtpy.QtCore import QThreadPool  # noqa: PLC0415 - there is a window by now

    pool = QThreadPool.globalInstance()
    assert pool is not None
    quiet = time.perf_counter()

    def is_quiet() -> bool:
        nonlocal quiet
        if pool.activeThreadCount():
            quiet = time.perf_counter()
        return time.perf_counter() - quiet > 0.15

    wait(is_quiet, 30)


def time_listing(panel: AnnotatePanel, folder: Path) -> dict[str, Any]:
    """Time until a long queue is in the list, and what memory it takes."""
    before = resident_mb()
    most = before
    files = sum(1 for _ in folder.iterdir())
    start = time.perf_counter()
    panel.queue.open([folder])
    wait(lambda: len(panel.queue.list) == files, 60)
    listed = time.perf_counter() - start
    end = time.perf_counter() + 2

    def later() -> bool:
        nonlocal most
        most = max(most, resident_mb())
        return time.perf_counter() > end

    wait(later, 10)
    return {
        "listed": len(panel.queue.list),
        "listing_s": round(listed, 2),
        "listing_mb": round(most - before, 1),
    }


def count_leak(panel: AnnotatePanel, cycles: int, folder: Path) -> dict[str, Any]:
    """Predict, edit and accept frames one after another; give how much memory grew after the first tenth."""
    panel.queue.open([folder])
    wait(lambda: panel.queue.shown is not None and panel.session.view().probabilities is not None, 60)
    begun = 0.0

    def is_past(entry: QueueEntry | None) -> bool:
        return panel.queue.shown is not entry

    for number in range(cycles):
        settle(panel)
        lesions = next(layer for layer in panel.session.viewer.layers if layer.name.endswith("lesions"))
        lesions.paint((20 + number % 50, 30), 1)
        panel.run("choose_benign")
        shown = panel.queue.shown
        wait(lambda: panel.session.view().why_no_accept is None, 30)
        panel.run("accept")
        wait(partial(is_past, shown), 30)
        if number == cycles // 10:
            begun = resident_mb()
    return {"cycles": cycles, "leak_mb": round(resident_mb() - begun, 1)}


def resident_mb() -> float:
    """Give the memory of this process."""
    with Path("/proc/self/statm").open() as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


if __name__ == "__main__":
    main()
