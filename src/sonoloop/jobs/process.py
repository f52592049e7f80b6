"""A fine-tuning started as a process that outlives napari; no Qt."""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from sonoloop.errors import SonoloopError, TrainingError
from sonoloop.jobs.folder import OUTPUT, PACKAGE, Job, forget_old_output

# what a fine-tuning imports of the extra "train"
_EXTRA = ("lightning", "torchvision", "matplotlib")


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What is asked of a fine-tuning.

    Parameters
    ----------
    store : str, optional
        URL of the store; the default one unless given.
    who : str
        Pseudonym of the person who asks.
    device : str
        "auto", "cpu", "cuda" or "mps".
    snapshot : str, optional
        Name of the one to learn from; a new one of all that is accepted unless given.
    minutes : float, optional
        Time for all of it.
    skip_missing : bool
        Whether to go on without the images whose files are gone.
    base_data : str, optional
        Folder with the data that trained the model, some of which is shown again.
    """

    store: str | None
    who: str
    device: str = "auto"
    snapshot: str | None = None
    minutes: float | None = None
    skip_missing: bool = False
    base_data: str | None = None


def what_is_missing() -> str | None:
    """Say what is not installed that training needs, and the remedy; None where all of it is there."""
    missing = [name for name in (PACKAGE, *_EXTRA) if find_spec(name) is None]
    if not missing:
        return None
    return (
        f"training is not installed ({', '.join(missing)} missing): "
        'pip install "napari-sonoloop[train]", then open napari again'
    )


def start_job(jobs: Path, request: Request, *, folder: Path | None = None) -> Job:
    """Start a fine-tuning, or go on with one, as a process that outlives this one."""
    missing = what_is_missing()
    if missing is not None:
        raise TrainingError(missing)
    forget_old_output(jobs)
    output = (folder or jobs) / (OUTPUT if folder else f".{secrets.token_hex(4)}.log")
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        with output.open("wb") as file:
            process = subprocess.Popen(
                _command(request, folder),
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                env=_environment(request.store),
                **_detached(),
            )
    except OSError as error:
        raise TrainingError(
            f"the fine-tuning could not be started in {output.parent} ({error.strerror}): make room there, "
            "then try again"
        ) from error
    return Job(folder, output, process)


def _command(request: Request, folder: Path | None) -> list[str]:
    words = [sys.executable, "-m", PACKAGE, "finetune", "--who", request.who]
    if request.store is not None:
        words += ["--store", _without_password(request.store)[0]]
    if folder is not None:
        return [*words, "--job", str(folder)]
    words += ["--threads", str(max(1, (os.cpu_count() or 2) - 1)), "--device", request.device]
    if request.base_data is not None:
        words += ["--base-data", request.base_data]
    if request.skip_missing:
        words.append("--skip-missing")
    if request.snapshot is not None:
        words += ["--snapshot", request.snapshot]
    if request.minutes is not None:
        words += ["--max-minutes", f"{request.minutes:g}"]
    return words


def _environment(store: str | None) -> dict[str, str]:
    password = None if store is None else _without_password(store)[1]
    return {**os.environ, **({} if password is None else {"PGPASSWORD": password})}


def _without_password(store: str) -> tuple[str, str | None]:
    """Take the password out of a URL: everyone on the machine can read a process's arguments."""
    from sqlalchemy import make_url  # noqa: PLC0415 - loads slowly
    from sqlalchemy.exc import ArgumentError  # noqa: PLC0415

    if "://" not in store:
        return store, None
    try:
        url = make_url(store)
    except ArgumentError:
        return store, None  # said by whoever opens it
    if url.password is None:
        return store, None
    bare = url._replace(password=None)  # `set` takes None for "as it is"
    return bare.render_as_string(hide_password=False), str(url.password)


def _detached() -> dict[str, Any]:
    if sys.platform == "win32":
        flags = subprocess.CREATE_NEW_PROCESS_GROUP | subprocess.CREATE_NO_WINDOW
        return {"creationflags": flags | subprocess.BELOW_NORMAL_PRIORITY_CLASS}
    return {"start_new_session": True}


# seconds that a process which was interrupted too may take to end itself
_PATIENCE = 10.0


def training_events(command: str, arguments: Sequence[object]) -> Iterator[dict[str, Any]]:
    """Run ``python -m sonoloop_training COMMAND ARGUMENTS`` and give its events as they come.

    Ctrl-C reaches the process too, which ends itself as it should; it is waited for.
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
