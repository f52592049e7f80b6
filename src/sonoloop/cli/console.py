"""The two consoles of a command: progress on standard error, the result alone on standard output."""

from __future__ import annotations

import time
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, TextColumn

_PLAIN_EVERY = 30.0


def result_console(width: int = 120) -> Console:
    """Return the console of the result; `width` characters wide where it is no terminal."""
    console = Console(highlight=False, markup=False, emoji=False)
    if not console.is_terminal:
        console.width = width
    return console


class ProgressConsole:
    """A bar on a terminal, plain lines now and then elsewhere, nothing where a program reads the result.

    Parameters
    ----------
    *columns : rich.progress.ProgressColumn
        What stands behind the bar.
    quiet : bool
        Whether no progress is told; notices are.
    """

    def __init__(self, *columns: ProgressColumn, quiet: bool) -> None:
        self._console = Console(stderr=True, highlight=False, markup=False, emoji=False, soft_wrap=True)
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            *columns,
            console=self._console,
            disable=quiet or not self._console.is_terminal,
            transient=True,
        )
        self._task = self._bar.add_task("Starting", total=None, note="")
        self._quiet = quiet
        self._last_plain = time.monotonic()

    @property
    def is_plain(self) -> bool:
        """Whether lines are told in place of a bar."""
        return self._bar.disable and not self._quiet

    def __enter__(self) -> Self:
        """Start the bar."""
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Take the bar away."""
        self._bar.stop()

    def notice(self, message: str) -> None:
        """Tell what the user should know and need not act on."""
        self._console.print(message)

    def show(self, stage: str, done: int, total: int, *, note: str = "") -> None:
        """Set the bar alone."""
        self._bar.update(self._task, description=stage, completed=done, total=total, note=note)

    def advance(self, stage: str, done: int, total: int, *, note: str = "", begins: bool = False) -> None:
        """Tell how far a stage is; where there is no bar, as a line every half minute, or when it begins."""
        self.show(stage, done, total, note=note)
        now = time.monotonic()
        if self.is_plain and (begins or now - self._last_plain >= _PLAIN_EVERY):
            self._last_plain = now
            self.notice(f"{stage}: {note or f'{done} of {total}'}")
