"""The formats in which masks and predictions leave and enter: one file a format, and a line here."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pkgutil import resolve_name
from typing import Any


@dataclass(frozen=True, slots=True)
class Format:
    """What reads and what writes a format, each as "module:name"."""

    reader: str
    writer: str

    @property
    def read(self) -> Callable[..., Any]:
        """What reads it."""
        reader: Callable[..., Any] = resolve_name(self.reader)
        return reader

    @property
    def write(self) -> Callable[..., Any]:
        """What writes it."""
        writer: Callable[..., Any] = resolve_name(self.writer)
        return writer


FORMATS = {
    "mask-png": Format("sonoloop.formats.mask_png:read_mask", "sonoloop.formats.mask_png:write_mask"),
    "predictions": Format(
        "sonoloop.formats.prediction_folder:read_predictions",
        "sonoloop.formats.prediction_folder:PredictionFolder",
    ),
}
