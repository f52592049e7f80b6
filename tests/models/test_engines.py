"""What runs a network: torch by default, and room for others."""

from __future__ import annotations

import importlib
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from scipy import ndimage

from sonoloop.errors import EngineError, ModelError
from sonoloop.imaging.grey import frame_from_array
from sonoloop.imaging.phantom import phantom
from sonoloop.models.card import GRAPH, read_graph, shipped_card, shipped_folder
from sonoloop.models.engines import ENGINES, find_engines, import_library, load_engine
from sonoloop.models.engines import onnx as onnx_engine
from sonoloop.models.engines import openvino as openvino_engine
from sonoloop.models.predictor import Predictor
from sonoloop.models.preprocess import Letterbox, resize
from sonoloop.models.tta import agreement, average_classes, list_views, make_views, undo_views
from sonoloop.values import CLASSES

BRIGHT = """
import numpy as np
from sonoloop.models.card import read_card
from sonoloop.models.engines import Engine

class Bright(Engine):
    @classmethod
    def load(cls, folder, device="auto"):
        return cls(read_card(folder))

    def run(self, images):
        return (images + 1) / 2, np.tile(np.float32([0, 3, 0]), (len(images), 1))
"""


LIVELY = """
from bright_engine import Bright

class Lively(Bright):
    device = "abacus"
"""


@pytest.fixture
def shipped_copy(tmp_path):
    return Path(shutil.copytree(shipped_folder(), tmp_path / "copy"))


def test_torch_is_found_by_its_name(tmp_path, bundle):
    frame = frame_from_array(phantom("benign", seed=1, shape=(90, 120)).image, name="a.png")
    engine = load_engine("torch", tmp_path / "tiny", "cpu")
    one, other = Predictor(engine).predict(frame), Predictor(bundle, device="cpu").predict(frame)
    assert np.array_equal(one.lesion, other.lesion)
    assert (engine.device, one.model) == ("cpu", bundle.model)


def test_onnx_runtime_answers_as_torch_does():
    frames = [frame_from_array(phantom(kind, seed=1, shape=(90, 120)).image, name=kind) for kind in CLASSES]
    onnx = Predictor(load_engine("onnx", shipped_folder()))
    torch_ = Predictor(load_engine("torch", shipped_folder(), "cpu"))
    torch_.engine._dtype = None
    for mine, theirs in zip(onnx.predict_batch(frames), torch_.predict_batch(frames), strict=True):
        np.testing.assert_allclose(mine.lesion, theirs.lesion, atol=1e-4)
        np.testing.assert_allclose(mine.classes, theirs.classes, atol=1e-5)
    assert (onnx.device, onnx.precision, onnx.model) == ("cpu", "float32", torch_.model)


def test_openvino_answers_as_onnx_runtime_does():
    pytest.importorskip("openvino")
    card = shipped_card()
    size = card.spec.size
    images = np.stack([phantom(kind, seed=1, shape=(size, size)).image for kind in CLASSES])[:, None]
    images = images.astype(np.float32) / 127.5 - 1
    theirs = load_engine("onnx", shipped_folder()).run(images)
    engine = openvino_engine.OpenVinoEngine(card, read_graph(shipped_folder(), card), "f32")
    for mine, other in zip(engine.run(images), theirs, strict=True):
        np.testing.assert_allclose(mine, other, atol=1e-3)
    assert (engine.device, engine.precision) == ("cpu", "float32")


