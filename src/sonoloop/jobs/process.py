"""The process of a job: ``python -m sonoloop_training``, awaited by a command or outliving a panel; no Qt."""

from __future__ import annotations

import os
import secrets
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from sonoloop.errors import TrainingError, check_installed
from sonoloop.jobs.events import Event, Failed, Unknown, parse_event
from sonoloop.jobs.folder import OUTPUT, PACKAGE, Job, forget_old_output
from sonoloop.jobs.request import FinetuneRequest, Request
from sonoloop.jobs.wire import to_json

# the one that brings what requests need
EXTRA = "train"
# seconds that a process which was interrupted too may take to end itself
_PATIENCE = 10.0


def start_job(jobs: Path, request: FinetuneRequest) -> Job:
    """Start a fine-tuning, or go on with that of the request's `job`, as a process that outlives this one."""
    check_installed(request.needs, EXTRA)
    forget_old_output(jobs)
    output = jobs / f".{secrets.token_hex(4)}.log" if request.job is None else request.job / OUTPUT
    if request.job is None:
        # a core is left to whoever annotates meanwhile
        request = replace(request, threads=max(1, (os.cpu_count() or 2) - 1))
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        with output.open("wb") as file:
            process = subprocess.Popen(
                _command(request),
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                env=_environment(request),
                **_detached(),
            )
    except OSError as error:
        raise TrainingError(
            f"the fine-tuning could not be started in {output.parent} ({error.strerror}): make room there, "
            "then try again"
        ) from error
    return Job(request.job, output, process)


def training_events(request: Request) -> Iterator[Event]:
    """Run a job and give its events as they come.

    Ctrl-C reaches the process too, which ends itself as it should; it is waited for.
    """
    check_installed(request.needs, EXTRA)
    with subprocess.Popen(
        _command(request),
        stdout=subprocess.PIPE,
        text=True,
        encoding="utf-8",
        errors="replace",
        env=_environment(request),
    ) as process:
        failure: str | None = None
        try:
            for text in process.stdout or ():
                match parse_event(text):
                    case None:
                        sys.stderr.write(text)
                    case Failed(error=error):
                        failure = error
                    case Unknown():
                        pass
                    case event:
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
        told = f"`{request.command}` ended with exit code {process.returncode}; see above"
        raise TrainingError(failure or told)


def _command(request: Request) -> list[str]:
    if store := getattr(request, "store", None):
        request = replace(request, store=_without_password(store)[0])  # type: ignore[call-arg]
    return [sys.executable, "-m", PACKAGE, request.command, "--request", to_json(request)]


def _environment(request: Request) -> dict[str, str]:
    store = getattr(request, "store", None)
    password = _without_password(store)[1] if store else None
    return {**os.environ, **({} if password is None else {"PGPASSWORD": password})}


def _without_password(store: str) -> tuple[str, str | None]:
    """Take the password out of a URL: everyone on the machine can read a process's arguments."""
    if "://" not in store:
        return store, None
    from sqlalchemy import make_url  # noqa: PLC0415 - loads slowly
    from sqlalchemy.exc import ArgumentError  # noqa: PLC0415

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
