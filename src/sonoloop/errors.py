"""Every error a user can meet; each message says what, which, and what to do."""

from __future__ import annotations


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


class ModelError(SonoloopError):
    """A model could not be found or used."""


class BundleError(ModelError):
    """A bundle on disk is incomplete, damaged or not a bundle."""


class DeviceError(ModelError):
    """The device asked for is not there."""


class StoreError(SonoloopError):
    """The correction store could not be opened, read or written."""


class StoreUnavailableError(StoreError):
    """The store itself cannot be used now, whatever is asked of it; it may be later, once that is mended."""


class ConflictError(StoreError):
    """Another revision was stored since this one was opened; both are kept."""


class TrainingError(SonoloopError):
    """Training could not start or go on."""


class MissingFilesError(TrainingError):
    """Files of corrected images are gone, or have changed; it can go on without them."""
