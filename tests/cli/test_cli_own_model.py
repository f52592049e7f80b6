"""A network of a user's own at the command line: looked at, imported, used; and the tutorial as it stands."""

from __future__ import annotations

import hashlib
import json
import re
import shlex

import numpy as np
import pytest
from PIL import Image

from own_networks import TOML, segmenter
from sonoloop.formats.prediction_folder import read_predictions
from sonoloop.imaging.phantom import phantom
from sonoloop.store import CorrectionStore


@pytest.fixture
def theirs(tmp_path, monkeypatch):
    """A network beside its description, in a folder where nothing else is; a store."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    path = tmp_path / "theirs.onnx"
    path.write_bytes(segmenter().SerializeToString())
    path.with_suffix(".toml").write_text(TOML)
    CorrectionStore(tmp_path / "study.sqlite").close()
    return path


def test_a_network_is_looked_at_before_it_is_imported(sonoloop, theirs, tmp_path):
    said = sonoloop("models", "check", theirs)
    assert said.returncode == 0, said.stderr
    for told in (
        "takes:            x: float32 ? x 3 x 64 x 64",
        "gives:            map: float32 ? x 2 x 32 x 32",
        "becomes:          theirs: lesion and classes; predicts, and cannot be fine-tuned",
        "ms for an image, one view",
        "malignant image:  mask on ",
        "64 pixels, threshold 0.5, gate for normals 0.9",
    ):
        assert told in said.stdout
    told = json.loads(sonoloop("models", "check", theirs, "--json").stdout)
    assert told["card"]["spec"]["library"] == "onnx"
    assert told["problem"] is None
    assert not (tmp_path / "data").exists()


def test_a_description_is_proposed_and_written_once(sonoloop, theirs):
    beside = theirs.with_suffix(".toml")
    beside.unlink()
    proposed = sonoloop("models", "check", theirs)
    assert "It needs theirs.toml beside it" in proposed.stdout
    assert 'output = "map"' in proposed.stdout
    assert not beside.exists()
    assert "theirs.toml: look it through" in sonoloop("models", "check", theirs, "--write").stdout
    assert sonoloop("models", "check", theirs).returncode == 0
    again = sonoloop("models", "check", theirs, "--write")
    assert "theirs.toml is there already, and is left as it is" in again.stderr


def test_what_is_wrong_is_said_after_what_is_there(sonoloop, theirs):
    theirs.with_suffix(".toml").write_text(TOML.replace("channels = 3", "channels = 1").replace("mean", "#"))
    said = sonoloop("models", "check", theirs)
    assert said.returncode == 2
    assert "x: float32 ? x 3 x 64 x 64" in said.stdout
    assert "[input]" in said.stderr
    assert "Traceback" not in said.stderr


def test_it_is_used_as_any_other(sonoloop, theirs, tmp_path):
    def models(*words):
        said = sonoloop("models", *words, "--store", tmp_path / "study.sqlite")
        assert said.returncode == 0, said.stderr
        return said.stdout + said.stderr

    models("import", theirs)
    models("use", "theirs", "--why", "a try")
    listed = models("list")
    name = re.search(r"theirs-[0-9a-f]{8}", listed)[0]
    assert f"* {name}" in re.sub(" +", " ", listed)
    Image.fromarray(phantom("benign", seed=1, shape=(90, 120)).image).save(tmp_path / "case.png")
    for ask in (("--store", "study.sqlite"), ("--model", name, "--engine", "onnx")):
        out = tmp_path / f"out{len(ask)}"
        assert sonoloop("predict", tmp_path / "case.png", "--out", out, *ask).returncode == 0
        (row,) = read_predictions(out)
        assert row.model == name
    refused = sonoloop("predict", tmp_path / "case.png", "--out", "no", "--model", name, "--engine", "torch")
    assert "brought in as a graph, which torch neither runs nor trains" in refused.stderr
    shown = models("show", "theirs")
    assert "engine:" in shown
    digest = hashlib.sha256(theirs.read_bytes()).hexdigest()
    assert f"made elsewhere, from the file of SHA-256 {digest}" in shown
    assert "against torch" not in shown
    models("rollback", "--why", "a try")
    models("export", "theirs", "--out", tmp_path / "theirs.zip")
    models("delete", "theirs", "--why", "a try", "--yes")
    models("import", tmp_path / "theirs.zip")


@pytest.mark.slow
def test_a_fine_tuning_from_it_says_what_to_do(sonoloop, theirs, tmp_path):
    store = tmp_path / "study.sqlite"
    assert sonoloop("models", "import", theirs, "--store", store).returncode == 0
    said = sonoloop("finetune", "--store", store, "--from", "theirs")
    assert said.returncode != 0
    assert "neither runs nor trains" in said.stderr
    assert "--from default" in said.stderr


@pytest.mark.slow
def test_the_tutorial_runs_as_it_stands(sonoloop, root, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    page = (root / "docs" / "own-model.md").read_text(encoding="utf-8")
    names = {}
    for kind, block in re.findall(r"```(python|sh)\n(.*?)```", page, re.DOTALL):
        if kind == "python":
            exec(compile(block, "docs/own-model.md", "exec"), names)
            continue
        for line in block.splitlines():
            said = sonoloop(*shlex.split(line)[1:])
            assert said.returncode == 0, said.stderr
    assert names["revision"].correction.prediction.model.startswith("labnet-")
    drawn = [row for row in read_predictions(tmp_path / "predicted") if row.lesions]
    assert drawn
    assert np.asarray(names["prediction"].mask).any()
