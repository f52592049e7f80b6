"""What `sonoloop train` tells, from the events alone."""

from __future__ import annotations

from dataclasses import replace

import pytest

from sonoloop.cli.train import TrainingReport
from sonoloop.jobs.events import Evaluated, Finished, Notice, Progress, Started, Step

STARTED = Started(
    recipe="tiny", device="cuda:0", precision="bf16-mixed", train=9, validation=3, test=4, epoch=2, epochs=5,
    steps=20, processes=2,
)  # fmt: skip
STEP = Step(epoch=3, epochs=5, step=20, steps=20, loss=0.5, seconds_left=75.4)


def test_a_terminal_shows_a_bar_with_the_time_left(monkeypatch, capsys, tmp_path):
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "120")
    with TrainingReport(tmp_path, as_json=False) as report:
        report.tell(Progress(stage="Reading", done=50, total=90))
    told = capsys.readouterr()
    assert told.out == ""
    assert "Reading" in told.err
    assert "50 of 90" in told.err
    with TrainingReport(tmp_path, as_json=False) as report:
        report.tell(STARTED)
        report.tell(STEP)
    told = capsys.readouterr()
    assert told.out == ""
    assert "epoch 3/5, loss 0.500, about 0:01:15 left" in told.err


def test_without_a_terminal_there_is_a_line_every_half_minute(monkeypatch, capsys, tmp_path):
    now = [1000.0]
    monkeypatch.setattr("sonoloop.cli.console.time.monotonic", lambda: now[0])
    with TrainingReport(tmp_path, as_json=False) as report:
        report.tell(STARTED)
        for _ in range(7):
            report.tell(STEP)
            now[0] += 10.0
        report.tell(Notice(message="only 4 of 5 epochs fit into the time allowed"))
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == (
        "tiny: 9 images train, 3 validate, 4 test; 5 epochs, going on after epoch 2; "
        "cuda:0 in bf16-mixed on 2 processes"
    )
    assert lines[1] == "about 0:01:15 left"
    assert lines[2:-1] == ["Training: epoch 3/5, loss 0.500, about 0:01:15 left"] * 2
    assert lines[-1] == "only 4 of 5 epochs fit into the time allowed"


def told_of_steps(tmp_path, capsys, *steps: tuple[int, int, float]) -> list[str]:
    """Tell of steps of a hundred, each as epoch, step and seconds left; give the notices."""
    with TrainingReport(tmp_path, as_json=False) as report:
        for epoch, step, left in steps:
            report.tell(replace(STEP, epoch=epoch, step=step, steps=100, seconds_left=left))
    return capsys.readouterr().err.splitlines()


def test_the_time_left_is_not_told_from_the_slow_first_steps(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr("sonoloop.cli.train.time.monotonic", lambda: 1000.0)
    assert told_of_steps(tmp_path, capsys, (1, 10, 900.0), (1, 20, 600.0)) == []
    assert told_of_steps(tmp_path, capsys, (1, 20, 600.0), (1, 30, 500.0), (1, 40, 490.0)) == [
        "about 0:08:20 left"
    ]


def test_the_time_left_is_told_again_after_an_epoch_if_it_is_another(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr("sonoloop.cli.train.time.monotonic", lambda: 1000.0)
    nearly, longer = (
        [(1, 30, 500.0), (2, 30, left), (2, 40, left), (3, 30, 99.0)] for left in (420.0, 700.0)
    )
    assert told_of_steps(tmp_path, capsys, *nearly) == ["about 0:08:20 left"]
    assert told_of_steps(tmp_path, capsys, *longer) == [
        "about 0:08:20 left",
        "after a whole epoch: about 0:11:40 left",
    ]


def test_figures_without_an_interval_are_shown_too(capsys, tmp_path):
    figures = {"images": 3, "accuracy": {"value": 0.5, "ci95": None, "n": 3}, "auc": None}
    report = TrainingReport(tmp_path, as_json=False)
    report.tell(Evaluated(part="test", metrics={"all": figures, "busi": figures}))
    report.tell(Finished(model="tiny-12345678", path="out/bundle", minutes=2.4))
    lines = [line.rstrip() for line in capsys.readouterr().out.splitlines()]
    assert lines[0] == "busi: 3 test images"
    assert lines[2].split() == ["accuracy,", "three", "classes", "0.500"]
    assert lines[3].startswith("tiny-12345678 is in out/bundle, made in 2 min; all figures are in ")
    assert len(lines) == 4


@pytest.mark.parametrize(
    ("model", "title"),
    [
        ("tiny-leaked-0123abcd", "busi: 9 test images (leaked)"),
        ("tiny-0123abcd", "busi: 9 test images"),
        ("leaked-0123abcd", "busi: 9 test images"),
    ],
)
def test_the_figures_of_a_split_that_leaks_are_titled_so(capsys, tmp_path, model, title):
    figures = {"images": 9, "auc": {"value": 0.9, "ci95": [0.8, 1.0], "n": 9}}
    metrics = {"all": figures, "busi": figures}
    with TrainingReport(tmp_path, as_json=False) as report:
        report.tell(Evaluated(part="test", metrics=metrics))
        report.tell(Finished(model=model, path="bundle", minutes=1.0))
    assert capsys.readouterr().out.splitlines()[0].rstrip() == title
