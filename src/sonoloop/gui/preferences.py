"""What a user set under Settings, or Preferences > Plugins; the manifest declares it, napari keeps it."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, get_args

from napari.settings import get_plugin_settings

PLUGIN = "napari-sonoloop"

Identity = tuple[str, str | None]  # the annotator and the store
Device = Literal["auto", "cpu", "cuda", "mps"]
EngineName = Literal["auto", "torch", "onnx", "openvino"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Preferences:
    """A user's preferences.

    Parameters
    ----------
    device : str
        Where the model runs: "auto", "cpu", "cuda" or "mps".
    engine : str
        What computes its predictions: "auto", "torch", "onnx" or "openvino".
    store : str, optional
        URL of the correction store; the platform's data folder if none.
    annotator : str
        Pseudonym under which corrections are stored.
    base_data : str, optional
        Folder with the data that trained the model, some of which a fine-tuning shows again.
    """

    device: Device = "auto"
    engine: EngineName = "auto"
    store: str | None = None
    annotator: str = "annotator"
    base_data: str | None = None

    def __post_init__(self) -> None:
        for name, allowed in (("device", get_args(Device)), ("engine", get_args(EngineName))):
            if (value := getattr(self, name)) not in allowed:
                raise ValueError(f"{name} must be one of {', '.join(allowed)}, got {value!r}")

    @property
    def identity(self) -> Identity:
        """Who works, and on which store."""
        return self.annotator, self.store


@dataclass(frozen=True, slots=True)
class FieldText:
    """What the manifest says of a preference."""

    title: str
    help: str


def find_settings() -> Any:  # noqa: ANN401 - a model that napari makes of the manifest
    """Find what napari keeps of them, to read and to write; None where the plugin is not registered."""
    return getattr(get_plugin_settings().get(PLUGIN), "annotate", None)


def describe_field(name: str) -> FieldText:
    """Say what a preference is called, and what it is for."""
    field = type(find_settings()).model_fields[name]
    return FieldText(str(field.title).partition("\n")[0], str(field.description))


def watch_preferences(changed: Callable[[], object]) -> Callable[[], None]:
    """Call something at every change, wherever it is made; returns what ends that."""
    settings = find_settings()
    if settings is None:
        return lambda: None

    def tell(_event: object = None) -> None:
        changed()

    settings.events.connect(tell)
    return lambda: settings.events.disconnect(tell)


def read_preferences() -> Preferences:
    """Read the preferences as they are now; the defaults where the plugin is not registered."""
    settings = find_settings()
    if settings is None:
        return Preferences()
    return Preferences(
        device=settings.device,
        engine=settings.engine,
        store=_expand(settings.store),
        annotator=settings.annotator.strip() or Preferences().annotator,
        base_data=_expand(settings.base_data),
    )


def _expand(place: str) -> str | None:
    # `Path.expanduser` raises where there is no such user
    return os.path.expanduser(place.strip()) or None  # noqa: PTH111
