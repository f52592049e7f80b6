"""Where models are found: the one that ships, the data folder, a path."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import platformdirs

from sonoloop.errors import ModelError
from sonoloop.models.bundle import CARD, Bundle, read_bundle
from sonoloop.models.predictor import Predictor

DEFAULT = "default"


def shipped_folder() -> Path:
    """Return the folder of the model inside the package."""
    return Path(__file__).parent / DEFAULT


def models_folder() -> Path:
    """Return the folder in which a user's own models lie."""
    return platformdirs.user_data_path("sonoloop", appauthor=False) / "models"


def load_bundle(name_or_path: str | Path | None = None) -> Bundle:
    """Load and verify a model; see `bundle_folder` for what it may be called.

    Raises
    ------
    ModelError
        If there is none of that name.
    BundleError
        If it is damaged.
    """
    return read_bundle(bundle_folder(name_or_path))


def bundle_folder(name_or_path: str | Path | None = None) -> Path:
    """Find the folder of a model.

    Parameters
    ----------
    name_or_path : str or pathlib.Path, optional
        A bundle's folder, the name of one in the data folder, or "default"; the shipped model unless given.

    Raises
    ------
    ModelError
        If there is none of that name.
    """
    if name_or_path is None or str(name_or_path) == DEFAULT:
        return shipped_folder()
    path = Path(name_or_path)
    if path.name == CARD:
        path = path.parent
    if path.is_dir():
        return path
    own = models_folder()
    names = sorted(p.name for p in own.iterdir() if (p / CARD).is_file()) if own.is_dir() else []
    if str(name_or_path) in names:
        return own / str(name_or_path)
    raise ModelError(
        f"there is no model {str(name_or_path)!r}; "
        f"give a bundle's folder, or one of: {', '.join([DEFAULT, *names])}"
    )


def default_predictor(device: str = "auto", *, on_notice: Callable[[str], None] | None = None) -> Predictor:
    """Return the shipped model, ready to predict; see `Predictor` for what it takes."""
    return Predictor(load_bundle(), device=device, on_notice=on_notice)
