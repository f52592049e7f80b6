"""Sonoloop: propose, correct, keep and learn from breast-ultrasound lesion masks, in napari."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sonoloop.imaging.image_files import read
    from sonoloop.imaging.io import Study, read_frame, read_study
    from sonoloop.models.predictor import Predictor
    from sonoloop.project import Project, load_model, open_project
    from sonoloop.values import CLASSES, LABELS, Correction, Frame, Prediction

__version__ = "0.1.0"

__all__ = [
    "CLASSES",
    "LABELS",
    "Correction",
    "Frame",
    "Prediction",
    "Predictor",
    "Project",
    "Study",
    "load_model",
    "open_project",
    "read",
    "read_frame",
    "read_study",
]

# loaded at the first use: torch takes seconds, and listing the plugin's widgets imports this package
_WHERE = {
    "read": "sonoloop.imaging.image_files",
    **dict.fromkeys(("read_frame", "read_study", "Study"), "sonoloop.imaging.io"),
    **dict.fromkeys(("Project", "load_model", "open_project"), "sonoloop.project"),
    **dict.fromkeys(("CLASSES", "LABELS", "Correction", "Frame", "Prediction"), "sonoloop.values"),
    "Predictor": "sonoloop.models.predictor",
}


def __getattr__(name: str) -> Any:  # noqa: ANN401 - a class, a function or a constant
    if name not in _WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_WHERE[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
