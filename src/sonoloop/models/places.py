"""Where models lie on this machine."""

from __future__ import annotations

from pathlib import Path

import platformdirs

from sonoloop.models.card import Card, read_card

DEFAULT = "default"


def shipped_folder() -> Path:
    """Return the folder of the model inside the package."""
    return Path(__file__).parent / DEFAULT


def models_folder() -> Path:
    """Return the folder in which a user's own models lie."""
    return platformdirs.user_data_path("sonoloop", appauthor=False) / "models"


def shipped_card() -> Card:
    """Read the card of the model inside the package; a project that has no model in use begins with it.

    Raises
    ------
    BundleError
        If the package is damaged.
    """
    return read_card(shipped_folder())
