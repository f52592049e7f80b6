"""What a job's events add up to."""

from __future__ import annotations

import fake_training
import pytest

from sonoloop.gui.train_progress import (
    JobProgress,
    Stage,
    advance,
    describe_progress,
    describe_time,
    end,
)


def test_events_add_up_to_curves_and_a_verdict():
    progress = advance(JobProgress(stage=Stage.STARTING), fake_training.events(0))
    assert progress.stage is Stage.RUNNING
    assert len(progress.losses) == fake_training.EPOCHS * fake_training.STEPS
    assert progress.losses[0] == (0.25, 1 / 1.25)
    assert progress.dices[-1] == (3, pytest.approx(0.76))
    assert progress.left_out == (("f" * 64, "a lesion on a frame called normal"),)
    progress = advance(progress, [fake_training.GATE, {"event": "finished", "model": "ft-1"}])
    assert (progress.stage, progress.model) == (Stage.DONE, "ft-1")
    assert progress.gate.interval == (0.012, 0.05)
    assert end(progress, "Aborted") == progress, "a model that is made is made"


def test_a_resumed_job_draws_no_epoch_twice():
    progress = advance(JobProgress(), fake_training.events(0))
    progress = advance(progress, [{"event": "failed", "error": "interrupted"}])
    assert progress.stage is Stage.STOPPED
    progress = advance(progress, fake_training.events(2))
    assert progress.stage is Stage.RUNNING
    assert [epoch for epoch, _ in progress.dices] == [1, 2, 3]
    assert len(progress.losses) == fake_training.EPOCHS * fake_training.STEPS


def test_what_is_not_understood_changes_nothing():
    before = advance(JobProgress(), fake_training.events(0))
    assert advance(before, [{}, {"event": "step"}, {"event": "gate"}, {"event": "later", "x": 1}]) == before


def test_the_end_tells_a_stop_from_a_crash():
    running = advance(JobProgress(), fake_training.events(0))
    assert end(running, None, stopped=True).stage is Stage.STOPPED
    crashed = end(running, "CUDA error: out of memory")
    assert (crashed.stage, crashed.error) == (Stage.FAILED, "CUDA error: out of memory")
    assert crashed.stage.can_go_on
    assert "without a word" in end(running, None).error


def test_the_line_says_epoch_time_and_device():
    progress = advance(JobProgress(), fake_training.events(0))
    assert describe_progress(progress) == "Epoch 3 of 3 · 1 min 10 s left · CPU"
    reading = advance(JobProgress(), [{"event": "progress", "stage": "Reading", "done": 3, "total": 9}])
    assert describe_progress(reading) == "Reading: 3 of 9"


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (3, "a few seconds"),
        (42, "40 s"),
        (59, "1 min"),
        (70, "1 min 10 s"),
        (900, "15 min"),
        (4000, "1 h 06 min"),
    ],
)
def test_time_is_told_as_coarsely_as_it_is_known(seconds, words):
    assert describe_time(seconds) == words
