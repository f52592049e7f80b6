"""What decoders say of damaged files never reaches the user: the error says it once."""

from __future__ import annotations

import ctypes
import logging
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from functools import cache

import numpy as np
from PIL import _imaging

_THEIRS = re.compile(r"(PIL|tifffile)\.")
_decoding: ContextVar[bool] = ContextVar("decoding", default=False)


class _WhileDecoding(logging.Filter):
    """Lets no record through in a thread that decodes; other threads log as ever."""

    def filter(self, record: logging.LogRecord) -> bool:
        return not _decoding.get()


_FILTER = _WhileDecoding()


@contextmanager
def silence_decoders() -> Iterator[None]:
    """Keep warnings and logs of Pillow, libtiff and tifffile from the user while this thread decodes."""
    _silence_libtiff()
    for name in ("tifffile", "PIL.Image", "PIL.TiffImagePlugin", "PIL.PngImagePlugin"):
        logging.getLogger(name).addFilter(_FILTER)
    # not `catch_warnings`, which another thread undoes; and once, since a change has old ones told again
    if ("ignore", None, Warning, _THEIRS, 0) not in warnings.filters:
        warnings.filterwarnings("ignore", module=_THEIRS.pattern)
    token = _decoding.set(True)
    try:
        with np.errstate(all="ignore"):
            yield
    finally:
        _decoding.reset(token)


@cache
def _silence_libtiff() -> None:
    """Take away libtiff's handlers, which print to standard error; where it is linked in there are none."""
    with suppress(OSError, AttributeError):
        library = ctypes.CDLL(_imaging.__file__)
        library.TIFFSetErrorHandler.restype = library.TIFFSetWarningHandler.restype = ctypes.c_void_p
        library.TIFFSetErrorHandler(None)
        library.TIFFSetWarningHandler(None)