@pytest.fixture
def others(tmp_path, monkeypatch):
    """Install packages, each by a name: a module, and what its file of entry points says."""

    def install(**packages):
        monkeypatch.delitem(sys.modules, "bad_engine", raising=False)
        for name, (code, told) in packages.items():
            (tmp_path / f"{name}_engine.py").write_text(code)
            folder = tmp_path / f"{name}-1.dist-info"
            folder.mkdir()
            (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1\n")
            (folder / "entry_points.txt").write_text(f"[sonoloop.engines]\n{told}\n")
        importlib.invalidate_caches()

    monkeypatch.syspath_prepend(tmp_path)
    return install


def test_an_engine_of_another_package_is_found(tmp_path, bundle, others):
    others(
        bright=(BRIGHT, "torch = nowhere:Torch"),
        lively=(LIVELY, "lively = lively_engine:Lively\nbroken = nowhere:Nothing"),
    )
    assert load_engine("lively", tmp_path / "tiny").device == "abacus"
    assert find_engines()["torch"] == ENGINES["torch"], "ours keep their names"
    with pytest.raises(EngineError, match="the engine broken cannot be loaded"):
        load_engine("broken", tmp_path / "tiny")


def engine_that(load):
    return f"""
from sonoloop.models.engines import Engine
class E(Engine):
    def run(self, images): pass
    @classmethod
    def load(cls, folder, device="auto"):
        {load}
"""


@pytest.mark.parametrize(
    ("code", "place", "told"),
    [
        (
            "raise RuntimeError('no licence\\x1b[2J')",
            "bad_engine:E",
            r"no licence\\x1b\[2J.*install it again",
        ),
        ("raise SystemExit(3)", "bad_engine:E", "SystemExit"),
        ("def (", "bad_engine:E", "invalid syntax"),
        ("import bad_engine.inner", "bad_engine:E", "is not a package"),
        ("", "bad_engine:E", "no attribute 'E'"),
        ("", "bad_engine", "bad_engine is no engine"),
        ("E = 5", "bad_engine:E", "bad_engine:E is no engine"),
        ("class E: pass", "bad_engine:E", "bad_engine:E is no engine"),
        ("", "not a value!!", "cannot be loaded"),
        ("", "", "cannot be loaded"),
        ("", "bad_engine:E\nbad = other:E", "in two packages"),
        (engine_that("raise ValueError('no such folder')"), "bad_engine:E", "no such folder.*--engine"),
        (engine_that("raise SystemExit"), "bad_engine:E", "SystemExit.*--engine"),
        (engine_that("cls()"), "bad_engine:E", r"missing 1 required.*--engine"),
        (engine_that("pass"), "bad_engine:E", "loads no model"),
        (engine_that("return cls(None)"), "bad_engine:E", "loads no model"),
    ],
)
def test_an_engine_of_another_package_that_is_broken_is_named(tmp_path, others, code, place, told):
    others(bad=(code, f"bad = {place}"))
    with pytest.raises(EngineError, match=f"the engine bad .*{told}"):
        load_engine("bad", tmp_path)


def test_an_engine_that_is_interrupted_stays_so(tmp_path, others):
    others(bad=("raise KeyboardInterrupt", "bad = bad_engine:E"))
    with pytest.raises(KeyboardInterrupt):
        load_engine("bad", tmp_path)


def test_a_package_whose_entry_points_are_damaged_takes_no_other_engine_away_and_is_named(others, caplog):
    others(bad=("", "bad"), lively=(LIVELY, "lively = lively_engine:Lively"))
    assert find_engines() == {**ENGINES, "lively": "lively_engine:Lively"}
    assert "bad-1.dist-info" in caplog.text


def test_onnx_runtime_needs_neither_torch_nor_the_tools_that_made_the_graph():
    code = """
import sys
from sonoloop.models.card import shipped_folder
from sonoloop.models.engines import load_engine
load_engine("onnx", shipped_folder())
print({"torch", "onnx", "onnxscript"} & sys.modules.keys())
"""
    done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True)
    assert done.stdout.strip() == "set()", done.stderr


def test_a_model_without_a_graph_is_named_with_what_to_do(tmp_path, bundle):
    with pytest.raises(EngineError, match=rf"the model {bundle.model} has no graph.onnx; use --engine torch"):
        load_engine("onnx", tmp_path / "tiny")


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (lambda path: path.unlink(), "cannot be read"),
        (lambda path: path.write_bytes(path.read_bytes()[:-1] + b"x"), "is not the one its card names"),
    ],
)
def test_a_graph_that_is_not_its_cards_is_not_run(shipped_copy, damage, told):
    damage(shipped_copy / GRAPH)
    with pytest.raises(EngineError, match=told):
        load_engine("onnx", shipped_copy)


@pytest.mark.parametrize(
    "fault", [ImportError("DLL load failed"), RuntimeError("AVX2 is needed"), SystemExit(1), OSError("x")]
)
def test_a_library_that_cannot_be_imported_is_named(monkeypatch, fault):
    def fail(module):
        raise fault

    monkeypatch.setattr("sonoloop.models.engines.import_module", fail)
    with pytest.raises(EngineError, match=r"Steam cannot be loaded \(.*pip install --force-reinstall steam"):
        import_library("steam", "Steam", (1, 0))


@pytest.mark.parametrize(
    ("library", "module", "engine"),
    [("ONNX Runtime", onnx_engine, "onnx"), ("OpenVINO", openvino_engine, "openvino")],
)
def test_a_library_that_fails_to_begin_is_named(monkeypatch, library, module, engine):
    def fail(*_):
        raise RuntimeError("plugins.xml:1: no plugin")

    broken = SimpleNamespace(__version__="9.9", SessionOptions=fail, Core=fail)
    monkeypatch.setattr(module, "_runtime" if engine == "onnx" else "_library", lambda: broken)
    with pytest.raises(EngineError, match=rf"{library} 9\.9 cannot load the graph.*no plugin.*--engine"):
        load_engine(engine, shipped_folder())


