"""Which engine runs a bundle where nobody says: the quickest here of those that answer as they should."""

from __future__ import annotations

import hashlib
import json
import platform
import sys
from collections.abc import Callable
from contextlib import suppress
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import platformdirs

from sonoloop.atomic import write_whole
from sonoloop.errors import DeviceError, EngineError, ModelError
from sonoloop.models.card import GRAPH, Card, read_card
from sonoloop.models.engines import Engine, count_threads, load_engine
from sonoloop.models.kept_graphs import MAKER, can_make_graphs, has_graph, make_graph_once
from sonoloop.models.schema import parse_json
from sonoloop.regular_files import read_regular

Notify = Callable[[str], None]
IsCancelled = Callable[[], bool]

AUTO = "auto"
# those that run a graph, with the distribution and the module of each; the first is right, and the fallback
_OF_GRAPHS = {"onnx": ("onnxruntime", "onnxruntime"), "openvino": ("openvino", "openvino")}
# it has to win clearly
_CLEARLY_FASTER = 0.9
_MOST_BYTES, _MOST_TOLD = 1 << 20, 300
_MOST_KEPT = 100


def open_engine(
    folder: Path,
    device: str = "auto",
    *,
    engine: str = AUTO,
    probe: bool = False,
    on_notice: Notify | None = None,
) -> Engine:
    """Load a bundle into an engine.

    With "auto" that is torch for a GPU, else the quickest on this machine that runs the bundle's graph; one
    that cannot be used is named to `on_notice`, and the next in line is taken. Which is the quickest is found
    where `probe` is set, which takes seconds, and kept; until then it is ONNX Runtime.

    Where an engine of graphs is named, or `probe` set, and the bundle has no graph, one is made and kept.
    """
    notify = on_notice or (lambda text: None)
    if engine != AUTO:
        if engine in _OF_GRAPHS and device not in ("auto", "cpu"):
            raise DeviceError(f"the engine {engine} runs on the CPU, not on {device}; use --engine torch")
        if engine in _OF_GRAPHS:
            make_graph_once(folder, read_card(folder), on_notice=notify)
        return load_engine(engine, folder, device)
    card = read_card(folder)
    if not card.spec.has_weights and device not in ("auto", "cpu"):
        notify(f"the model {card.model} is a graph, which runs on the CPU and not on {device}")
        device = "cpu"
    if _takes_torch(card, device):
        return load_engine("torch", folder, device)
    problem: ModelError | None = None
    for name in _line_up(card, folder, probe=probe, notify=notify):
        try:
            return load_engine(name, folder, device)
        except EngineError as error:
            problem = error
            notify(f"the engine {name} is not used: {error}")
    if card.spec.has_weights and find_spec("torch") is not None:
        return load_engine("torch", folder, device)
    raise problem or EngineError(
        f"the model {card.model} has no graph, which it takes to run without torch: use another model, or "
        'run: pip install "napari-sonoloop[torch]"'
    )


def describe_engine(card: Card, device: str = "auto") -> str:
    """Say which engine runs a model here, as far as that is known without loading one."""
    if _takes_torch(card, device):
        return "torch"
    kept = _read_kept().get(_key(card))
    if kept is not None:
        return f"{kept['engine']} ({kept['told']})"
    if not has_graph(card):
        return "torch (the model has no graph)"
    return "onnx" if len(_installed()) < 2 else "onnx (not compared with others yet)"


def compare_engines(
    folder: Path,
    device: str = "auto",
    *,
    is_cancelled: IsCancelled = lambda: False,
    on_notice: Notify | None = None,
) -> str | None:
    """Find which engine is the quickest for a bundle here, and keep it for whoever loads it next.

    It takes seconds. Gives what came out, as `describe_engine` does; None where there is nothing to find, as
    where it was found before or the bundle has no graph, and where it was cancelled.
    """
    card, names = read_card(folder), _installed()
    if _takes_torch(card, device) or len(names) < 2 or not has_graph(card) or _key(card) in _read_kept():
        return None
    kept = _probe(card, folder, names, on_notice or (lambda text: None), is_cancelled)
    return None if kept is None else describe_engine(card, device)


def _takes_torch(card: Card, device: str) -> bool:
    """Whether torch runs a model on a device whatever else is there: for it alone knows a GPU."""
    if not card.spec.has_weights:
        return False  # a user's own graph
    return device not in ("auto", "cpu") or (
        device == "auto" and find_spec("torch") is not None and _may_have_gpu()
    )


