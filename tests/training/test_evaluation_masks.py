"""One mask against the truth, checked against the project's independent scorer."""

from __future__ import annotations

import json
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from sonoloop.imaging.grey import frame_from_array
from sonoloop.values import Prediction
from sonoloop_training.evaluation.scores import Case, dice, iou, match_lesions, score_case, surface_distances
from sonoloop_training.evaluation.summary import summarise

SCORER = Path(__file__).parents[3] / "shared" / "bench" / "score_masks.py"


def blob(rng: np.random.Generator, shape: tuple[int, int]) -> NDArray[np.bool_]:
    """An uneven lesion somewhere, that may touch the border, with a second one now and then."""
    field = ndimage.gaussian_filter(rng.normal(size=shape), 6)
    return field > np.quantile(field, rng.uniform(0.85, 0.98))


def pairs() -> list[tuple[NDArray[np.bool_], NDArray[np.bool_]]]:
    """Truth and prediction: near, far, missed, and normals with and without a false alarm."""
    rng = np.random.default_rng(3)
    made = []
    for number in range(14):
        shape = (int(rng.integers(60, 120)), int(rng.integers(60, 120)))
        truth = blob(rng, shape)
        near = np.roll(truth, int(rng.integers(0, 9)), axis=0)
        made.append((truth, near if number % 2 else blob(rng, shape)))
    empty = np.zeros((70, 90), bool)
    far = empty.copy()
    far[:5, :5] = True
    corner = empty.copy()
    corner[-9:, -7:] = True
    lone = empty.copy()
    lone[30, 40] = True
    return [
        *made,
        (corner, far),
        (corner, empty),
        (lone, corner),
        (empty, empty),
        (empty, far),
        (empty, empty),
    ]


def case(truth: NDArray[np.bool_], name: str, spacing: tuple[float, float] | None = None) -> Case:
    pixels = truth.astype(np.uint8) * 90 + 20
    pixels[0, 0] = 0
    return Case(
        frame=frame_from_array(pixels, name=name, spacing=spacing),
        mask=truth,
        label="benign" if truth.any() else "normal",
        dataset="busi",
        group=name,
        name=name,
    )


def prediction(mask: NDArray[np.bool_]) -> Prediction:
    return Prediction(
        frame_id="a",
        lesion=mask.astype(np.float32) * np.float32(0.8),
        mask=mask.astype(np.uint8),
        classes=np.array([0.2, 0.5, 0.3], np.float32),
        expected_dice=0.5,
        threshold=0.5,
        model="m",
    )


def score_anew(made: list[tuple[NDArray[np.bool_], NDArray[np.bool_]]]) -> dict[str, float]:
    """The definitions written down once more, from distance maps."""
    rows, alarms = [], []
    for want, got in made:
        if not want.any():
            alarms.append(got.any())
            continue
        shared = (got & want).sum()
        here, there = (mask & ~ndimage.binary_erosion(mask) for mask in (got, want))
        away = np.array([np.hypot(*want.shape)])
        if got.any():
            out = ndimage.distance_transform_edt(~there)[here]
            back = ndimage.distance_transform_edt(~here)[there]
        else:
            out = back = away
        hd95 = max(np.percentile(out, 95), np.percentile(back, 95))
        overlap = (2 * shared / (got.sum() + want.sum()), shared / (got | want).sum())
        rows.append((*overlap, hd95, np.concatenate([out, back]).mean()))
    mean = np.mean(rows, axis=0)
    missed = float(np.mean([row[0] == 0 for row in rows]))
    keys = ("dice", "iou", "hd95_px", "assd_px", "missed", "normal_false_alarms")
    return dict(zip(keys, (*map(float, mean), missed, float(np.mean(alarms))), strict=True))


def ours() -> dict[str, float]:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        scores = [score_case(prediction(got), case(want, str(n))) for n, (want, got) in enumerate(pairs())]
    summary = summarise(scores)
    names = {"lesion_dice": "dice", "false_alarms": "normal_false_alarms"}
    keys = ("lesion_dice", "iou", "hd95_px", "assd_px", "missed", "false_alarms")
    return {names.get(key, key): summary[key]["value"] for key in keys}


def test_the_figures_are_those_of_the_definitions():
    assert ours() == pytest.approx(score_anew(pairs()), abs=1e-3)


