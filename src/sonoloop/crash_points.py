"""Test equipment: a process can be told to kill itself at a named point.

With ``SONOLOOP_CRASH_AT=NAME`` in its environment a process ends at that point as a power cut would end it:
by SIGKILL, nothing is flushed and nothing cleans up. Without the variable a point does nothing.
"""

from __future__ import annotations

import os
import signal

VARIABLE = "SONOLOOP_CRASH_AT"
POINTS = (
    "after-snapshot",
    "before-first-step",
    "mid-epoch",
    "checkpoint-half-written",
    "after-checkpoint",
    "bundle-half-written",
    "after-bundle",
    "after-register",
    "before-look",
    "after-look",
    "before-promote",
    "after-promote",
    "export-half-written",
    "before-manifest",
    "backup-half-written",
    "before-backup-named",
    "restore-half-written",
    "before-store-set-aside",
    "after-store-set-aside",
    "after-restore",
    "merge-half-written",
)


def crash_here(name: str) -> None:
    """End the process at once if its environment names this point."""
    if name not in POINTS:
        raise ValueError(f"there is no crash point {name!r}; there are {', '.join(POINTS)}")
    if os.environ.get(VARIABLE) != name:
        return
    if hasattr(signal, "SIGKILL"):
        os.kill(os.getpid(), signal.SIGKILL)
    # where there is no such signal, nothing is flushed or cleaned up either
    os._exit(137)
