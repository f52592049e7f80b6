"""`sonoloop import`: what is left out is named and gives exit code 1, what looks odd is told first."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
from PIL import Image

from sonoloop.imaging.phantom import phantom
from sonoloop.values import CLASSES


@pytest.fixture
def busi(tmp_path):
    folder = tmp_path / "BUSI"
    for seed, label in enumerate(CLASSES):
        (folder / label).mkdir(parents=True)
        for number in (1, 2):
            made = phantom(label, seed=10 * seed + number, shape=(96, 128))
            Image.fromarray(made.image).save(folder / label / f"{label} ({number}).png")
            Image.fromarray(made.mask * 255).save(folder / label / f"{label} ({number})_mask.png")
    return folder


@pytest.fixture
def run(sonoloop, busi, tmp_path):
    return lambda *more: sonoloop(
        "import", str(busi), "--format", "busi", "--store", str(tmp_path / "s.sqlite"), *more
    )


def test_an_image_that_could_not_be_used_is_named_and_gives_exit_code_1(run, busi):
    (busi / "benign" / "benign (2).png").write_bytes(b"\x89PNG")
    done = run()
    assert done.returncode == 1
    assert "sonoloop: 1 of 6 images could not be used:\n  benign (2).png breaks off" in done.stderr
    assert "new corrections" in done.stdout and "Traceback" not in done.stderr
    lines = run("--json")
    assert lines.returncode == 1
    assert json.loads(lines.stdout.splitlines()[-1])["known"] == 5


def test_odd_masks_are_named_and_nothing_is_stored_until_they_are_accepted(run, busi, tmp_path):
    path = busi / "malignant" / "malignant (1)_mask.png"
    Image.fromarray(255 - np.asarray(Image.open(path))).save(path)
    done = run()
    assert done.returncode == 2
    assert "malignant (1).png: its mask covers 100% of the frame's border; is it inverted?" in done.stderr
    assert "import again with --accept-odd to store them as they are" in done.stderr
    assert not (tmp_path / "s.sqlite").exists()
    done = run("--accept-odd")
    assert done.returncode == 0
    assert "of masks that look odd, stored as they are 1" in " ".join(done.stdout.split())


def test_a_store_that_is_none_is_said_before_masks_are_looked_at(run, busi, tmp_path):
    (tmp_path / "s.sqlite").touch()
    shutil.rmtree(busi / "benign")
    done = run()
    assert done.returncode == 2 and "an empty file is no store" in done.stderr
