"""What `sonoloop train` tells, from the events alone."""

from __future__ import annotations

from sonoloop.cli.training_report import TrainingReport

STARTED = {
    "event": "started", "recipe": "tiny", "device": "cuda:0", "precision": "bf16-mixed", "train": 9,
    "validation": 3, "test": 4, "epoch": 2, "epochs": 5, "steps": 20, "processes": 2,
}  # fmt: skip
STEP = {"event": "step", "epoch": 3, "epochs": 5, "step": 10, "steps": 20, "loss": 0.5, "seconds_left": 75.4}


def test_a_terminal_shows_a_bar_with_the_time_left(monkeypatch, capsys, tmp_path):
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "120")
    with TrainingReport(tmp_path, as_json=False) as report:
        report.tell({"event": "progress", "stage": "Reading", "done": 50, "total": 90})
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
        report.tell({"event": "notice", "message": "only 4 of 5 epochs fit into the time allowed"})
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == (
        "tiny: 9 images train, 3 validate, 4 test; 5 epochs, going on after epoch 2; "
        "cuda:0 in bf16-mixed on 2 processes"
    )
    assert lines[1] == "about 0:01:15 left"
    assert lines[2:-1] == ["Training: epoch 3/5, loss 0.500, about 0:01:15 left"] * 2
    assert lines[-1] == "only 4 of 5 epochs fit into the time allowed"


def test_figures_without_an_interval_are_shown_too(capsys, tmp_path):
    figures = {"images": 3, "accuracy": {"value": 0.5, "ci95": None, "n": 3}, "auc": None}
    report = TrainingReport(tmp_path, as_json=False)
    report.tell({"event": "evaluated", "part": "test", "metrics": {"all": figures, "busi": figures}})
    report.tell({"event": "finished", "model": "tiny-12345678", "path": "out/bundle", "minutes": 2.4})
    lines = [line.rstrip() for line in capsys.readouterr().out.splitlines()]
    assert lines[0] == "busi: 3 test images"
    assert lines[2].split() == ["accuracy,", "three", "classes", "0.500"]
    assert lines[3].startswith("tiny-12345678 is in out/bundle, made in 2 min; all figures are in ")
    assert len(lines) == 4
