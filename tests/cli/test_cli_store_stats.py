"""`sonoloop store stats`, as a user runs it."""

from __future__ import annotations

import importlib.util
import json
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from sonoloop.imaging.grey import frame_from_array
from sonoloop.imaging.phantom import phantom
from sonoloop.store import CorrectionStore
from sonoloop.values import Correction, Effort, Prediction


@pytest.fixture
def project(tmp_path):
    """A store with an image whose proposal was kept, and one whose was edited."""
    place = tmp_path / "corrections.sqlite"
    with CorrectionStore(place) as store:
        for seed in (1, 2):
            frame = frame_from_array(phantom("benign", seed=seed, shape=(96, 128)).image, name="a")
            mask = np.zeros(frame.shape, np.uint8)
            mask[10:20, 10:30] = 1
            prediction = Prediction(
                frame_id=frame.id,
                lesion=mask.astype(np.float32),
                mask=mask,
                classes=np.array([0.1, 0.7, 0.2], np.float32),
                expected_dice=0.8,
                threshold=0.5,
                model="unet-1",
            )
            edited = mask.copy()
            edited[:20] = 0 if seed == 1 else edited[:20]
            edited[30:40, 10:30] = seed == 1
            correction = Correction(
                frame_id=frame.id,
                pixels_hash=frame.pixels_hash,
                mask=edited,
                label="benign",
                annotator="reader-1",
                prediction=prediction,
                prediction_seen=True,
                effort=Effort(strokes=3),
            )
            store.accept(replace(correction, label="malignant" if seed == 1 else "benign"), parent=None)
    return place


def test_stats_are_told_in_text_in_json_and_in_a_picture(sonoloop, project, tmp_path):
    done = sonoloop("store", "stats", "--store", project, "--plot", tmp_path / "new" / "stats.png")
    assert (done.returncode, done.stderr) == (0, "")
    told = " ".join(done.stdout.split())
    assert "model unet-1 2 50% [0, 100] 50% [0, 100] 0.50 [0.00, 1.00] - 3.0 0.0" in told
    assert "annotator reader-1" in told and "shown first 2" in told
    with Image.open(tmp_path / "new" / "stats.png") as picture:
        assert picture.format == "PNG"
    found = json.loads(sonoloop("store", "stats", "--store", project, "--json").stdout)
    assert found["by_model"][0]["dice"]["value"] == 0.5


@pytest.mark.parametrize(("name", "said"), [("stats.pdf", "call it stats.png"), ("", "is no name of a PNG")])
def test_a_picture_that_cannot_be_drawn_is_said_first(sonoloop, project, tmp_path, name, said):
    done = sonoloop("store", "stats", "--store", project, "--plot", tmp_path / name)
    assert (done.returncode, done.stdout) == (2, "")
    assert said in " ".join(done.stderr.split())


def test_without_a_library_for_pictures_the_extra_is_named(sonoloop, project, tmp_path, monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(
        "sonoloop.errors.find_spec", lambda name: None if name == "matplotlib" else find(name)
    )
    done = sonoloop("store", "stats", "--store", project, "--plot", tmp_path / "stats.png")
    assert done.returncode == 2 and 'pip install "napari-sonoloop[train]"' in done.stderr
