"""Networks that are not ours: a user's ONNX or safetensors file and its description become a bundle."""

from __future__ import annotations

from pathlib import Path

ONNX, SAFETENSORS, TOML = ".onnx", ".safetensors", ".toml"
# which may run code when they are opened
UNPICKLED = frozenset((".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".bin", ".joblib"))
# of libraries that are none of ours
OTHERS = frozenset(
    (".pt2", ".npz", ".h5", ".hdf5", ".keras", ".pb", ".tflite", ".mlmodel", ".engine", ".xml", ".jit")
)


def is_own_network(source: Path) -> bool:
    """Whether a file is by its name a network of a user's own, its description, or of a refused kind."""
    suffix = source.suffix.lower()
    return suffix in (ONNX, SAFETENSORS, TOML) or suffix in UNPICKLED | OTHERS