@pytest.mark.skipif(not SCORER.is_file(), reason="the independent scorer is not at ../shared/bench")
def test_the_figures_are_those_of_the_independent_scorer(tmp_path):
    for folder in ("truth", "predicted"):
        (tmp_path / folder).mkdir()
    for number, (want, got) in enumerate(pairs()):
        Image.fromarray(want.astype(np.uint8) * 255).save(tmp_path / "truth" / f"{number}_mask.png")
        Image.fromarray(got.astype(np.uint8)).save(tmp_path / "predicted" / f"{number}_mask.png")
    command = [sys.executable, str(SCORER), str(tmp_path / "truth"), str(tmp_path / "predicted")]
    told = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    assert told["lesion_images"] == 17
    found = ours()
    assert found == pytest.approx({key: told[key] for key in found}, abs=1e-3)


def test_overlap_of_empty_masks():
    empty, full = np.zeros((4, 4), bool), np.ones((4, 4), bool)
    assert dice(empty, empty) == iou(empty, empty) == 1
    assert dice(empty, full) == dice(full, empty) == iou(empty, full) == 0
    half = full.copy()
    half[:2] = False
    assert dice(half, full) == pytest.approx(2 / 3)
    assert iou(half, full) == 0.5


def test_a_missed_lesion_is_as_far_as_the_diagonal_and_a_normal_has_no_distance():
    truth = np.zeros((30, 40), bool)
    empty = truth.copy()
    truth[5:9, 5:9] = True
    missed = surface_distances(empty, truth)
    assert missed is not None
    assert (missed.hd95, missed.assd, missed.nsd) == (50.0, 50.0, 0.0)
    assert surface_distances(truth, empty) is None
    assert surface_distances(empty, empty) is None


def test_distances_have_the_unit_of_the_spacing():
    truth = np.zeros((60, 60), bool)
    truth[20:30, 20:40] = True
    moved = np.roll(truth, 4, axis=0)
    score = score_case(prediction(moved), case(truth, "a", spacing=(0.2, 0.1)))
    assert score.pixels is not None
    assert score.millimetres is not None
    assert score.pixels.hd95 == pytest.approx(4)
    assert score.millimetres.hd95 == pytest.approx(0.8, abs=1e-6)
    summary = summarise([score])
    assert summary["hd95_mm"]["value"] == pytest.approx(0.8)
    # the sides lie within half a millimetre, most of top and bottom do not
    assert 0.3 < summary["nsd_mm"]["value"] < 0.7


def test_the_surface_dice_counts_points_within_the_tolerance():
    truth = np.zeros((60, 60), bool)
    truth[20:40, 20:40] = True
    near = surface_distances(np.roll(truth, 3, axis=1), truth, tolerance=3)
    far = surface_distances(np.roll(truth, 3, axis=1), truth, tolerance=0)
    assert near is not None
    assert far is not None
    assert near.nsd == 1
    assert 0 < far.nsd < 1


def test_lesions_are_matched_one_to_one():
    truth = np.zeros((100, 100), bool)
    truth[10:30, 10:30] = True
    truth[60:80, 60:80] = True
    predicted = np.zeros_like(truth)
    predicted[12:32, 12:32] = True  # finds the first
    predicted[60:64, 60:64] = True  # IoU 0.04 of the second: a touch is no find
    predicted[90:95, 5:10] = True  # nothing there
    counts = match_lesions(predicted, truth)
    assert (counts.lesions, counts.found, counts.false_positives) == (2, 1, 2)


def test_one_region_over_two_lesions_finds_one_of_them():
    truth = np.zeros((100, 100), bool)
    truth[10:30, 10:30] = truth[10:30, 34:54] = True
    predicted = np.zeros_like(truth)
    predicted[10:30, 10:54] = True
    counts = match_lesions(predicted, truth)
    assert (counts.lesions, counts.found, counts.false_positives) == (2, 1, 0)


def test_specks_are_no_lesions_unless_there_is_nothing_else():
    truth = np.zeros((200, 200), bool)
    truth[50:80, 50:80] = True
    truth[0, 0] = True
    assert match_lesions(truth, truth).lesions == 1
    lone = np.zeros_like(truth)
    lone[3, 3] = True
    assert match_lesions(np.zeros_like(truth), lone).lesions == 1
