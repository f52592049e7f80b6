"""`sonoloop store assign` and `agreement`, as a user runs them."""

from __future__ import annotations

import json

import numpy as np
import pytest

from sonoloop.imaging.grey import frame_from_array
from sonoloop.imaging.phantom import phantom
from sonoloop.store import CorrectionStore
from sonoloop.store.groups import place_frame
from sonoloop.values import Correction


@pytest.fixture
def frames():
    return [
        frame_from_array(phantom("benign", seed=seed, shape=(96, 128)).image, name=str(seed))
        for seed in (1, 2, 3)
    ]


@pytest.fixture
def project(tmp_path, frames):
    place = tmp_path / "corrections.sqlite"
    with CorrectionStore(place) as store:
        for frame in frames:
            place_frame(store, frame)
    return place


def test_readers_are_assigned_and_their_agreement_is_told(sonoloop, project, frames):
    assert "no image is read twice" in sonoloop("store", "agreement", "--store", project).stdout
    done = sonoloop("store", "assign", "r1", "r2", "--share", "0.67", "--store", project)
    assert (done.returncode, done.stderr) == (0, "")
    told = " ".join(done.stdout.split())
    assert told == "2 of 3 images are assigned now reader images r1 2 r2 2"
    again = json.loads(
        sonoloop("store", "assign", "r1", "r2", "--share", "1", "--store", project, "--json").stdout
    )
    assert (again["round"], again["before"], len(again["frames"]["r2"])) == (2, 2, 1)
    with CorrectionStore(project) as store:
        for frame in frames[:2]:
            for reader, width in (("r1", 20), ("r2", 10)):
                mask = np.zeros(frame.shape, np.uint8)
                mask[10:20, 10 : 10 + width] = 1
                label = "malignant" if frame is frames[0] and reader == "r1" else "benign"
                correction = Correction(
                    frame_id=frame.id, pixels_hash=frame.pixels_hash, mask=mask, label=label, annotator=reader
                )
                store.accept(correction, parent=None)
    done = sonoloop("store", "agreement", "--store", project)
    told = " ".join(done.stdout.split())
    assert "r1 and r2 2 0.67 [0.67, 0.67] 0.00" in told and "50% [0, 100]" in told
    assert "2 of 3 assigned images were read by two or more; on 1 the class differs" in told
    found = json.loads(sonoloop("store", "agreement", "--store", project, "--json").stdout)
    assert found["pairs"][0]["readers"] == ["r1", "r2"]
    assert {one["frame_id"] for one in found["readings"]} == {frame.id for frame in frames[:2]}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("r1",), "read by 2 of the readers or more"),
        (("r1", "r2", "--share", "1.5"), "at most 1, not 1.5"),
        (("r1", "r2", "--each", "3"), "not by 3"),
    ],
)
def test_what_cannot_be_assigned_is_said(sonoloop, project, arguments, said):
    done = sonoloop("store", "assign", *arguments, "--store", project)
    assert (done.returncode, done.stdout) == (2, "")
    assert said in " ".join(done.stderr.split())
