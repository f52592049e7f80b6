"""`sonoloop data`, as a user runs it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from sonoloop.imaging.phantom import phantom
from sonoloop.values import CLASSES

SHAPE = (240, 300)


@pytest.fixture
def dataset(tmp_path):
    """Two images of each class in BUSI's layout."""
    root = tmp_path / "study"
    for label in CLASSES:
        (root / label).mkdir(parents=True)
        for number in (1, 2):
            made = phantom(label, seed=number, shape=SHAPE)
            Image.fromarray(made.image).save(root / label / f"{label} ({number}).png")
            Image.fromarray(made.mask * 255).save(root / label / f"{label} ({number})_mask.png")
    return root


def test_a_clean_dataset_ends_with_0(sonoloop, dataset, tmp_path):
    done = sonoloop("data", "check", dataset, "--out", tmp_path / "out")
    assert (done.returncode, done.stderr) == (0, "")
    assert "nothing must be mended" in done.stdout
    assert str(tmp_path / "out" / "report.html") in done.stdout
    assert (tmp_path / "out" / "report.html").is_file()


def test_a_fault_ends_with_1_and_is_named(sonoloop, dataset, tmp_path):
    (dataset / "benign" / "benign (2)_mask.png").unlink()
    (dataset / "normal" / "normal (1).png").write_bytes(b"no picture")
    done = sonoloop("data", "check", dataset, "--out", tmp_path / "out")
    assert done.returncode == 1
    told = " ".join(done.stdout.split())
    assert "images with a lesion have no mask: benign (2)" in told
    assert "normal (1).png is not a PNG, JPEG, TIFF or BMP image" in told
    assert "2 findings must be mended" in told


def test_json_is_one_object_and_nothing_else(sonoloop, dataset, tmp_path):
    Image.fromarray(np.zeros(SHAPE, np.uint8)).save(dataset / "benign" / "benign (1)_mask.png")
    done = sonoloop("data", "check", dataset, "--out", tmp_path / "out", "--json")
    assert (done.returncode, done.stderr) == (1, "")
    result = json.loads(done.stdout)
    assert result["mend"] == 1
    assert result["findings"][0]["names"] == ["benign (1)"]
    assert result["datasets"][0]["classes"]["all"]["images"] == 6


def test_what_is_no_dataset_ends_with_2(sonoloop, tmp_path):
    done = sonoloop("data", "check", tmp_path / "gone", "--out", tmp_path / "out")
    assert done.returncode == 2
    assert done.stdout == ""
    assert "there is no folder" in done.stderr and "Traceback" not in done.stderr
    assert not (tmp_path / "out").exists()


def test_names_with_markup_are_printed_as_they_are(sonoloop, dataset, tmp_path):
    image = phantom("benign", seed=7, shape=SHAPE).image
    Image.fromarray(image).save(dataset / "benign" / "[red]7[bold].png")
    done = sonoloop("data", "check", dataset, "--out", tmp_path / "out")
    assert done.returncode == 1
    assert "[red]7[bold]" in done.stdout


def test_a_pack_is_made_told_of_and_checked(sonoloop, dataset, tmp_path):
    pack = tmp_path / "small.pack"
    done = sonoloop("data", "pack", dataset, "--out", pack, "--size", 128)
    assert done.returncode == 0
    told = f"6 images (6 of busi; 6 of them resized) are in {pack}: "
    assert done.stdout.startswith(told) and done.stdout.endswith("KB an image\n")
    done = sonoloop("data", "check", pack, "--out", tmp_path / "out")
    assert (done.returncode, done.stderr) == (0, "")
    assert "nothing must be mended" in done.stdout
    done = sonoloop("data", "pack", "--out", pack)
    assert done.returncode == 2
    assert "name the folders to pack: sonoloop data pack DIR... --out PACK" in done.stderr
    pack.write_bytes(pack.read_bytes()[:9000])
    done = sonoloop("data", "check", pack, "--out", tmp_path / "again")
    # a dataset that cannot be listed is to be mended
    assert done.returncode == 1
    assert "cannot be used as a pack" in " ".join(done.stdout.split())
    assert "Traceback" not in done.stdout + done.stderr


def test_unpack_names_what_is_missing(sonoloop, tmp_path):
    done = sonoloop("data", "unpack", tmp_path / "busi.zip", "--out", tmp_path / "out")
    assert done.returncode == 2
    assert "busi.zip" in done.stderr and "Traceback" not in done.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.skipif(sys.platform == "win32", reason="sends a signal")
def test_ctrl_c_ends_cleanly_and_writes_nothing(dataset, tmp_path, interruptible):
    for number in range(3, 60):
        for suffix in ("", "_mask"):
            source = dataset / "benign" / f"benign (1){suffix}.png"
            (dataset / "benign" / f"benign ({number}){suffix}.png").write_bytes(source.read_bytes())
    command = [sys.executable, "-m", "sonoloop_training", "check", dataset, "--out", tmp_path / "out"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        first = json.loads(process.stdout.readline())
        assert first["event"] == "progress"
        os.kill(process.pid, signal.SIGINT)
        rest, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert json.loads(rest.splitlines()[-1])["event"] == "failed"
    assert "Traceback" not in errors
    assert not (tmp_path / "out").exists()
