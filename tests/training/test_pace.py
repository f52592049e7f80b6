"""The time left, from how long the steps took."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from sonoloop_training.fit.loop import Pace
from sonoloop_training.fit.recipe import FitConfig


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Give a function that moves the clock on by so many seconds."""
    now = [500.0]
    monkeypatch.setattr("sonoloop_training.fit.loop.time.monotonic", lambda: now[0])

    def move(seconds: float) -> None:
        now[0] += seconds

    return move


def test_the_slow_first_steps_are_not_taken_for_the_pace(clock):
    pace = Pace(config=FitConfig(), steps=100)
    pace.begin()
    clock(50)
    pace.measure(10)
    assert pace.step == 5
    clock(20)
    pace.measure(20)
    clock(20)
    pace.measure(30)
    assert pace.step == 2
    assert pace.left(30, now=0, epochs=3) == 2 * 270


def test_in_a_later_epoch_all_steps_count(clock):
    pace = Pace(config=FitConfig(), steps=100)
    pace.end(7)
    pace.begin()
    clock(10)
    pace.measure(10)
    clock(30)
    pace.measure(20)
    assert pace.step == 2


def test_validation_and_the_fit_that_follows_are_in_the_time_left(clock):
    pace = Pace(config=FitConfig(batch=8), steps=10, validation=48, follows=2)
    pace.begin()
    clock(10)
    pace.measure(10)
    # until it was timed once: six batches, at a third of a training step each
    assert pace.is_guessed
    assert pace.left(10, now=0, epochs=1) == pytest.approx(2 + 2 * (10 + 2))
    pace.end(5)
    assert not pace.is_guessed
    pace.begin()
    clock(10)
    pace.measure(10)
    assert pace.left(10, now=0, epochs=1) == pytest.approx(5 + 2 * (10 + 5))


def test_epochs_of_smaller_images_take_less(clock):
    pace = Pace(config=FitConfig(small_epochs=2), steps=10, small=0.5)
    pace.begin()
    clock(10)
    pace.measure(10)
    assert [pace.epoch(epoch, now=0) for epoch in range(4)] == [10, 10, 20, 20]
    assert pace.left(10, now=0, epochs=4) == 50
    assert [pace.count_fitting(time, now=0, epochs=4) for time in (-1, 9, 10, 39, 40, 60, 999)] == [
        0, 0, 1, 2, 3, 4, 4,
    ]  # fmt: skip
