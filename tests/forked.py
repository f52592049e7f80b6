"""Programs as processes of their own, forked from one that has loaded torch: each starts in a moment.

Where the start itself is what is tested, or how the interpreter ends, start ``python -m``.
"""

from __future__ import annotations

import io
import multiprocessing
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess

# what programs of training load
LOADED = (
    "sonoloop_training.evaluation.run",
    "sonoloop_training.finetune.run",
    "sonoloop_training.fit.train",
    "segmentation_models_pytorch",
    "matplotlib.backends.backend_agg",
    "monai.metrics.utils",
)


def start_forked(target: Callable[..., object], *arguments: object) -> BaseProcess:
    """Call a function in a process of its own."""
    context = multiprocessing.get_context("forkserver")
    # that of the first one of a session counts
    context.set_forkserver_preload(list(LOADED))
    process = context.Process(target=target, args=arguments)
    process.start()
    return process


class Program:
    """``python -m sonoloop`` or ``python -m sonoloop_training``, and the training that it starts, forked.

    It has a process group of its own, as a program in a terminal has.
    """

    def __init__(self, name: str, *arguments: object, **environment: str) -> None:
        out, err = multiprocessing.Pipe(duplex=False), multiprocessing.Pipe(duplex=False)
        surroundings = {**os.environ, "OMP_NUM_THREADS": "1", **environment}
        line = [name, *map(str, arguments)]
        self.process = start_forked(_as_program, line, surroundings, out[1], err[1])
        self.stdout, self.stderr = (_reader(pipe) for pipe in (out, err))

    def interrupt(self) -> None:
        """Press Ctrl-C in its terminal."""
        os.killpg(self.process.pid, signal.SIGINT)

    def end(self) -> tuple[int | None, str, str]:
        """Wait for its end; give its code and what it said since it was last read from."""
        out, err = self.stdout.read(), self.stderr.read()
        self.process.join(60)
        self.stdout.close()
        self.stderr.close()
        return self.process.exitcode, out, err


def _reader(pipe: tuple[Connection, Connection]) -> io.TextIOWrapper:
    reader, writer = pipe
    writer.close()
    file = os.fdopen(os.dup(reader.fileno()), encoding="utf-8")
    reader.close()
    return file


def _as_program(
    line: Sequence[str], environment: Mapping[str, str], out: Connection, err: Connection
) -> None:
    os.setsid()
    _become(environment, out.fileno(), err.fileno())
    out.close()
    err.close()
    signal.signal(signal.SIGINT, signal.default_int_handler)
    subprocess.Popen = _start
    name, *arguments = line
    sys.argv = [name, *arguments]
    if name == "sonoloop":
        from sonoloop.cli import main

        raise SystemExit(main())
    _train(arguments)


def _become(environment: Mapping[str, str], out: int, err: int) -> None:
    os.environ.clear()
    os.environ.update(environment)
    os.dup2(out, 1)
    os.dup2(err, 2)
    sys.stdout = open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115 - lasts as long as the process
    sys.stderr = open(2, "w", encoding="utf-8", closefd=False)  # noqa: SIM115


def _train(arguments: list[str]) -> None:
    from sonoloop_training.__main__ import main

    raise SystemExit(main(arguments))


_POPEN = subprocess.Popen


def _start(line: list[str], **options: object) -> object:
    """Start a process, and fork one of training."""
    return (
        Training(line[3:], **options) if line[1:3] == ["-m", "sonoloop_training"] else _POPEN(line, **options)
    )


class Training:
    """What `subprocess.Popen` gives of a training."""

    def __init__(self, arguments: list[str], *, env: Mapping[str, str], **_: object) -> None:
        reader, writer = os.pipe()
        context = multiprocessing.get_context("fork")
        self.process = context.Process(target=_as_training, args=(arguments, env, writer))
        self.process.start()
        os.close(writer)
        self.stdout = os.fdopen(reader, encoding="utf-8")

    def __enter__(self) -> Training:
        return self

    def __exit__(self, *_: object) -> None:
        self.stdout.close()
        self.wait()

    @property
    def returncode(self) -> int | None:
        return self.process.exitcode

    def poll(self) -> int | None:
        return self.process.exitcode

    def wait(self, timeout: float | None = None) -> int | None:
        self.process.join(timeout)
        if self.process.exitcode is None:
            raise subprocess.TimeoutExpired("training", timeout or 0)
        return self.process.exitcode

    def terminate(self) -> None:
        self.process.terminate()


def _as_training(arguments: list[str], environment: Mapping[str, str], out: int) -> None:
    _become(environment, out, 2)
    os.close(out)
    _train(arguments)
