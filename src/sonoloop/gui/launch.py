"""The Annotate panel of a viewer: docked with images and a first prediction, found by the other panels."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, cast

from napari.viewer import Viewer

from sonoloop.gui.annotate.keys import attached
from sonoloop.gui.preferences import PLUGIN, Preferences, read_preferences

if TYPE_CHECKING:
    from napari.components import ViewerModel

    from sonoloop.gui.annotate.panel import AnnotatePanel
    from sonoloop.gui.annotate.queue_list import Listed


PANEL = "Annotate"


def open_viewer(
    paths: Sequence[Path] | None = None,
    *,
    predict: bool = True,
    store: str | None = None,
    queue: Listed | None = None,
) -> None:
    """Open napari on images, a queue, or the sample study, and stay until its window is closed."""
    import napari  # noqa: PLC0415 - takes seconds, and the panel's own modules need it only here

    prepare_viewer(napari.Viewer(title="Sonoloop"), paths, predict=predict, store=store, queue=queue)
    napari.run()


def prepare_viewer(
    viewer: Viewer,
    paths: Sequence[Path] | None = None,
    *,
    predict: bool = True,
    store: str | None = None,
    queue: Listed | None = None,
) -> None:
    """Dock the panel in a viewer and open images, a queue, or the sample study; see `open_viewer`.

    Several images, a folder and a table become a queue.
    """
    panel = dock_panel(viewer, store=store)
    if queue is not None:
        panel.queue.take(queue)
        return
    if paths and (len(paths) > 1 or paths[0].is_dir()):
        panel.queue.predicts = predict
        panel.queue.open(list(paths))
        return
    if predict:
        panel.predict_first()
    if paths:
        viewer.open([str(path) for path in paths], plugin=PLUGIN)
        viewer.reset_view()  # napari fits the first layer that comes, which is not the one on top
    else:
        viewer.open_sample(PLUGIN, "study")


def dock_panel(viewer: Viewer, *, store: str | None = None) -> AnnotatePanel:
    """Return the viewer's panel, docked and shown; on another store than the preferences' if one is named."""
    dock, panel = viewer.window.add_plugin_dock_widget(PLUGIN, PANEL)
    if store is not None:
        panel.session.use_store(store)
    dock.show()
    return cast("AnnotatePanel", panel)


def predict(viewer: Viewer) -> None:
    """Predict the current frame, and dock the panel if it is not there yet."""
    dock_panel(viewer).run("predict")


def annotate_panel(viewer: ViewerModel) -> AnnotatePanel | None:
    """Return the viewer's Annotate panel, if it is open."""
    panel = attached(viewer)
    return panel if panel is not None and hasattr(panel, "session") else None  # type: ignore[return-value]


def viewer_preferences(viewer: ViewerModel) -> Callable[[], Preferences]:
    """Give the preferences as the viewer's Annotate panel has them: it may work on a store of its own."""

    def read() -> Preferences:
        panel = annotate_panel(viewer)
        return read_preferences() if panel is None else panel.session.preferences()

    return read
