"""`sonoloop predict` as a process."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from sonoloop.formats.mask_png import read_mask
from sonoloop.formats.prediction_folder import read_predictions

IMAGES = {
    "benign/benign (2).png": (128, 96, "benign/benign (2)"),
    "benign/benign (10).png": (128, 96, "benign/benign (10)"),
    "normal/normal (1).png": (100, 80, "normal/normal (1).png"),
    "normal/normal (1).tif": (100, 80, "normal/normal (1).tif"),
}


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    return tmp_path_factory.mktemp("predicted")


@pytest.fixture(scope="module")
def first(sonoloop, study, out, model):
    """One run over a folder with two bad files, overlays drawn, batches smaller than the folder."""
    return sonoloop("predict", study, "--out", out, "--overlay", "--model", model, "--batch", 2)


def test_a_bad_file_does_not_stop_the_others(first, out):
    assert first.returncode == 1
    assert {row.image for row in read_predictions(out)} == set(IMAGES)
    last = first.stderr.splitlines()[-3:]
    assert last[0] == "sonoloop: 2 of 6 images could not be predicted:"
    assert "benign/benign (3).png: breaks off or is damaged" in first.stderr
    assert "normal/normal (2).png" in last[1] + last[2]
    assert "Traceback" not in first.stderr


def test_progress_is_plain_lines_where_there_is_no_terminal(first):
    assert [line.split("]")[0] for line in first.stderr.splitlines()[:6]] == [f"[{n}/6" for n in range(1, 7)]
    assert "\x1b" not in first.stderr + first.stdout


def test_the_table_has_the_promised_columns_and_values(first, out):
    with (out / "predictions.csv").open(newline="", encoding="utf-8") as file:
        header = next(csv.reader(file))
    assert ", ".join(header) == (
        "image, width, height, p_normal, p_benign, p_malignant, predicted_class, "
        "lesions, lesion_area_px, expected_dice, model, seconds"
    )
    for row in read_predictions(out):
        assert (row.width, row.height) == IMAGES[row.image][:2]
        probabilities = {"normal": row.p_normal, "benign": row.p_benign, "malignant": row.p_malignant}
        assert sum(probabilities.values()) == pytest.approx(1, abs=2e-4)
        assert row.predicted_class == max(probabilities, key=probabilities.__getitem__)
        assert 0 <= row.expected_dice <= 1
        assert row.model.startswith("tiny-")
        assert row.seconds > 0


def test_masks_have_the_images_size_and_number_the_lesions(first, out):
    for row in read_predictions(out):
        with Image.open(out / "masks" / f"{IMAGES[row.image][2]}_mask.png") as mask:
            assert mask.mode == "P"
            assert mask.size == (row.width, row.height)
            values = np.asarray(mask)
            shown = np.asarray(mask.convert("RGB"))
        assert values.max(initial=0) == row.lesions
        assert np.count_nonzero(values) == row.lesion_area_px
        assert (shown[values == 0] == 0).all()
        assert (shown[values > 0].max(axis=-1) == 255).all()


def test_overlays_hold_the_image_and_a_strip_below(first, out):
    for width, height, stem in IMAGES.values():
        with Image.open(out / "masks" / f"{stem}_overlay.png") as overlay:
            assert overlay.mode == "RGB"
            assert overlay.width >= width
            assert overlay.height > height


def test_nothing_else_is_written(first, out, study):
    written = {path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file()}
    stems = [stem for *_, stem in IMAGES.values()]
    pictures = {f"masks/{stem}_{kind}.png" for stem in stems for kind in ("mask", "overlay")}
    assert written == pictures | {"predictions.csv", "predictions.manifest.jsonl"}
    assert len(list(study.rglob("*"))) == 2 + 9


def test_the_summary_is_the_only_thing_on_standard_output(first):
    lines = first.stdout.splitlines()
    assert lines[0].split() == [
        "image",
        "class",
        "normal",
        "benign",
        "malignant",
        "lesions",
        *lines[0].split()[6:],
    ]
    assert lines[-1].startswith("4 of 6 images predicted with tiny-")


def test_json_gives_the_tables_values_and_the_errors(sonoloop, study, model, first, tmp_path):
    done = sonoloop("predict", study, "--out", tmp_path, "--json", "--model", model, "--device", "cpu")
    assert done.returncode == 1
    objects = [json.loads(line) for line in done.stdout.splitlines()]
    rows = {o["image"]: o for o in objects if "error" not in o}
    for row in read_predictions(tmp_path):
        told = rows.pop(row.image)
        assert told.pop("files") == [f"masks/{IMAGES[row.image][2]}_mask.png"]
        assert told == row.to_dict()
    assert not rows
    errors = {o["image"]: (o["error"], bool(o["message"])) for o in objects if "error" in o}
    assert errors == {
        "benign/benign (3).png": ("ImageTruncatedError", True),
        "normal/normal (2).png": ("ConstantImageError", True),
    }


def test_a_folder_inside_the_input_does_not_feed_on_itself(sonoloop, model, study, tmp_path):
    (tmp_path / "a.png").write_bytes((study / "benign" / "benign (2).png").read_bytes())
    arguments = ("predict", tmp_path, "--out", tmp_path / "out", "--overlay", "--model", model)
    for _ in range(2):
        done = sonoloop(*arguments, "--threshold", 0.2, "--views", 4)
        assert done.returncode == 0, done.stderr
        assert [row.image for row in read_predictions(tmp_path / "out")] == ["a.png"]
    assert not list((tmp_path / "out").glob("*partial*"))


def test_the_shipped_model_reads_the_samples(sonoloop, tmp_path):
    assert sonoloop("samples", "--out", tmp_path / "in").returncode == 0
    done = sonoloop("predict", tmp_path / "in", "--out", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    rows = {row.image: row for row in read_predictions(tmp_path / "out")}
    for label, lesions in (("benign", 1), ("malignant", 1), ("normal", 0)):
        row = rows[f"phantom-{label}.png"]
        assert (row.predicted_class, row.lesions) == (label, lesions)
        predicted = read_mask(tmp_path / "out" / "masks" / f"phantom-{label}_mask.png") > 0
        truth = read_mask(tmp_path / "in" / f"phantom-{label}_mask.png") > 0
        if lesions:
            assert 2 * (predicted & truth).sum() / (predicted.sum() + truth.sum()) >= 0.8
        else:
            assert not predicted.any()


@pytest.mark.skipif(sys.platform == "win32", reason="a Ctrl-C cannot be sent to one process there")
def test_an_interrupted_run_keeps_what_is_done(study, tmp_path, interruptible):
    many = tmp_path / "many"
    many.mkdir()
    for number in range(600):
        os.link(study / "benign" / "benign (2).png", many / f"{number}.png")
    arguments = ["predict", str(many), "--out", str(tmp_path / "out"), "--batch", "1", "--engine", "onnx"]
    process = subprocess.Popen(
        [sys.executable, "-m", "sonoloop", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    for _ in range(3):
        process.stderr.readline()
    process.send_signal(signal.SIGINT)
    _, told = process.communicate(timeout=60)
    assert process.returncode == 130, told
    rows = read_predictions(tmp_path / "out")
    masks = {path.name for path in (tmp_path / "out" / "masks").iterdir()}
    assert masks == {row.image.replace(".png", "_mask.png") for row in rows}
    assert 3 <= len(rows) < 600
    assert f"interrupted; {len(rows)} of 600 images are done" in told
    assert "Traceback" not in told


def test_a_second_run_leaves_nothing_of_the_first(sonoloop, study, model, tmp_path):
    out = tmp_path / "out"
    for images, *options in (("benign", "--overlay"), ("normal",)):
        assert sonoloop("predict", study / images, "--out", out, "--model", model, *options).returncode == 1
    written = {path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file()}
    masks = {f"masks/normal (1){suffix}_mask.png" for suffix in (".png", ".tif")}
    assert written == masks | {"predictions.csv", "predictions.manifest.jsonl"}


def test_samples_replace_no_other_file(sonoloop, tmp_path):
    for _ in range(2):
        assert sonoloop("samples", "--out", tmp_path).returncode == 0
    (tmp_path / "phantom-benign.png").unlink()
    (tmp_path / "phantom-normal_mask.png").write_text("mine")
    done = sonoloop("samples", "--out", tmp_path)
    assert done.returncode == 2
    assert "phantom-normal_mask.png is another file than the sample and would be lost; move it" in done.stderr
    assert (tmp_path / "phantom-normal_mask.png").read_text() == "mine"
    assert not (tmp_path / "phantom-benign.png").exists()


@pytest.mark.parametrize("blank", [("--out", ""), ("--out=",)])
def test_an_empty_argument_is_not_this_folder(sonoloop, tmp_path, monkeypatch, blank):
    monkeypatch.chdir(tmp_path)
    done = sonoloop("samples", *blank)
    assert done.returncode == 2
    assert "an argument is empty" in done.stderr
    assert not list(tmp_path.iterdir())
    assert sonoloop("predict", "", "--out", "out").returncode == 2
    assert not list(tmp_path.iterdir())
