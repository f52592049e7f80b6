"""What the command line prints, and where it cannot: as processes, since it is about their streams."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from sonoloop.formats.prediction_folder import read_predictions
from sonoloop.imaging.phantom import phantom

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="names and devices of POSIX")


@pytest.fixture
def images(tmp_path) -> Path:
    folder = tmp_path / "in"
    folder.mkdir()
    picture = Image.fromarray(phantom("benign", seed=1, shape=(96, 128)).image)
    for name in ("a.png", "[red]b[bold].png", "\x1b[31m\u202ec\n.png", f"{'n' * 247}.png"):
        picture.save(folder / name)
    return folder


def run(*arguments: object, **streams: object) -> subprocess.CompletedProcess[str]:
    line = [sys.executable, "-m", "sonoloop", *map(str, arguments)]
    return subprocess.run(line, text=True, check=False, **{"stderr": subprocess.PIPE, **streams})


def test_names_do_nothing_in_a_terminal_and_one_that_is_too_long_fails_alone(
    sonoloop, images, model, tmp_path
):
    (images / "gone.png").symlink_to("nowhere")
    (images / "loop").symlink_to(".")
    (images / ".hidden").mkdir()
    (images / ".hidden" / "d.png").write_bytes((images / "a.png").read_bytes())
    done = sonoloop("predict", images, "--out", tmp_path / "out", "--model", model)
    assert done.returncode == 1
    told = done.stdout + done.stderr
    assert not set(told) & set("\x1b\u202e\r")
    assert "\\x1b[31m\\u202ec\\x0a.png" in told
    assert "[red]b[bold].png" in told
    assert f"{'n' * 247}.png: its mask cannot be written" in done.stderr
    assert "gone.png: is a link to what is not there" in done.stderr
    assert f"note: {images / 'loop'} is a link to" in done.stderr
    assert "sonoloop: 2 of 5 images could not be predicted:" in done.stderr
    assert {row.image for row in read_predictions(tmp_path / "out")} == {
        "a.png",
        "[red]b[bold].png",
        "\x1b[31m\u202ec\n.png",
    }


def test_errors_name_files_without_obeying_them(sonoloop, tmp_path):
    done = sonoloop("predict", tmp_path / "\x1b[2J\u202e.png", "--out", tmp_path / "out")
    assert done.returncode == 2
    assert "\\x1b[2J\\u202e.png" in done.stderr


@pytest.mark.parametrize(("to", "as_json"), [("full", True), ("closed", False), ("reader gone", True)])
def test_a_result_that_cannot_be_printed_ends_in_words_and_keeps_what_was_done(
    sonoloop, images, tmp_path, *, to, as_json
):
    # the shipped model, which needs no torch: that would take longer to load than all else
    arguments = ["predict", images, "--out", tmp_path / "out", "--engine", "onnx", *["--json"] * as_json]
    assert sonoloop(*arguments).returncode == 1
    before = {row.image for row in read_predictions(tmp_path / "out")}
    if to == "full":
        with Path("/dev/full").open("w") as nowhere:
            done = run(*arguments, stdout=nowhere)
    elif to == "closed":
        done = run(*arguments, stdout=None, preexec_fn=lambda: os.close(1))
    else:
        reader, writer = os.pipe()
        os.close(reader)
        done = run(*arguments, stdout=writer)
        os.close(writer)
    assert done.returncode not in (0, 120, None)
    assert "Traceback" not in done.stderr
    assert "Exception ignored" not in done.stderr
    assert to == "reader gone" or "the result cannot be printed" in done.stderr
    assert {row.image for row in read_predictions(tmp_path / "out")} == before


def test_json_is_json_whatever_the_name(sonoloop, images, model, tmp_path):
    (images / "d\x7f.png").write_bytes((images / "a.png").read_bytes())
    done = sonoloop("predict", images, "--out", tmp_path / "out", "--model", model, "--json")
    told = [json.loads(line) for line in done.stdout.splitlines()]
    assert {one["image"] for one in told} == {path.name for path in images.iterdir()}
    assert done.stdout.replace("\n", "").isprintable()


def test_what_libraries_say_is_not_told_and_what_ours_say_is(sonoloop, monkeypatch):
    import logging
    import warnings

    from sonoloop.cli import app

    def command() -> None:
        """Warn."""
        logging.getLogger("some.library").warning("noise")
        warnings.simplefilter("always")
        warnings.warn("more noise", UserWarning, stacklevel=1)
        logging.getLogger("sonoloop.store").warning("ours")

    monkeypatch.setattr(app, "resolve_name", lambda place: command)
    monkeypatch.setattr(app, "COMMANDS", {"one": "", "two": ""})
    monkeypatch.setattr(sys, "warnoptions", [])
    assert sonoloop("one").stderr == "ours\n"


@pytest.mark.parametrize("error", [OSError(28, "No space left on device", "/x/y"), MemoryError()])
def test_an_error_of_the_system_is_said(sonoloop, monkeypatch, error):
    from sonoloop.cli import app

    def command() -> None:
        """Fail."""
        raise error

    monkeypatch.setattr(app, "resolve_name", lambda place: command)
    monkeypatch.setattr(app, "COMMANDS", {"one": "", "two": ""})
    done = sonoloop("one")
    assert done.returncode == 2
    words = (
        "there is not enough memory" if isinstance(error, MemoryError) else "/x/y cannot be used (No space"
    )
    assert done.stderr.startswith(f"sonoloop: {words}")
