"""A field of a request is an option of the command, and a flag of the process."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import pytest
import typer
from typer.testing import CliRunner

from sonoloop.cli.options import takes
from sonoloop.jobs.request import FinetuneRequest, option
from sonoloop_training.__main__ import _add_options, read_arguments


@dataclass(frozen=True, slots=True, kw_only=True)
class Tinted(FinetuneRequest):
    """A fine-tuning with one thing more to ask for."""

    tint: Literal["red", "blue"] = option("Which tint to take.", default="red")


@pytest.fixture
def run():
    given = []
    app = typer.Typer()

    @app.command()
    @takes(Tinted)
    def tune(request: Tinted, *, loud: Annotated[bool, typer.Option("--loud")] = False) -> None:
        """Tune."""
        given.append((request, loud))

    def call(*arguments: str):
        result = CliRunner().invoke(app, list(arguments))
        return result, given[-1] if given else None

    return call


def test_one_field_more_is_one_option_more(run):
    result, _ = run("--help")
    assert "--tint" in result.output and "Which tint to take." in result.output
    result, given = run("--tint", "blue", "--loud", "--set", "a=1", "--no-gate", "--from", "m", "--job", "j")
    assert result.exit_code == 0, result.output
    asked = Tinted(tint="blue", settings=("a=1",), judged=False, start="m", job=Path("j"))
    assert given == (asked, True)
    assert type(given[0].tint) is str
    _, given = run()
    assert given == (Tinted(), False)


@pytest.mark.parametrize(
    "arguments", [["--tint", "green"], ["--threads", "0"], ["--who", " "], ["--recipe", "x"]]
)
def test_what_a_field_does_not_allow_is_refused(run, arguments):
    result, given = run(*arguments)
    assert (result.exit_code, given) == (2, None)


def test_one_field_more_is_one_flag_more():
    parser = argparse.ArgumentParser(argument_default=argparse.SUPPRESS)
    _add_options(parser, Tinted)
    given = vars(parser.parse_args(["--tint", "blue", "--no-gate", "--recipe", "mine.toml"]))
    assert given == {"tint": "blue", "judged": False, "recipe_name": "mine.toml"}


def test_a_process_reads_json_and_flags_alike():
    asked = FinetuneRequest(store="s", settings=("a=1", "b=2"), base_data=Path("d"), max_minutes=2)
    flags = ["--store", "s", "--set", "a=1", "--set", "b=2", "--base-data", "d", "--max-minutes", "2"]
    text = '{"store": "s", "settings": ["a=1", "b=2"], "base_data": "d", "max_minutes": 2}'
    assert read_arguments(["finetune", *flags]) == read_arguments(["finetune", "--request", text]) == asked
