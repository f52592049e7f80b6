"""What the Train and the Models panel ask of the store, in their workers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

if TYPE_CHECKING:
    from sonoloop.gui.models_shelf import Shelf
    from sonoloop.jobs.events import Gate
    from sonoloop.store.snapshots import Learnable


@dataclass(frozen=True, slots=True)
class Outlook:
    """What the next training would have, and the model that is in use.

    Parameters
    ----------
    news : Learnable
        What is new since the model in use.
    model : str
        What that model is called.
    snapshots : tuple of str
        Names of those that were taken, the newest first.
    lessons : int
        Corrections that may train, those that the model in use has learned from among them.
    """

    news: Learnable
    model: str
    snapshots: tuple[str, ...]
    lessons: int


class TrainingDesk(Protocol):
    """What the Train panel asks of the store; see `sonoloop.gui.train_desk.TrainDesk`."""

    def outlook(self, url: str | None) -> Outlook:
        """Count what is new, and list the snapshots."""
        ...

    def name_frames(self, url: str | None, frames: Sequence[str]) -> Mapping[str, str]:
        """Name the files of frames, by ids or their first digits, as far as this machine knows them."""
        ...

    def jobs_folder(self, url: str | None) -> Path:
        """Return where the jobs of a store lie."""
        ...

    def use(self, url: str | None, gate: Gate, *, who: str, why: str | None) -> None:
        """Put a candidate into use."""
        ...

    def close(self) -> None:
        """Close the store."""
        ...


class ModelDesk(Protocol):
    """What the Models panel asks of the store and the library; see `sonoloop.gui.models_shelf.ModelsDesk`."""

    def read(self, url: str | None) -> Shelf:
        """List the models."""
        ...

    def use(self, url: str | None, version: str, *, expected: str, who: str, why: str) -> None:
        """Put a model into use."""
        ...

    def roll_back(self, url: str | None, *, who: str) -> None:
        """Put the model back into use that was before."""
        ...

    def import_model(self, url: str | None, source: Path, *, who: str) -> None:
        """Add a model."""
        ...

    def export(self, version: str, target: Path) -> None:
        """Write a model to a zip file."""
        ...

    def delete(self, url: str | None, version: str, *, who: str) -> None:
        """Delete a model's bundle."""
        ...

    def set_locked(self, url: str | None, version: str, locked: bool, *, who: str, why: str) -> None:
        """Lock the project to the model in use, or let others in again."""
        ...

    def card(self, url: str | None, version: str) -> tuple[tuple[str, str], ...]:
        """Tell what is known of a model."""
        ...

    def close(self) -> None:
        """Close the store."""
        ...


class Closes(Protocol):
    """What is let go of at the end."""

    def close(self) -> None:
        """Let go."""
        ...


D = TypeVar("D", bound=Closes)


class LazyDesk(Generic[D]):
    """Makes a desk at the first question, in the worker that asks: what it imports loads slowly.

    Parameters
    ----------
    make : callable
        Makes the desk.
    """

    def __init__(self, make: Callable[[], D]) -> None:
        self._make = make
        self._desk: D | None = None
        self._lock = Lock()

    def get(self) -> D:
        """Return the desk."""
        with self._lock:
            if self._desk is None:
                self._desk = self._make()
            return self._desk

    def close(self) -> None:
        """Close the desk, if there is one."""
        with self._lock:
            if self._desk is not None:
                self._desk.close()
