"""The base install: predicting, importing, the store and the models, in a process that cannot find torch."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys

import pytest
from PIL import Image

from own_networks import TOML, segmenter
from sonoloop.imaging.phantom import sample_study
from sonoloop.models.card import CARD, GRAPH, shipped_folder

# as they are imported: all that the extras bring
EXTRAS = (
    "torch",
    "torchvision",
    "timm",
    "segmentation_models_pytorch",
    "safetensors",
    "lightning",
    "monai",
    "matplotlib",
    "jinja2",
    "pyarrow",
    "openpyxl",
    "openvino",
    "onnx",
    "onnxscript",
    "triton",
    "pyqtgraph",
)
WORK = f"""
import contextlib, io, json, sys
from importlib.machinery import PathFinder
from pathlib import Path

EXTRAS = {set(EXTRAS)!r}

class Without:
    @staticmethod
    def find_spec(name, path=None, target=None):
        return None if name.partition(".")[0] in EXTRAS else PathFinder.find_spec(name, path, target)

sys.meta_path[sys.meta_path.index(PathFinder)] = Without

from typer.testing import CliRunner
from sonoloop.cli.app import make_app
from sonoloop_training.__main__ import main as training

app, runner = make_app(), CliRunner()

def run(*line):
    done = runner.invoke(app, [*line])
    wrong = done.exception
    told = None if wrong is None or isinstance(wrong, SystemExit) else f"{{type(wrong).__name__}}: {{wrong}}"
    return {{"code": done.exit_code, "error": told, "output": done.output}}

told = {{}}
with contextlib.redirect_stdout(io.StringIO()) as said:
    told["import"] = {{"code": training(["import", "busi", "--format", "busi", "--store", "s.sqlite"])}}
told["import"]["output"] = said.getvalue()
told["predict"] = run("predict", "image.png", "--out", "out", "--overlay", "--json")
told["predict with a store"] = run("predict", "image.png", "--out", "out", "--store", "s.sqlite")
told["predict on a GPU"] = run("predict", "image.png", "--out", "out", "--device", "cuda")
for line in ("status", "verify", "snapshot", "snapshots"):
    told[f"store {{line}}"] = run("store", line, "--store", "s.sqlite")
told["models list"] = run("models", "list", "--store", "s.sqlite", "--json")
name = json.loads(told["models list"]["output"])["models"][0]["model"]
told["models show"] = run("models", "show", name, "--store", "s.sqlite")
told["models export"] = run("models", "export", name, "--out", "m.zip", "--store", "s.sqlite")
told["models import"] = run("models", "import", "m.zip")
told["models import a folder"] = run("models", "import", "other")
told["models check"] = run("models", "check", "theirs.onnx")
told["models import one of one's own"] = run("models", "import", "theirs.onnx")
told["safetensors"] = run("models", "import", "weights.safetensors")
told["models use"] = run("models", "use", "other-", "--why", "try")
told["models import without a graph"] = run("models", "import", "bare")
told["predict without a graph"] = run("predict", "image.png", "--out", "out", "--model", "bare")
for line in (
    ["finetune", "--store", "s.sqlite"],
    ["gate", "--every-model", "--store", "s.sqlite"],
    ["train", "unet", "--data", "busi"],
    ["evaluate", "--data", "busi"],
    ["data", "check", "busi"],
):
    told[line[0]] = run(*line)
told["loaded"] = sorted(EXTRAS & {{each.partition(".")[0] for each in sys.modules}})
print(json.dumps(told))
"""


@pytest.fixture(scope="module")
def told(tmp_path_factory) -> dict:
    """What each command said."""
    folder = tmp_path_factory.mktemp("without")
    for sample in sample_study():
        place = folder / "busi" / sample.label
        place.mkdir(parents=True)
        Image.fromarray(sample.image).save(place / f"{sample.label} (1).png")
        Image.fromarray(sample.mask * 255).save(place / f"{sample.label} (1)_mask.png")
    (folder / "image.png").write_bytes((folder / "busi" / "benign" / "benign (1).png").read_bytes())
    card = json.loads((shipped_folder() / CARD).read_text())
    for name, changed in (("other", {}), ("bare", {"graphs": {}})):
        shutil.copytree(shipped_folder(), folder / name)
        (folder / name / CARD).write_text(json.dumps(card | {"name": name} | changed))
    (folder / "bare" / GRAPH).unlink()
    (folder / "theirs.onnx").write_bytes(segmenter().SerializeToString())
    (folder / "theirs.toml").write_text(TOML)
    (folder / "weights.safetensors").write_bytes((2).to_bytes(8, "little") + b"{}")
    (folder / "weights.toml").write_text(TOML + '[network]\nlibrary = "timm"\narchitecture = "resnet18"')
    own = {f"XDG_{name}_HOME": str(folder / name) for name in ("DATA", "CONFIG", "CACHE")}
    done = subprocess.run(
        [sys.executable, "-c", WORK],
        cwd=folder,
        env={**os.environ, **own},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("import", '"new": 3'),
        ("predict", '"p_malignant": '),
        ("predict with a store", "1 of 1 images predicted with default-"),
        ("store status", "corrections"),
        ("store verify", ""),
        ("store snapshot", "snapshot-1"),
        ("store snapshots", "snapshot-1"),
        ("models list", "default-"),
        ("models show", "(in use)"),
        ("models export", "m.zip"),
        ("models import", "is here"),
        ("models import a folder", "other-"),
        ("models check", "ms for an image"),
        ("models import one of one's own", "theirs-"),
        ("models use", "is in use, in place of default-"),
    ],
)
def test_it_works_without_torch(told, command, words):
    done = told[command]
    assert (done["code"], done.get("error")) == (0, None), done
    assert words in done["output"]


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("finetune", "this needs torch and 9 more packages, which are not installed"),
        ("gate", "this needs torch and 9 more packages, which are not installed"),
        ("train", "this needs torch and 9 more packages, which are not installed"),
        ("evaluate", "this needs torch and 9 more packages, which are not installed"),
        ("safetensors", "this needs torch and 6 more packages, which are not installed"),
        ("data", "this needs matplotlib and jinja2, which are not installed"),
    ],
)
def test_what_needs_more_says_what_to_install(told, command, words):
    assert told[command]["error"] == f'NotInstalledError: {words}: pip install "napari-sonoloop[train]"'


@pytest.mark.parametrize("command", ["models import without a graph", "predict without a graph"])
def test_a_model_without_a_graph_says_what_to_do(told, command):
    assert "has no graph" in told[command]["error"]
    assert 'pip install "napari-sonoloop[torch]"' in told[command]["error"]


def test_a_gpu_needs_torch_which_is_said(told):
    assert 'pip install "napari-sonoloop[torch]"' in told["predict on a GPU"]["error"]


def test_nothing_of_the_extras_was_loaded(told):
    assert told["loaded"] == []
