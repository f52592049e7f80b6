"""Which network a model is, and how to build it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

import torch
from torch import nn

from sonoloop.errors import ModelError
from sonoloop.values import CLASSES

MAX_SIZE = 2048
_NAME = re.compile(r"[A-Za-z0-9_.-]+")


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSpec:
    """A segmenter of segmentation-models-pytorch with a class head on its encoder.

    Parameters
    ----------
    architecture : str
        A class of `segmentation_models_pytorch`, such as "Unet" or "FPN".
    encoder : str
        One of its encoders; "tu-" before the name takes timm's.
    size : int
        Side of the square the network sees, in pixels; a multiple of 32, at most 2048.
    dropout : float
        Before the class head, in [0, 1).
    arguments : mapping
        Passed on to the architecture, for instance ``decoder_channels``.
    """

    architecture: str = "Unet"
    encoder: str = "tu-tf_efficientnet_lite0"
    size: int = 256
    dropout: float = 0.2
    arguments: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        # timm would fetch "hf-hub:..." from the network, and read any folder after "local-dir:"
        if not _NAME.fullmatch(str(self.encoder)):
            raise ValueError(
                f"encoder must be a plain name of letters, digits, _, . and -, got {self.encoder!r}"
            )
        if type(self.size) is not int or not 32 <= self.size <= MAX_SIZE or self.size % 32:
            raise ValueError(f"size must be a multiple of 32 from 32 to {MAX_SIZE}, got {self.size}")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout must be in [0, 1), got {self.dropout}")

    def to_dict(self) -> dict[str, Any]:
        """Return the specification as JSON can hold it."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> ModelSpec:
        """Read a specification; an unknown key is a `ModelError`."""
        known = {f.name for f in fields(cls)}
        unknown = sorted(set(values) - known)
        if unknown:
            raise ModelError(f"unknown in the model's specification: {', '.join(unknown)}; update Sonoloop")
        try:
            return cls(**values)
        except (TypeError, ValueError) as error:
            raise ModelError(f"the model's specification is wrong: {error}") from error


def build_network(spec: ModelSpec) -> nn.Module:
    """Build the network of a specification, with random weights.

    Returns
    -------
    torch.nn.Module
        Takes (B, 1, S, S) in [-1, 1]; gives lesion logits (B, 1, S, S) and class logits (B, 3).

    Raises
    ------
    ModelError
        If the library knows no such architecture or encoder.
    """
    import segmentation_models_pytorch as smp  # noqa: PLC0415 - seconds to import

    architecture = getattr(smp, spec.architecture, None)
    if not (isinstance(architecture, type) and issubclass(architecture, nn.Module)):
        raise ModelError(f"segmentation_models_pytorch has no architecture {spec.architecture!r}")
    try:
        network = architecture(
            encoder_name=spec.encoder,
            encoder_weights=None,
            in_channels=1,
            classes=1,
            aux_params={"classes": len(CLASSES), "pooling": "avg", "dropout": spec.dropout or None},
            **{name: _plain(value) for name, value in spec.arguments.items()},
        )
    except (KeyError, TypeError, ValueError, RuntimeError, OSError) as error:
        raise ModelError(f"cannot build {spec.architecture} on {spec.encoder}: {error}") from error
    return network.to(memory_format=torch.channels_last)


def _plain(value: Any) -> Any:  # noqa: ANN401 - whatever JSON holds
    return tuple(value) if isinstance(value, list) else value
