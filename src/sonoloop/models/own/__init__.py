"""Networks that are not ours: a user's ONNX or safetensors file and its description become a bundle."""

from __future__ import annotations

from pathlib import Path

ONNX, SAFETENSORS, TOML = ".onnx", ".safetensors", ".toml"
# which may run code when they are opened, or need a library that is none of ours
OTHERS = frozenset(
    (".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".bin", ".pt2", ".joblib", ".npz", ".h5", ".hdf5", ".keras")
    + (".pb", ".tflite", ".mlmodel", ".engine", ".xml", ".jit")
)
UNPICKLED = frozenset((".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".bin", ".joblib"))


def is_own_network(source: Path) -> bool:
    """Whether a file is by its name a network of a user's own, its description, or of a kind that is refused."""
    suffix = source.suffix.lower()
    return suffix in (ONNX, SAFETENSORS, TOML) or suffix in OTHERS
