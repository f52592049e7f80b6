"""Events and requests as lines of JSON, and back."""

from __future__ import annotations

import dataclasses
import json
import typing
from pathlib import Path
from types import UnionType

import pytest

from sonoloop.errors import MissingFilesError, SonoloopError, TrainingError
from sonoloop.jobs.events import (
    EVENTS,
    Evaluated,
    Failed,
    Gate,
    Selected,
    Side,
    Unknown,
    failure,
    name_event,
    parse_event,
)
from sonoloop.jobs.request import FinetuneRequest, GateRequest, read_request
from sonoloop.jobs.wire import to_json, type_hints


def sample(hint):
    """Some value of a type."""
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if dataclasses.is_dataclass(hint):
        return hint(**{name: sample(each) for name, each in type_hints(hint).items()})
    if origin in (typing.Union, UnionType, typing.Literal):
        return inner[0] if origin is typing.Literal else sample(inner[0])
    if origin is dict:
        return {"one": sample(inner[1])}
    if origin is list:
        return [sample(inner[0])]
    if origin is tuple:
        return tuple(sample(each) for each in inner if each is not ...)
    return {str: "words", int: 3, float: 0.5, bool: True, typing.Any: {"a": [1, None]}}[hint]


@pytest.mark.parametrize("kind", EVENTS.values(), ids=EVENTS)
def test_an_event_is_read_as_it_was_written(kind):
    event = sample(kind)
    line = event.to_json()
    assert line.startswith(f'{{"event": "{name_event(kind)}", ')
    assert parse_event(line) == event
    assert parse_event(line.encode()) == event


def test_what_a_newer_version_says_is_left_aside():
    assert parse_event('{"event": "later", "x": 1}') == Unknown()
    assert parse_event('{"event": "notice"}') == parse_event('{"event": "notice", "message": 3}') == Unknown()
    assert parse_event('{"event": "failed", "error": "no", "colour": "red"}') == Failed(error="no")


@pytest.mark.parametrize("line", ["", "loading ...", "[1]", "{}", '{"event": 3}', '{"event": "not'])
def test_what_a_library_prints_is_no_event(line):
    assert parse_event(line) is None


@pytest.mark.parametrize(
    ("kind", "values"),
    [
        (Evaluated, {"metrics": [1]}),
        (Gate, {"sides": []}),
        (Gate, {"sides": {"auc": 3}}),
        (Selected, {"by_class": None}),
        (Selected, {"left_out": "abc"}),
    ],
)
def test_a_value_of_another_kind_makes_an_event_unknown(kind, values):
    told = json.loads(sample(kind).to_json())
    assert parse_event(json.dumps({**told, **values})) == Unknown()


def test_a_line_that_is_nested_too_deeply_is_no_event():
    assert parse_event('{"event": "notice", "message": ' + "[" * 100_000) is None


def test_lines_of_before_the_gate_told_everything_are_read():
    told = {"verdict": "refuse", "reason": "no", "groups": 3, "test_set": 1, "look": 2, "looks": 2}
    gate = parse_event(json.dumps({"event": "gate", **told, "candidate": "c", "incumbent": "i"}))
    assert gate == Gate(**told, candidate="c", incumbent="i")


@pytest.mark.parametrize(
    ("error", "kind", "words"),
    [
        (SonoloopError("no"), "refused", "no"),
        (TrainingError("TypeError: in words"), "refused", "TypeError: in words"),
        (MissingFilesError("gone"), "missing_files", "gone"),
        (KeyboardInterrupt(), "interrupted", "interrupted"),
        (KeyError("x"), "unforeseen", "KeyError: 'x'"),
        (
            ImportError("no torch"),
            "refused",
            'no torch; this needs: pip install "napari-sonoloop[train]"',
        ),
        (
            ModuleNotFoundError("No module named 'pyarrow.parquet'", name="pyarrow.parquet"),
            "refused",
            'this needs pyarrow, which is not installed: pip install "napari-sonoloop[train]"',
        ),
    ],
)
def test_a_failure_says_what_can_be_done(error, kind, words):
    assert failure(error) == Failed(error=words, kind=kind)


def test_a_failure_of_before_it_said_so():
    assert parse_event('{"event": "failed", "error": "interrupted"}').kind == "interrupted"
    assert parse_event('{"event": "failed", "error": "too few"}').kind == "refused"


def test_a_request_is_read_as_it_was_written():
    asked = FinetuneRequest(base_data=Path("data"), settings=("a=1", "b=2"), max_minutes=5, judged=False)
    assert read_request(FinetuneRequest, to_json(asked)) == asked
    with pytest.raises(SonoloopError, match=r"no request for gate .*it has colour"):
        read_request(GateRequest, '{"model": "m", "colour": "red"}')
    for told in ("[]", "[" * 100_000):
        with pytest.raises(SonoloopError, match="no request for finetune"):
            read_request(FinetuneRequest, told)


def test_a_side_keeps_its_interval():
    side = sample(Side)
    event = dataclasses.replace(sample(Gate), sides={"auc": side})
    assert parse_event(event.to_json()).sides["auc"].interval == side.interval == (0.5, 0.5)


def test_what_is_no_number_is_null_in_json():
    told = {"a": float("nan"), "b": [1.5, float("inf")], "c": {"d": (-float("inf"), "x", Path("p"))}}
    line = to_json(told)
    assert json.loads(line, parse_constant=pytest.fail) == {
        "a": None,
        "b": [1.5, None],
        "c": {"d": [None, "x", "p"]},
    }


@pytest.mark.parametrize("minutes", [float("nan"), float("inf")])
def test_a_time_that_is_no_number_is_refused(minutes):
    with pytest.raises(SonoloopError, match=r"--max-minutes is (nan|inf); give a number, or leave it out"):
        FinetuneRequest(max_minutes=minutes)
    with pytest.raises(SonoloopError, match="--max-minutes"):
        read_request(FinetuneRequest, json.dumps({"max_minutes": minutes}))
