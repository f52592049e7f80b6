"""How long a training will still take, from how long its steps took."""

from __future__ import annotations

import time
from dataclasses import dataclass

from sonoloop_training.fit.recipe import FitConfig

# the first steps of a process are slower than the rest, and do not count once there are others
_SLOW = 10
# of a training step, the way to an answer without the way back takes about this much
_FORWARD = 1 / 3


@dataclass(slots=True, kw_only=True)
class Pace:
    """The time that steps and epochs take.

    Parameters
    ----------
    config : FitConfig
        For its batch and its small epochs.
    steps : int
        In an epoch.
    small : float
        Pixels of an image of the small epochs, as a share of the others'.
    watched : int
        Images that are watched after each epoch.
    follows : float
        Epochs that another fit will make afterwards.
    step : float
        Seconds that one takes, as last measured.
    """

    config: FitConfig
    steps: int
    small: float = 1.0
    watched: int = 0
    follows: float = 0.0
    step: float = 0.0
    _watching: float | None = None
    _since: float = 0.0
    _counted: int = 0

    @property
    def is_guessed(self) -> bool:
        """Whether no epoch came to its end yet, so that what watching takes is not known."""
        return self._watching is None

    def begin(self) -> None:
        """Start the clock of an epoch's steps."""
        self._since, self._counted = time.monotonic(), 0

    def measure(self, done: int) -> None:
        """Take the time after so many steps of the epoch, more than at the last call."""
        now = time.monotonic()
        self.step = (now - self._since) / (done - self._counted)
        if self.is_guessed and done == _SLOW:
            self._since, self._counted = now, done

    def end(self, seconds: float) -> None:
        """Take note of how long all took that came after an epoch's last step."""
        self._watching = seconds

    def epoch(self, epoch: int, *, now: int) -> float:
        """Seconds that an epoch will take, at the pace of epoch `now`; both from 0."""
        return self.step * self.steps * self._pixels(epoch) / self._pixels(now) + self._after(now)

    def left(self, done: int, *, now: int, epochs: int) -> float:
        """Seconds that are left after so many steps of epoch `now`, until another fit is through too."""
        whole = sum(self.epoch(epoch, now=now) for epoch in range(now + 1, epochs))
        return (
            self.step * (self.steps - done)
            + self._after(now)
            + whole
            + self.follows * self.epoch(epochs, now=now)
        )

    def count_fitting(self, seconds: float, *, now: int, epochs: int) -> int:
        """Count the epochs, `now` the first of them, that fit into a time."""
        for epoch in range(now, epochs):
            seconds -= self.epoch(epoch, now=now)
            if seconds < 0:
                return epoch - now
        return epochs - now

    def _pixels(self, epoch: int) -> float:
        return self.small if epoch < self.config.small_epochs else 1.0

    def _after(self, now: int) -> float:
        if self._watching is not None:
            return self._watching
        return self.step / self._pixels(now) * _FORWARD * self.watched / self.config.batch
