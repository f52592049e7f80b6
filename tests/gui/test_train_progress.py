"""What a job's events add up to."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import fake_training
import pytest

from sonoloop.errors import TrainingError
from sonoloop.gui.train.gate_view import describe_figures, describe_reason
from sonoloop.gui.train.progress import (
    JobProgress,
    Stage,
    advance,
    describe_failure,
    describe_progress,
    describe_time,
    end,
)
from sonoloop.jobs.events import (
    Failed,
    Finished,
    Notice,
    Progress,
    Promoted,
    StartWatched,
    failure,
    parse_event,
)

INTERRUPTED = failure(KeyboardInterrupt())


def test_events_add_up_to_curves_and_a_verdict():
    progress = advance(JobProgress(stage=Stage.STARTING), fake_training.events(0))
    assert progress.stage is Stage.RUNNING
    assert len(progress.losses) == fake_training.EPOCHS * fake_training.STEPS
    assert progress.losses[0] == (0.25, 1 / 1.25)
    assert progress.dices[-1] == (3, pytest.approx(0.76))
    assert progress.left_out == tuple(fake_training.SELECTED.left_out)
    progress = advance(progress, [fake_training.GATE, Finished(model="ft-1", path="", minutes=1.0)])
    assert (progress.stage, progress.model) == (Stage.DONE, "ft-1")
    assert progress.gate.interval == (0.012, 0.05)
    assert end(progress, Failed(error="Aborted")) == progress, "a model that is made is made"


def test_a_resumed_job_draws_no_epoch_twice():
    progress = advance(JobProgress(), fake_training.events(0))
    progress = advance(progress, [INTERRUPTED])
    assert progress.stage is Stage.STOPPED
    progress = advance(progress, fake_training.events(2))
    assert progress.stage is Stage.RUNNING
    assert [epoch for epoch, _ in progress.dices] == [1, 2, 3]
    assert len(progress.losses) == fake_training.EPOCHS * fake_training.STEPS


def test_the_model_it_starts_from_is_on_the_curve_once():
    start = [StartWatched(dice=0.65)]
    progress = advance(JobProgress(), [*start, INTERRUPTED, *start])
    assert advance(progress, fake_training.events(0)).dices[:2] == ((0, 0.65), (1, pytest.approx(0.72)))
    nothing = [StartWatched(dice=None)]
    assert advance(JobProgress(), nothing).dices == ()


def test_what_it_put_into_use_is_said():
    done = [
        Promoted(model="ft-1", version="c" * 64),
        Finished(model="ft-1", path="", minutes=1.0),
    ]
    assert describe_progress(advance(JobProgress(), done)) == "Made ft-1 and put it into use"


def test_a_notice_that_comes_again_is_kept_once():
    told = [Notice(message=text) for text in ("one", "two", "one")]
    assert advance(JobProgress(), told).notices == ("one", "two")


def test_the_dice_is_said_once_and_auc_with_the_figures():
    reason = "Better: mean Dice +0.031 [+0.012, +0.050] on 70 frames with a lesion from 64 groups, and so on."
    gate = advance(JobProgress(), [replace(fake_training.GATE, reason=reason)]).gate
    assert describe_figures(gate).startswith("Dice +0.031 [+0.012, +0.050], ")
    assert describe_figures(gate).endswith(", AUC +0.004")
    assert describe_reason(gate) == "Better: mean Dice on 70 frames with a lesion from 64 groups, and so on."


@pytest.mark.parametrize(
    ("missed", "alarms", "words"),
    [
        (0.0, 0.02, "missed malignant unchanged, false alarms +2 points"),
        (0.01, -0.004, "missed malignant +1 point, false alarms \N{MINUS SIGN}0.4 points"),
    ],
)
def test_figures_read_as_differences(missed, alarms, words):
    event = replace(fake_training.GATE, missed_malignant=missed, false_alarms=alarms)
    assert f", {words}, " in describe_figures(advance(JobProgress(), [event]).gate)


@pytest.mark.parametrize(
    ("failed", "details", "words"),
    [
        (
            failure(KeyError("x")),
            Path("job/output.log"),
            f"an error in Sonoloop; details in {Path('job/output.log')}",
        ),
        (failure(TypeError("no")), None, "an error in Sonoloop (TypeError: no)"),
        (
            failure(TrainingError("3 of the corrections can teach")),
            Path("o"),
            "3 of the corrections can teach",
        ),
        # by its kind, whatever its words are like
        (failure(TrainingError("Error: no")), Path("o"), "Error: no"),
    ],
)
def test_an_error_in_sonoloop_is_called_one(failed, details, words):
    assert describe_failure(failed, details) == f"It failed: {words}"


def test_a_training_that_keeps_no_image_apart_is_known():
    told = fake_training.epoch_done(1, None)
    assert advance(JobProgress(), [told]).unwatched
    assert not advance(JobProgress(), [replace(told, dice=0.5)]).unwatched


def test_the_words_of_an_earlier_try_do_not_stand_for_this_one():
    stopped = advance(JobProgress(), [INTERRUPTED])
    other = Failed(error="another fine-tuning works on this store")
    now = end(stopped, other, exit_code=1)
    assert (now.stage, now.failed) == (Stage.FAILED, other)
    assert end(stopped, Failed(error="a warning"), exit_code=130).stage is Stage.STOPPED


def test_what_is_not_understood_changes_nothing():
    before = advance(JobProgress(), fake_training.events(0))
    lines = ('{"event": "step"}', '{"event": "gate"}', '{"event": "later", "x": 1}')
    assert advance(before, map(parse_event, lines)) == before


def test_the_end_tells_a_stop_from_a_crash():
    running = advance(JobProgress(), fake_training.events(0))
    assert end(running, None, stopped=True).stage is Stage.STOPPED
    words = Failed(error="CUDA error: out of memory")
    crashed = end(running, words)
    assert (crashed.stage, crashed.failed) == (Stage.FAILED, words)
    assert crashed.stage.can_go_on
    assert "without a word" in end(running, None).failed.error


def test_the_line_says_epoch_time_and_device():
    progress = advance(JobProgress(), fake_training.events(0))
    assert describe_progress(progress) == "Epoch 3 of 3 · 1 min 10 s left · CPU"
    reading = advance(JobProgress(), [Progress(stage="Reading", done=3, total=9)])
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
