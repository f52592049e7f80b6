"""What the command line refuses: a clear message, exit code 2, no traceback, and nothing written."""

from __future__ import annotations

import subprocess
import sys

import pytest

from sonoloop import __version__


def assert_refused(done: subprocess.CompletedProcess[str], *words: str) -> None:
    assert done.returncode == 2, done.stderr
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    told = " ".join(done.stderr.split())
    for word in words:
        assert word in told


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("--device", "tpu"),
        ("--batch", "0"),
        ("--batch", "many"),
        ("--views", "3"),
        ("--threshold", "0"),
        ("--threshold", "1"),
        ("--threshold", "nan"),
    ],
)
def test_option_values_are_checked(sonoloop, study, tmp_path, option, value):
    done = sonoloop("predict", study, "--out", tmp_path / "out", option, value)
    assert_refused(done, option)
    assert not (tmp_path / "out").exists()


def test_a_missing_path_is_named(sonoloop, tmp_path):
    assert_refused(sonoloop("predict", tmp_path / "nowhere", "--out", tmp_path / "out"), "nowhere")


def test_a_folder_without_images_is_named(sonoloop, study, tmp_path):
    mask = study / "benign" / "benign (2)_mask.png"
    (tmp_path / "notes.txt").write_text("nothing to see")
    assert_refused(sonoloop("predict", tmp_path, mask, "--out", tmp_path / "out"), "there is no image in")
    assert not (tmp_path / "out").exists()


def test_an_output_that_is_a_file_is_refused(sonoloop, study, tmp_path):
    (tmp_path / "out").write_text("mine")
    assert_refused(sonoloop("predict", study, "--out", tmp_path / "out"), "cannot write into", "--out")
    assert (tmp_path / "out").read_text() == "mine"


def test_masks_of_somebody_else_are_not_overwritten(sonoloop, study, tmp_path):
    theirs = tmp_path / "masks" / "benign" / "benign (2)_mask.png"
    theirs.parent.mkdir(parents=True)
    theirs.write_bytes(b"hours of work")
    assert_refused(sonoloop("predict", study, "--out", tmp_path), "did not write")
    assert theirs.read_bytes() == b"hours of work"


def test_a_table_of_somebody_else_is_not_overwritten(sonoloop, study, tmp_path):
    (tmp_path / "predictions.csv").write_text("theirs")
    # before a model is looked for
    done = sonoloop("predict", study, "--out", tmp_path, "--model", "no-such")
    assert_refused(done, "predictions.csv was not written by `sonoloop predict`", "--out")
    assert [path.name for path in tmp_path.iterdir()] == ["predictions.csv"]
    assert (tmp_path / "predictions.csv").read_text() == "theirs"


def test_an_unknown_model_is_named_and_nothing_is_left(sonoloop, study, tmp_path):
    assert_refused(sonoloop("predict", study, "--out", tmp_path, "--model", "no-such"), "'no-such'")
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(sys.platform in ("win32", "darwin"), reason="always has a display")
def test_open_without_a_display_says_what_to_do(sonoloop, monkeypatch):
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    assert_refused(sonoloop("open"), "no display", "sonoloop predict")


@pytest.mark.parametrize("command", ["open", "annotate"])
def test_open_and_annotate_name_a_missing_path(sonoloop, tmp_path, command):
    assert_refused(sonoloop(command, tmp_path / "nowhere.png"), "nowhere.png")


def test_version(sonoloop):
    assert sonoloop("--version").stdout == f"sonoloop {__version__}\n"


def test_an_unknown_command_is_refused(sonoloop):
    assert_refused(sonoloop("diagnose"), "diagnose")
