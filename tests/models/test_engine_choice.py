"""Which engine runs a model where nobody says, and what is told of those that do not."""

from __future__ import annotations

import json
import os
import shutil

import numpy as np
import pytest

from sonoloop.errors import DeviceError, EngineError, ModelError
from sonoloop.models import kept_graphs
from sonoloop.models.card import GRAPH, read_card, shipped_card, shipped_folder
from sonoloop.models.engines import ENGINES, Engine, auto, load_engine
from sonoloop.models.engines.auto import compare_engines, describe_engine, open_engine
from sonoloop.models.engines.parity import Parity, compare, simulated_cases


class Quick(Engine):
    """Answers at once, and as it is told to."""

    answer = staticmethod(lambda images: (images * 0 + 1, np.tile(np.float32([0, 3, 0]), (len(images), 1))))

    @classmethod
    def load(cls, folder, device="auto"):
        return cls(read_card(folder))

    def run(self, images):
        return self.answer(images)


@pytest.fixture
def two(tmp_path, monkeypatch):
    """A machine with ONNX Runtime and OpenVINO, whose place `Quick` takes, and without a GPU."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(auto, "_installed", lambda: ["onnx", "openvino"])
    monkeypatch.setattr(auto, "_may_have_gpu", lambda: False)
    monkeypatch.setitem(ENGINES, "openvino", f"{__name__}:Quick")


def test_onnx_runtime_runs_until_the_engines_were_compared(two):
    assert open_engine(shipped_folder()).name == "onnx"
    assert describe_engine(shipped_card()) == "onnx (not compared with others yet)"


def test_an_engine_that_answers_otherwise_is_named_and_not_used(two):
    told = []
    assert open_engine(shipped_folder(), probe=True, on_notice=told.append).name == "onnx"
    assert len(told) == 1
    assert told[0].startswith(f"the engine openvino is not used for {shipped_card().model}, since it answers")
    assert describe_engine(shipped_card()).startswith("onnx (onnx ")


def test_the_quickest_that_agrees_is_kept_and_used(two, monkeypatch):
    monkeypatch.setattr("sonoloop.models.engines.parity.compare", lambda *_: Parity(0.0, 0, 0.0))
    assert open_engine(shipped_folder(), probe=True).name == "openvino"
    assert open_engine(shipped_folder()).name == "openvino", "it is kept"
    assert describe_engine(shipped_card()).startswith("openvino (onnx ")
    monkeypatch.setattr(auto, "count_threads", lambda: 77)
    assert open_engine(shipped_folder()).name == "onnx", "another machine is asked again"


def test_an_engine_that_broke_since_is_named_and_the_next_one_runs(two, monkeypatch):
    auto._keep(auto._key(shipped_card()), {"engine": "openvino", "told": "x"})
    monkeypatch.setitem(ENGINES, "openvino", "nowhere:Nothing")
    told = []
    assert open_engine(shipped_folder(), on_notice=told.append).name == "onnx"
    assert told[0].startswith("the engine openvino is not used: the engine openvino cannot be loaded")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{",
        '{"a": 1}',
        '{"a": {"engine": "onnx"}}',
        "[" * 9999,
        '{"a": {"engine": "steam", "told": "1 ms"}}',
        '{"a": {"engine": ["onnx"], "told": "1 ms"}}',
        '{"a": {"engine": "onnx", "told": 7}}',
        '{"a": {"engine": "onnx", "told": "\\u001b[2J"}}',
        '{"a": {"engine": "onnx", "told": "\\ud800"}}',
        json.dumps({"a": {"engine": "onnx", "told": "1 ms" * 1000}}),
        '{"a": {"engine": "onnx", "told": "1 ms"}, "a": 1}',
    ],
)
def test_a_damaged_record_is_as_none(two, text):
    auto._file().parent.mkdir(parents=True)
    auto._file().write_text(text)
    assert open_engine(shipped_folder()).name == "onnx"
    auto._keep("b", {"engine": "onnx", "told": "x"})
    assert json.loads(auto._file().read_text()) == {"b": {"engine": "onnx", "told": "x"}}


def test_a_graph_that_is_gone_is_named_and_torch_runs(two, tmp_path, monkeypatch):
    monkeypatch.setattr(auto, "_installed", lambda: ["onnx"])
    folder = tmp_path / "copy"
    shutil.copytree(shipped_folder(), folder)
    (folder / GRAPH).unlink()
    told = []
    assert open_engine(folder, "cpu", on_notice=told.append).name == "torch"
    assert any("the engine onnx is not used" in text and "cannot be read" in text for text in told)


def test_an_engine_of_the_cpu_is_not_asked_for_a_gpu():
    with pytest.raises(DeviceError, match="the engine onnx runs on the CPU, not on cuda; use --engine torch"):
        open_engine(shipped_folder(), "cuda", engine="onnx")


def test_an_engine_agrees_with_itself_and_not_with_one_that_sees_lesions_everywhere():
    onnx, cases = load_engine("onnx", shipped_folder()), simulated_cases(1)
    assert compare(onnx, onnx, cases) == Parity(0.0, 0, 0.0)
    assert not compare(Quick(shipped_card()), onnx, cases).holds
    assert not Parity(float("nan"), 0, 0.0).holds
    assert not Parity(0.0, 1, 0.0).holds


class OfGraph(Quick):
    """Reads the graph, and answers as it is told to."""

    @classmethod
    def load(cls, folder, device="auto"):
        card = read_card(folder)
        assert kept_graphs.find_graph(folder, card) == b"graph"
        return cls(card)


@pytest.fixture
def bare(two, tmp_path, bundle, monkeypatch):
    """A bundle without a graph, of which one can be made."""
    made = []
    monkeypatch.setattr("sonoloop.models.graph.make_graph", lambda *_: made.append("a graph") or b"graph")
    monkeypatch.setattr("sonoloop.models.graph.prove_graph", lambda *_: None)
    monkeypatch.setattr("sonoloop.models.engines.parity.check_graph_answers", lambda *_: None)
    for name in ("onnx", "openvino"):
        monkeypatch.setitem(ENGINES, name, f"{__name__}:OfGraph")
    return tmp_path / "tiny", made


def test_a_bundle_without_a_graph_gets_one_when_it_is_asked_for_and_keeps_it(bare):
    folder, made = bare
    told = []
    assert open_engine(folder, "cpu").name == "torch", "nobody asked for it"
    assert open_engine(folder, engine="onnx", on_notice=told.append).name == "onnx"
    assert open_engine(folder, engine="onnx", on_notice=told.append).name == "onnx"
    assert (len(made), len(told)) == (1, 1)
    assert "has no graph: one is made now and kept" in told[0]
    card = read_card(folder)
    assert not card.graphs, "its version is the hash of its card"
    assert open_engine(folder, "cpu").name == "onnx", "it is there now"
    assert describe_engine(card) == "onnx (not compared with others yet)"
    (kept,) = kept_graphs._folder().glob("*.onnx")
    kept.write_bytes(b"damaged")
    assert open_engine(folder, engine="onnx").name == "onnx"
    assert len(made) == 2
    kept_graphs.forget_graph(card.version)
    assert not kept_graphs.has_graph(card)


def test_a_probe_makes_the_graph_once_and_none_where_it_cannot_be_made(bare, monkeypatch):
    folder, made = bare
    monkeypatch.setattr(auto, "_probe", lambda *_: {"engine": "onnx", "told": "x"})
    monkeypatch.setattr("sonoloop.models.graph.prove_graph", fail)
    told = []
    for _ in range(2):
        assert open_engine(folder, "cpu", probe=True, on_notice=told.append).name == "torch"
    assert len(made) == 1
    assert told[1] == (
        f"the model {read_card(folder).model} has no graph, and none can be made here: it is odd; use "
        "--engine torch for it"
    )
    assert describe_engine(read_card(folder)) == "torch (no graph of the model could be made)"
    with pytest.raises(EngineError, match="none can be made here: it is odd"):
        open_engine(folder, engine="openvino")
    monkeypatch.setattr("sonoloop.models.graph.prove_graph", lambda *_: None)
    open_engine(folder, engine="openvino")
    assert open_engine(folder, "cpu", probe=True).name == "onnx"


def fail(*_):
    raise ModelError("it is odd")


def test_without_what_makes_graphs_it_is_said_what_to_install(bare, monkeypatch):
    folder, made = bare
    monkeypatch.setattr(kept_graphs, "can_make_graphs", lambda: False)
    monkeypatch.setattr(auto, "can_make_graphs", lambda: False)
    with pytest.raises(EngineError, match=r'has no graph.*pip install "napari-sonoloop\[train\]"'):
        open_engine(folder, engine="onnx")
    assert open_engine(folder, "cpu", probe=True).name == "torch"
    assert not made


def test_the_oldest_kept_graphs_make_room(two, monkeypatch, card):
    monkeypatch.setattr(kept_graphs, "_MOST_BYTES", 250)
    for number, version in enumerate("abcd"):
        object.__setattr__(card, "_sha256", version * 64)
        kept_graphs._keep(card, version.encode() * 100)
        (made,) = kept_graphs._folder().glob(f"{version}*")
        os.utime(made, (number, number))
    kept_graphs._keep(card, b"d" * 100)
    assert sorted(path.name[0] for path in kept_graphs._folder().iterdir()) == ["c", "d"]
    kept_graphs._keep(card, b"e" * 1000)
    assert [path.read_bytes()[:1] for path in kept_graphs._folder().iterdir()] == [b"e"]


def test_the_engines_are_compared_once_and_not_where_that_was_called_off(two, monkeypatch):
    monkeypatch.setattr("sonoloop.models.engines.parity.compare", lambda *_: Parity(0.0, 0, 0.0))
    monkeypatch.setattr("sonoloop.models.engines.parity.time_engines", lambda _: [0.061, 0.030])
    monkeypatch.setitem(ENGINES, "onnx", f"{__name__}:Quick")
    asked = iter([False, False, True])
    assert compare_engines(shipped_folder(), is_cancelled=lambda: next(asked)) is None
    assert compare_engines(shipped_folder(), "cuda") is None
    assert not auto._file().exists()
    assert compare_engines(shipped_folder()) == "openvino (onnx 61 ms, openvino 30 ms an image)"
    assert compare_engines(shipped_folder()) is None
