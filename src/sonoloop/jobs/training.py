"""The training package as a process of its own, read event by event."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress
from importlib.util import find_spec
from typing import Any

from sonoloop.errors import SonoloopError, TrainingError

# seconds that a process which was interrupted too may take to end itself
_PATIENCE = 10.0


def training_events(command: str, arguments: Sequence[object]) -> Iterator[dict[str, Any]]:
    """Run ``python -m sonoloop_training COMMAND ARGUMENTS`` and give its events as they come.

    Ctrl-C reaches the process too, which ends itself as it should; it is waited for.

    Parameters
    ----------
    command : str
        One of `sonoloop_training.__main__.COMMANDS`.
    arguments : sequence
        What it takes, turned into strings.

    Yields
    ------
    dict
        An event: its name under "event", and its values.

    Raises
    ------
    TrainingError
        With the process's own words, if it failed or ended without any.
    """
    if find_spec("sonoloop_training") is None:
        raise SonoloopError(
            'the training package is missing; install Sonoloop again: pip install "napari-sonoloop[train]"'
        )
    line = [sys.executable, "-m", "sonoloop_training", command, *map(str, arguments)]
    with subprocess.Popen(
        line, stdout=subprocess.PIPE, text=True, encoding="utf-8", errors="replace"
    ) as process:
        failure: str | None = None
        try:
            for text in process.stdout or ():
                event = _parse(text)
                if event is None:
                    sys.stderr.write(text)
                elif event["event"] == "failed":
                    failure = str(event["error"])
                else:
                    yield event
            process.wait()
        except KeyboardInterrupt:
            # it lasts longer where the signal was for this process alone
            with suppress(subprocess.TimeoutExpired):
                process.wait(_PATIENCE)
            raise
        finally:
            # the reader may have lost interest before the end
            if process.poll() is None:
                process.terminate()
                # before the pipe is closed: its last words would break on it
                process.wait()
    if process.returncode == 130:
        raise KeyboardInterrupt
    if failure is not None or process.returncode:
        raise TrainingError(failure or f"`{command}` ended with exit code {process.returncode}; see above")


def _parse(text: str) -> dict[str, Any] | None:
    """Return the event that a line holds, or None where a library printed it."""
    try:
        event = json.loads(text)
    except ValueError:
        return None
    return event if isinstance(event, dict) and isinstance(event.get("event"), str) else None
