"""Which network a model is."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Literal, get_args

from sonoloop.errors import ModelError

MAX_SIZE = 2048
_NAME = re.compile(r"[A-Za-z0-9_.-]+")

Library = Literal["smp", "timm", "torchvision", "plain"]
Head = Literal["lesion", "classes"]
LIBRARIES: tuple[Library, ...] = get_args(Library)


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSpec:
    """Which network, of which library, at which size.

    Parameters
    ----------
    library : str
        "smp" (segmentation-models-pytorch), "timm" (classifiers), "torchvision" (FCN), or "plain" (the U-Net
        of 64 to 1024 channels).
    architecture : str
        A class of smp such as "Unet" or "FPN", a model of timm such as "resnet18", "fcn_resnet50", or "Unet".
    encoder : str
        Of smp: one of its encoders; "tu-" before the name takes timm's. Empty for the other libraries.
    size : int
        Side of the square the network sees, in pixels; a multiple of 32, at most 2048.
    dropout : float
        Before the class head, in [0, 1).
    arguments : mapping
        Passed on to the architecture, for instance ``decoder_channels``.
    """

    library: Library = "smp"
    architecture: str = "Unet"
    encoder: str = "tu-tf_efficientnet_lite0"
    size: int = 256
    dropout: float = 0.2
    arguments: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.library not in LIBRARIES:
            raise ValueError(f"library must be one of {', '.join(LIBRARIES)}, got {self.library!r}")
        if self.library != "smp" and self.encoder:
            raise ValueError(f"only networks of smp have an encoder to choose, got {self.encoder!r}")
        named = ("architecture", "encoder") if self.library == "smp" else ("architecture",)
        for name in named:
            # timm would fetch "hf-hub:..." from the network, and read any folder after "local-dir:"
            if not _NAME.fullmatch(str(getattr(self, name))):
                raise ValueError(
                    f"{name} must be a plain name of letters, digits, _, . and -, got {getattr(self, name)!r}"
                )
        if type(self.size) is not int or not 32 <= self.size <= MAX_SIZE or self.size % 32:
            raise ValueError(f"size must be a multiple of 32 from 32 to {MAX_SIZE}, got {self.size}")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout must be in [0, 1), got {self.dropout}")

    @property
    def heads(self) -> tuple[Head, ...]:
        """What the network tells: "lesion" (a mask), "classes", or both."""
        return ("classes",) if self.library == "timm" else ("lesion", "classes")

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
