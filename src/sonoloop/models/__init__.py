"""Frames in, predictions out: specs, bundles and the predictor.

Importing this package imports no torch; its modules do.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from sonoloop.models.predictor import Predictor


def default_predictor(
    device: str = "auto", *, on_notice: Callable[[str], None] | None = None, version: str | None = None
) -> Predictor:
    """Return the shipped model, or a version, ready to predict; see `sonoloop.models.library`."""
    from sonoloop.models.library import default_predictor  # noqa: PLC0415 - imports torch

    return default_predictor(device, on_notice=on_notice, version=version)
