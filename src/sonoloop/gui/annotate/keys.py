"""The keys, in one table: registered with napari so that a user can rebind them, and shown in the panel."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from html import escape
from typing import Any, Protocol
from weakref import WeakValueDictionary

from napari.components import ViewerModel
from napari.utils.notifications import show_info

from sonoloop.gui.preferences import PLUGIN

logger = logging.getLogger(__name__)


class Commands(Protocol):
    """What a key can ask of the panel."""

    def run(self, action: str, *, pressed: bool = True) -> None:
        """Do what the action's key was pressed for; `pressed` is False when a held key is let go."""
        ...


@dataclass(frozen=True, slots=True)
class Key:
    """One key: napari's spelling, the action's name, what it does, whether it acts while held."""

    key: str
    action: str
    description: str
    held: bool = False


KEYS = (
    Key("G", "predict", "Predict the current frame"),
    Key("8", "choose_normal", "Normal; clears the mask"),
    Key("9", "choose_benign", "Benign"),
    Key("0", "choose_malignant", "Malignant"),
    Key("Control-Enter", "accept", "Accept mask and class; in a queue, go on to the next frame"),
    Key("N", "next", "Next frame that is to do"),
    Key("U", "previous", "Back to the frame before, in the order of visits"),
    Key("J", "flag", "Flag the frame for a second look, with a reason; again: take it back"),
    Key("K", "skip", "Skip the frame, with a reason; again: take it back"),
    Key("Shift-X", "exclude", "Exclude the frame, with a reason; again: take it back"),
    Key("W", "toggle_fill", "Outline or fill"),
    Key("H", "hide_lesions", "Hold to hide lesions", held=True),
    Key("Shift-F", "focus", "Focus: fold the docks of napari, or unfold them"),
)

_PANELS: WeakValueDictionary[int, Commands] = WeakValueDictionary()


def attach(viewer: ViewerModel, panel: Commands) -> None:
    """Send the keys pressed in a viewer to its panel."""
    _PANELS[_identity(viewer)] = panel
    try:
        _register()
    except (ImportError, AttributeError, TypeError):
        # the action manager is not public: without it the keys work, and cannot be rebound
        logger.warning("napari's shortcut table is not available", exc_info=True)
        for key in KEYS:
            viewer.bind_key(key.key, _command(key), overwrite=True)


def detach(viewer: ViewerModel, panel: Commands) -> None:
    """Forget a panel."""
    if _PANELS.get(_identity(viewer)) is panel:
        del _PANELS[_identity(viewer)]


def attached(viewer: ViewerModel) -> Commands | None:
    """Return the panel that a viewer's keys are sent to."""
    return _PANELS.get(_identity(viewer))


def describe_keys() -> str:
    """Write the table of keys as rich text."""
    row = "<tr><td><b>{}</b></td><td style='padding-left: 8px'>{}</td></tr>"
    rows = (row.format(escape(spell(key.key)), escape(key.description)) for key in KEYS)
    return f"<table>{''.join(rows)}</table>"


def spell(key: str) -> str:
    """Spell a key as it stands on a keyboard."""
    return key.replace("Control", "Ctrl").replace("-", "+")


def _register() -> None:
    from napari.settings import get_settings  # noqa: PLC0415 - both may move in a later napari
    from napari.utils.action_manager import action_manager  # noqa: PLC0415

    own = get_settings().shortcuts.shortcuts
    for key in KEYS:
        name = f"{PLUGIN}:{key.action}"
        action_manager.register_action(name, _command(key), f"Sonoloop: {key.description}", ViewerModel)
        if name not in own:
            action_manager.bind_shortcut(name, key.key)


def _command(key: Key) -> Callable[[ViewerModel], Any]:
    def press(viewer: ViewerModel) -> None:
        _run(viewer, key.action)

    def hold(viewer: ViewerModel) -> Iterator[None]:
        _run(viewer, key.action)
        yield
        _run(viewer, key.action, pressed=False)

    command = hold if key.held else press
    command.__name__ = key.action
    return command


def _run(viewer: ViewerModel, action: str, *, pressed: bool = True) -> None:
    panel = attached(viewer)
    if panel is not None:
        panel.run(action, pressed=pressed)
    elif pressed:
        show_info("Open Plugins > Sonoloop > Annotate first")


def _identity(viewer: ViewerModel) -> int:
    """Return the same number for a viewer and for napari's proxy of it."""
    return id(getattr(viewer, "__wrapped__", viewer))