def _line_up(card: Card, folder: Path, *, probe: bool, notify: Notify) -> list[str]:
    """Put the engines that run a graph in the order in which they are tried."""
    names = _installed() or ["onnx"]
    probe = probe and len(names) > 1 and _key(card) not in _read_kept()
    if probe and not has_graph(card) and can_make_graphs():
        try:
            make_graph_once(folder, card, on_notice=notify)
        except EngineError as error:
            notify(str(error))
            # it would take as long the next time, and come to the same
            _keep(_key(card), {"engine": "torch", "told": "no graph of the model could be made"})
    if not has_graph(card):
        return []
    first = "onnx"
    if len(names) > 1:
        kept = _probe(card, folder, names, notify) if probe else _read_kept().get(_key(card))
        if kept is not None and kept["engine"] in names:
            first = kept["engine"]
    return [first, *(name for name in names if name != first)]


def _probe(
    card: Card, folder: Path, names: list[str], notify: Notify, is_cancelled: IsCancelled = lambda: False
) -> dict[str, str] | None:
    """Compare the engines on simulated images, and keep which is the quickest of those that agree.

    Gives None where ONNX Runtime, with which they are compared, is not there, and where it was cancelled.
    """
    from sonoloop.models.engines.parity import compare, simulated_cases, time_engines  # noqa: PLC0415

    loaded: dict[str, Engine] = {}
    for name in names:
        if is_cancelled():
            return None
        try:
            loaded[name] = load_engine(name, folder, "cpu")
        except EngineError as error:
            notify(f"the engine {name} is not used: {error}")
    if "onnx" not in loaded:
        return None
    cases = simulated_cases()
    for name in [name for name in loaded if name != "onnx"]:
        if is_cancelled():
            return None
        try:
            parity = compare(loaded[name], loaded["onnx"], cases)
        except ModelError as error:
            notify(f"the engine {name} is not used: {error}")
            del loaded[name]
            continue
        if not parity.holds:
            notify(f"the engine {name} is not used for {card.model}, since it answers otherwise: {parity}")
            del loaded[name]
    if is_cancelled():
        return None
    seconds = dict(zip(loaded, time_engines([*loaded.values()]), strict=True))
    best = min(seconds, key=lambda name: seconds[name])
    if seconds[best] > _CLEARLY_FASTER * seconds["onnx"]:
        best = "onnx"
    told = ", ".join(f"{name} {1000 * taken:.0f} ms" for name, taken in seconds.items())
    kept = {"engine": best, "told": f"{told} an image"}
    _keep(_key(card), kept)
    return kept


def _installed() -> list[str]:
    # the module is looked for and not loaded, which takes long
    return [name for name, (_, module) in _OF_GRAPHS.items() if _is_there(module)]


def _is_there(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except (ImportError, ValueError):  # half of it is there
        return False


def _key(card: Card) -> str:
    """Name what the answer hangs on: the graph, the engines' versions, the processor and the threads."""
    graph = card.graphs.get(GRAPH) or f"{card.version} {MAKER} {has_graph(card)}"
    told = [graph, _processor(), str(count_threads())]
    for name, (distribution, _) in _OF_GRAPHS.items():
        with suppress(metadata.PackageNotFoundError):
            told.append(f"{name} {metadata.version(distribution)}")
    return hashlib.sha256("\n".join(told).encode()).hexdigest()


def _processor() -> str:
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line
    return f"{platform.machine()} {platform.processor()}"


def _file() -> Path:
    return platformdirs.user_cache_path("sonoloop", appauthor=False) / "engines.json"


def _read_kept() -> dict[str, dict[str, str]]:
    """Read what was found; a damaged file is as none, and so is an entry that was not written here."""
    try:
        values = parse_json(read_regular(_file(), most=_MOST_BYTES))
    except (OSError, ValueError):
        return {}
    if not isinstance(values, dict):
        return {}
    return {key: kept for key, kept in values.items() if _is_entry(kept)}


def _is_entry(kept: Any) -> bool:  # noqa: ANN401 - whatever JSON holds
    if not isinstance(kept, dict) or kept.keys() != {"engine", "told"}:
        return False
    engine, told = kept["engine"], kept["told"]
    if not isinstance(engine, str) or not isinstance(told, str):
        return False
    # torch stands for a model of which no graph could be made
    return engine in (*_OF_GRAPHS, "torch") and len(told) <= _MOST_TOLD and told.isprintable()


def _keep(key: str, kept: dict[str, str]) -> None:
    before = [*_read_kept().items()][-_MOST_KEPT:]
    # a folder that cannot be written to costs the next probe
    with suppress(OSError):
        _file().parent.mkdir(parents=True, exist_ok=True)
        write_whole(_file(), json.dumps({**dict(before), key: kept}, indent=1))


def _may_have_gpu() -> bool:
    """Whether importing torch, which takes seconds, may find a GPU: a driver is there, or an Apple chip."""
    if sys.platform == "darwin":
        return platform.machine() == "arm64"
    driver = r"C:\Windows\System32\nvcuda.dll" if sys.platform == "win32" else "/proc/driver/nvidia"
    # ROCm's
    return any(Path(place).exists() for place in (driver, "/dev/nvidiactl", "/dev/dxg", "/dev/kfd"))
