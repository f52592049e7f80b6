"""Which engine runs a bundle where nobody says."""

from __future__ import annotations

import platform
import sys
from importlib.util import find_spec
from pathlib import Path

from sonoloop.errors import EngineError
from sonoloop.models.card import Card, read_card
from sonoloop.models.engines import Engine, load_engine


def open_engine(folder: Path, device: str = "auto") -> Engine:
    """Load a bundle into the engine that suits it here: torch for a GPU, else one that runs its graph."""
    return load_engine(_choose(read_card(folder), device), folder, device)


def _choose(card: Card, device: str) -> str:
    torch = find_spec("torch") is not None
    if device not in ("auto", "cpu") or (device == "auto" and torch and _may_have_gpu()):
        return "torch"
    if card.graphs:
        return "onnx"
    if torch:
        return "torch"
    raise EngineError(
        f"the model {card.model} has no graph, which it takes to run without torch: use another model, or "
        'run: pip install "napari-sonoloop[torch]"'
    )


def _may_have_gpu() -> bool:
    """Whether importing torch, which takes seconds, may find a GPU: a driver is there, or an Apple chip."""
    if sys.platform == "darwin":
        return platform.machine() == "arm64"
    driver = r"C:\Windows\System32\nvcuda.dll" if sys.platform == "win32" else "/proc/driver/nvidia"
    # ROCm's
    return any(Path(place).exists() for place in (driver, "/dev/nvidiactl", "/dev/dxg", "/dev/kfd"))