@pytest.mark.parametrize(("version", "told"), [("1.9.0", "1.9.0 is too old"), (None, "is not installed")])
def test_a_library_that_cannot_be_used_is_named(monkeypatch, version, told):
    library = None if version is None else SimpleNamespace(__version__=version)
    monkeypatch.setitem(sys.modules, "onnxruntime", library)
    onnx_engine._runtime.cache_clear()
    with pytest.raises(EngineError, match=rf"ONNX Runtime {told}.*pip install"):
        load_engine("onnx", shipped_folder())
    monkeypatch.undo()
    onnx_engine._runtime.cache_clear()


def test_an_unknown_engine_is_named_with_those_there_are(tmp_path):
    with pytest.raises(ModelError, match=r"no engine 'steam'; use one of torch"):
        load_engine("steam", tmp_path)


@pytest.mark.parametrize("views", [1, 2, 4])
def test_an_engine_is_one_file_and_one_line(tmp_path, bundle, monkeypatch, views):
    (tmp_path / "bright_engine.py").write_text(BRIGHT)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(ENGINES, "bright", "bright_engine:Bright")
    pixels = np.zeros((90, 150), np.uint8)
    pixels[30:60, 40:90] = 255
    predictor = Predictor(load_engine("bright", tmp_path / "tiny"), views=views)
    prediction = predictor.predict(frame_from_array(pixels, name="a"))
    assert (prediction.label, prediction.lesions, predictor.device) == ("benign", 1, "cpu")
    assert np.mean((prediction.mask > 0) == (pixels > 0)) > 0.99


def test_an_engine_without_torch_predicts_without_it(tmp_path, bundle):
    (tmp_path / "bright_engine.py").write_text(BRIGHT)
    code = """
import sys
from pathlib import Path
import numpy as np
from bright_engine import Bright
from sonoloop.imaging.grey import frame_from_array
from sonoloop.models.predictor import Predictor
pixels = np.zeros((90, 150), np.uint8)
pixels[30:60, 40:90] = 255
print(Predictor(Bright.load(Path("tiny"))).predict(frame_from_array(pixels, name="a")).lesions)
print("torch" in sys.modules)
"""
    done = subprocess.run(
        [sys.executable, "-c", code], check=False, cwd=tmp_path, capture_output=True, text=True
    )
    assert done.stdout.split() == ["1", "False"], done.stderr


@pytest.mark.parametrize("antialias", [False, True])
@pytest.mark.parametrize(
    ("before", "after"),
    [((471, 562), (215, 256)), ((256, 256), (683, 916)), ((64, 300), (300, 64)), ((1, 7), (7, 1))],
)
def test_numpy_resizes_as_torch_does(before, after, antialias):
    # torch places pixels in float32, which tells where neighbours are as different as in noise
    maps = ndimage.gaussian_filter(np.random.default_rng(0).random((2, 3, *before), np.float32), (0, 0, 1, 1))
    mine = resize(maps, *after, antialias=antialias)
    theirs = resize(torch.from_numpy(maps), *after, antialias=antialias).numpy()
    assert mine.dtype == np.float32
    np.testing.assert_allclose(mine, theirs, atol=1e-5)


@pytest.mark.parametrize("number", [1, 2, 4])
def test_numpy_prepares_and_averages_as_torch_does(number):
    views = list_views(number, 0.8)
    rng = np.random.default_rng(1)
    square = Letterbox(120, 170, 64).apply(rng.random((120, 170), np.float32))
    images = np.stack([square, square.T])[:, None]
    stacked = make_views(images, views)
    np.testing.assert_allclose(stacked, make_views(torch.from_numpy(images), views).numpy(), atol=1e-5)
    mine, theirs = undo_views(stacked, views), undo_views(torch.from_numpy(stacked), views)
    np.testing.assert_allclose(mine, theirs.numpy(), atol=1e-5)
    np.testing.assert_allclose(agreement(mine, 0.5), agreement(torch.from_numpy(mine), 0.5), atol=1e-5)
    logits = rng.normal(size=(number, 2, 3)).astype(np.float32)
    mine, theirs = average_classes(logits, 1.3), average_classes(torch.from_numpy(logits), 1.3)
    np.testing.assert_allclose(mine, theirs, atol=1e-6)


def test_onnx_runtime_is_told_to_send_nothing(monkeypatch):
    told = []
    library = SimpleNamespace(__version__="1.32.0", disable_telemetry_events=lambda: told.append("off"))
    monkeypatch.delenv("ORT_DISABLE_TELEMETRY", raising=False)
    monkeypatch.setitem(sys.modules, "onnxruntime", library)
    onnx_engine._runtime.cache_clear()
    try:
        assert onnx_engine._runtime() is library
    finally:
        onnx_engine._runtime.cache_clear()
    assert told == ["off"]
    assert os.environ["ORT_DISABLE_TELEMETRY"] == "1"
