"""Every error a user can meet; each message says what, which, and what to do."""

from __future__ import annotations

import errno
from collections.abc import Sequence
from importlib.util import find_spec


class SonoloopError(Exception):
    """The base of every error whose message is meant for a user."""


class ImageError(SonoloopError):
    """An image could not be used."""


class ImageMissingError(ImageError):
    """There is no file at that path."""


class ImageEmptyError(ImageError):
    """The file has no bytes, or the image no pixels."""


class NotAnImageError(ImageError):
    """The file is no image that Sonoloop reads."""


class ImageTruncatedError(ImageError):
    """The file begins as an image and breaks off, or its data are damaged."""


class ImageTooLargeError(ImageError):
    """The image has more pixels than the cap allows."""


class UnsupportedImageError(ImageError):
    """The image was read and cannot be predicted on."""


class ConstantImageError(UnsupportedImageError):
    """Every pixel has the same value."""


class NotFiniteImageError(UnsupportedImageError):
    """The image holds NaN or infinity."""


class OutputError(SonoloopError):
    """What was made of one image could not be written."""


class ModelError(SonoloopError):
    """A model could not be found or used."""


class BundleError(ModelError):
    """A bundle on disk is incomplete, damaged or not a bundle."""


class DeviceError(ModelError):
    """The device asked for is not there."""


class EngineError(ModelError):
    """An engine cannot run a model: its library or the graph is missing, or cannot be used."""


class StoreError(SonoloopError):
    """The correction store could not be opened, read or written."""


class StoreUnavailableError(StoreError):
    """The store itself cannot be used now, whatever is asked of it; it may be later, once that is mended."""


class ConflictError(StoreError):
    """Another revision was stored since this one was opened; both are kept."""


class DraftError(SonoloopError):
    """A draft could not be kept or removed on this machine."""


class TrainingError(SonoloopError):
    """Training could not start or go on."""


class NotInstalledError(SonoloopError):
    """Packages of an extra are not installed."""

    def __init__(self, packages: Sequence[str], extra: str) -> None:
        first, *others = packages
        more = (
            f" and {len(others)} more packages"
            if len(others) > 1
            else "".join(f" and {one}" for one in others)
        )
        self.what = f"this needs {first}{more}, which {'are' if others else 'is'} not installed"
        self.command = f'pip install "napari-sonoloop[{extra}]"'
        super().__init__(f"{self.what}: {self.command}")


class MissingFilesError(TrainingError):
    """Files of corrected images are gone, or have changed; it can go on without them."""


def check_installed(packages: Sequence[str], extra: str) -> None:
    """Refuse to go on where packages of an extra are not there; none of them is imported."""
    missing = [name for name in packages if find_spec(name) is None]
    if missing:
        raise NotInstalledError(missing, extra)


_REMEDIES = {
    errno.ENOSPC: "make room on its disk",
    errno.EFBIG: "choose another disk",
    errno.EROFS: "choose a place that can be written to",
    errno.EACCES: "choose a place that you may use",
    errno.EPERM: "choose a place that you may use",
    errno.ENAMETOOLONG: "choose a shorter name",
    errno.EIO: "see whether its disk is well",
    errno.EMFILE: "close other programs",
    errno.ENFILE: "close other programs",
}


def describe_system_error(error: OSError | MemoryError) -> str:
    """Say what, which and what to do of an error of the system that nobody foresaw where it came up."""
    if isinstance(error, MemoryError):
        return "there is not enough memory; close other programs, or give less at a time"
    what = f"{'a file or the output' if error.filename is None else error.filename} cannot be used"
    # not every system has this one
    is_full = errno.errorcode.get(error.errno or 0) == "EDQUOT"
    remedy = _REMEDIES.get(errno.ENOSPC if is_full else error.errno or 0, "check the path")
    return f"{what} ({error.strerror or error}); {remedy}"
