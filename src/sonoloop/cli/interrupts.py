"""Ctrl-C that waits for a step to finish."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def interrupts_held() -> Iterator[None]:
    """Hold Ctrl-C back while the context lasts, and raise it at its end; for the main thread."""
    received = False

    def hold(number: int, frame: FrameType | None) -> None:
        nonlocal received
        received = True

    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        yield  # started in the background, where Ctrl-C is for somebody else
        return
    before = signal.signal(signal.SIGINT, hold)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
    if received:
        raise KeyboardInterrupt
