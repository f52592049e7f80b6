"""The two consoles of a command: progress on standard error, the result alone on standard output."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from types import FrameType, TracebackType
from typing import IO, TYPE_CHECKING, Annotated, Any, Self

import typer
from rich.console import Console, ConsoleOptions, RenderableType
from rich.progress import BarColumn, Progress, ProgressColumn, TextColumn, TimeRemainingColumn
from rich.segment import Segment

from sonoloop.errors import SonoloopError
from sonoloop.jobs import events, request
from sonoloop.plain_text import shown

if TYPE_CHECKING:
    from sonoloop.store.corrections import CorrectionStore

_PLAIN_EVERY = 30.0


class SafeConsole(Console):
    """A console on which no text of a stranger acts; what cannot be printed is said, or passed over."""

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """Render; rich's own control codes are segments of their own."""
        for segment in super().render(renderable, options):
            yield segment if segment.control else segment._replace(text=shown(segment.text, keep="\n"))

    def print(self, *objects: Any, **options: Any) -> None:  # noqa: ANN401 - as rich has it
        """Print; progress that nobody can read ends nothing, a result does."""
        # in a table or a text rich would leave out what acts, such as a carriage return
        objects = tuple(shown(one, keep="\n") if isinstance(one, str) else one for one in objects)
        try:
            super().print(*objects, **options)
        except OSError as error:
            if not self.stderr:
                raise _unprinted(error) from error


def result_console(width: int = 120) -> Console:
    """Return the console of the result; `width` characters wide where it is no terminal."""
    console = SafeConsole(highlight=False, markup=False, emoji=False)
    if not console.is_terminal:
        console.width = width
    return console


def print_json(value: Any) -> None:  # noqa: ANN401 - whatever JSON holds
    """Print the result as one line of JSON, at once."""
    try:
        line = json.dumps(value, default=datetime.isoformat, allow_nan=False)
    except ValueError as error:
        raise SonoloopError(f"the result cannot be printed as JSON ({error}); leave out --json") from error
    print_json_line(line)


def print_json_line(line: str) -> None:
    """Print what is JSON already."""
    # the one character that acts and that JSON leaves as it is
    _put(line.replace("\x7f", "\\u007f"))


def say(text: str) -> None:
    """Print a line of the result, at once."""
    _put(shown(text))


def _put(line: str) -> None:
    try:
        sys.stdout.write(line + "\n")
        sys.stdout.flush()
    except BrokenPipeError:
        raise  # whoever read it has what they wanted
    except OSError as error:
        raise _unprinted(error) from error


def print_error(message: str) -> None:
    """Tell why a command failed; where nobody can read it, its exit code says it."""
    with suppress(OSError):
        sys.stderr.write(f"sonoloop: {shown(message)}\n")
        sys.stderr.flush()


def let_go_of(stream: IO[str]) -> bool:
    """Print what a stream still holds, and say whether it could; else Python would try again at its end."""
    try:
        stream.flush()
    except (OSError, ValueError):
        with suppress(OSError, ValueError):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, stream.fileno())
            os.close(nowhere)
        return False
    return True


def _unprinted(error: OSError) -> SonoloopError:
    return SonoloopError(
        f"the result cannot be printed ({error.strerror or error}); what was written to files stays"
    )


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
        self._console = SafeConsole(stderr=True, highlight=False, markup=False, emoji=False, soft_wrap=True)
        self._bar = Progress(
            TextColumn("{task.description}", markup=False),
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
        with suppress(OSError):
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Take the bar away."""
        with suppress(OSError):
            self._bar.stop()

    def notice(self, message: str) -> None:
        """Tell what the user should know and need not act on."""
        self._console.print(shown(message))

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


class EventReport(ProgressConsole):
    """Tells the user of a job's events as they come; the result alone goes to standard output.

    Parameters
    ----------
    *columns : rich.progress.ProgressColumn
        What stands behind the bar.
    as_json : bool
        Whether a program reads the result.
    lines : bool
        Whether it reads the events themselves, and nothing is told.
    stays : str
        What to say after "interrupted".
    """

    def __init__(self, *columns: ProgressColumn, as_json: bool, lines: bool = False, stays: str) -> None:
        super().__init__(*columns, quiet=as_json)
        self._as_json, self._lines, self.stays = as_json, as_json and lines, stays
        self._stage = ""
        # images that could not be used while the others went on
        self.failures: list[events.Unreadable] = []

    def tell(self, event: events.Event) -> None:
        """Take the next event."""
        match event:
            case events.Progress():
                self.advance(event.stage, event.done, event.total, begins=event.stage != self._stage)
                self._stage = event.stage
            case events.Notice():
                self.notice(event.message)

    def name_failures(self, told: str) -> None:
        """Where images could not be used, name them and end with exit code 1."""
        if not self.failures:
            return
        if not self._lines:
            self.notice(f"sonoloop: {told}:")
            for failed in self.failures:
                self.notice(f"  {say_failure(failed)}")
        raise typer.Exit(1)

    def follow(self, asked: request.Request) -> None:
        """Run a job to its end, or to Ctrl-C."""
        from sonoloop.jobs.process import training_events  # noqa: PLC0415 - `--help` needs none of it

        try:
            with self:
                for event in training_events(asked):
                    if self._lines:
                        print_json_line(event.to_json())
                    if isinstance(event, events.Unreadable):
                        self.failures.append(event)
                    if not self._lines or isinstance(event, events.Job):
                        self.tell(event)
        except KeyboardInterrupt:
            self.notice(f"sonoloop: interrupted{self.stays}")
            raise typer.Exit(130) from None


@contextmanager
def working(stays: str, *, quiet: bool) -> Iterator[ProgressConsole]:
    """Show how far a work is; Ctrl-C ends it, and what holds then is told."""
    console = ProgressConsole(TimeRemainingColumn(), quiet=quiet)
    try:
        with console:
            yield console
    except KeyboardInterrupt:
        console.notice(f"sonoloop: interrupted; {stays}")
        raise typer.Exit(130) from None


def say_failure(failed: events.Unreadable) -> str:
    """Say why an image could not be used, and name it once."""
    named = failed.error.startswith(failed.image)
    return failed.error if named else f"{failed.image}: {failed.error}"


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


def not_blank(value: str | None) -> str | None:
    """Refuse an option that is given and says nothing."""
    if value is not None and not value.strip():
        raise typer.BadParameter("it is empty")
    return value


Store = Annotated[
    str | None,
    typer.Option("--store", help="File or URL of the project's corrections; your own if not given."),
]
Who = Annotated[str, typer.Option("--who", callback=not_blank, help="Your pseudonym, for the record.")]
Why = Annotated[str, typer.Option("--why", callback=not_blank, help="The reason, for the record.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, and no table.")]
DEFAULT_WHO = request.DEFAULT_WHO
AsLines = Annotated[bool, typer.Option("--json", help="Print the events, one JSON object a line.")]


def open_store(place: str | None) -> CorrectionStore:
    """Open a project's store; one that is named has to be there."""
    from sonoloop.store import CorrectionStore  # noqa: PLC0415 - `--help` loads none of these
    from sonoloop.store.database import read_existing  # noqa: PLC0415
    from sonoloop.store.network_share import warn_of_share  # noqa: PLC0415

    read_existing(place)
    opened = CorrectionStore(place)
    warn_of_share(opened.url, print_error)
    return opened
