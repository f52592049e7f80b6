"""`sonoloop calibrate` as its user has it: what it says of a model that was made."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from sonoloop.cli import calibrate as command
from sonoloop.errors import StoreError
from sonoloop.jobs import process
from sonoloop.jobs.events import Calibrated, Event, Progress, Refitted

FOUND = Calibrated(
    model="cal-12345678",
    version="1" * 64,
    base="default-00b8f020",
    base_version="0" * 64,
    in_use="0" * 64,
    numbers=[Refitted(name="threshold", before=0.4, after=0.3)],
    figures=[],
    frames=40,
    groups=40,
    test_set=1,
)


@pytest.fixture
def moved(monkeypatch) -> None:
    """A calibration after which the model cannot come into use."""

    def refuse(*_: object) -> None:
        raise StoreError("tuned-9 is in use now")

    monkeypatch.setattr(process, "training_events", lambda _request: iter([FOUND]))
    monkeypatch.setattr(command, "_check_free", lambda _store: None)
    monkeypatch.setattr(command, "_use", refuse)


def test_a_model_that_cannot_come_into_use_is_named(sonoloop, moved):
    done = sonoloop("calibrate", "--use")
    assert done.returncode == 2
    assert done.stderr == "sonoloop: cal-12345678 is kept and not used: tuned-9 is in use now\n"


def test_its_numbers_are_given_as_json_all_the_same(sonoloop, moved):
    done = sonoloop("calibrate", "--use", "--json")
    assert done.returncode == 2
    told = json.loads(done.stdout)
    assert (told["model"], told["used"]) == ("cal-12345678", False)


def test_interrupted_while_it_is_judged_it_does_not_say_that_nothing_was_made(sonoloop, monkeypatch):
    def interrupted(_request: object) -> Iterator[Event]:
        yield Progress(stage="Judging cal-12345678", done=0, total=40)
        raise KeyboardInterrupt

    monkeypatch.setattr(process, "training_events", interrupted)
    done = sonoloop("calibrate")
    assert done.returncode == 130
    assert done.stderr.splitlines()[-1] == "sonoloop: interrupted; the model in use stays"
