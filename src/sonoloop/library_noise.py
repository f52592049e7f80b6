"""Warnings and logs of libraries, which tell a user of a command nothing."""

from __future__ import annotations

import logging
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

_OURS = ("sonoloop", "sonoloop_training")


@contextmanager
def only_ours_told() -> Iterator[None]:
    """Keep what libraries warn of off standard error; what our own loggers warn of goes there as it is.

    Nothing changes for whoever asked for warnings with ``python -W`` or in ``PYTHONWARNINGS``.
    """
    # without a handler of its own logging would write every library's warnings to standard error
    silent, ours = logging.NullHandler(), logging.StreamHandler(sys.stderr)
    ours.setLevel(logging.WARNING)
    root = logging.getLogger()
    root.addHandler(silent)
    for name in _OURS:
        logging.getLogger(name).addHandler(ours)
    try:
        with warnings.catch_warnings():
            if not sys.warnoptions:
                # libraries set filters of their own when they are loaded
                warnings.showwarning = lambda *_, **__: None
            yield
    finally:
        root.removeHandler(silent)
        for name in _OURS:
            logging.getLogger(name).removeHandler(ours)
