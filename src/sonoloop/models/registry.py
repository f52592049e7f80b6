"""Where models are found: the one that ships, the data folder, a path."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from sonoloop.errors import BundleError, ModelError
from sonoloop.models.bundle import Bundle, read_bundle
from sonoloop.models.card import CARD
from sonoloop.models.library import Library
from sonoloop.models.places import DEFAULT, models_folder, shipped_folder
from sonoloop.models.predictor import Predictor

__all__ = [
    "DEFAULT",
    "bundle_folder",
    "default_predictor",
    "load_bundle",
    "load_version",
    "models_folder",
    "shipped_folder",
]


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
    names = sorted(p.name for p in own.glob("[!.]*") if (p / CARD).is_file())
    if str(name_or_path) in names:
        return own / str(name_or_path)
    raise ModelError(
        f"there is no model {str(name_or_path)!r}; "
        f"give a bundle's folder, or one of: {', '.join([DEFAULT, *names])}"
    )


def load_version(
    version: str, *, library: Library | None = None, on_notice: Callable[[str], None] | None = None
) -> Bundle:
    """Load and verify the model in use, and see that it stays: an upgrade of the package replaces its own.

    Parameters
    ----------
    version : str
        64 hex digits, as a store's pointer names it.
    library : Library, optional
        Where models lie; the user's own unless given.
    on_notice : callable, optional
        Told where the model inside the package could not be copied to the library; it is used all the same.

    Raises
    ------
    ModelError
        If it is not on this machine.
    BundleError
        If it is damaged.
    """
    library = library or Library()
    bundle = library.load(version)
    if library.find(version) == shipped_folder():
        try:
            library.add(shipped_folder())
        except BundleError as error:
            if on_notice is not None:
                on_notice(str(error))
    return bundle


def default_predictor(
    device: str = "auto", *, on_notice: Callable[[str], None] | None = None, version: str | None = None
) -> Predictor:
    """Return a model ready to predict; see `Predictor` for what it takes.

    Parameters
    ----------
    device : str
        Where to run.
    on_notice : callable, optional
        Told what the user should know.
    version : str, optional
        Of the model in use; see `load_version`. The shipped model unless given.

    Raises
    ------
    ModelError, BundleError
        If the version is not on this machine, or damaged.
    """
    bundle = load_bundle() if version is None else load_version(version, on_notice=on_notice)
    return Predictor(bundle, device=device, on_notice=on_notice)
