"""What a model's specification may ask of each architecture: names, types and ranges, and nothing else.

The libraries take far more, among it files and addresses to load weights from.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from sonoloop.models.schema import show


@dataclass(frozen=True, slots=True)
class Number:
    """A number from `low` to `high`; a whole one unless told otherwise."""

    low: float
    high: float
    whole: bool = True

    def allows(self, value: Any) -> bool:  # noqa: ANN401 - whatever JSON holds
        """Whether a value is one."""
        kinds: tuple[type, ...] = (int,) if self.whole else (int, float)
        return type(value) in kinds and self.low <= value <= self.high

    def __str__(self) -> str:
        return f"a {'whole ' if self.whole else ''}number from {self.low:g} to {self.high:g}"


@dataclass(frozen=True, slots=True)
class Choice:
    """One of a few values."""

    options: tuple[str | int | bool | None, ...]

    def allows(self, value: Any) -> bool:  # noqa: ANN401 - whatever JSON holds
        """Whether a value is one; 1 is not true."""
        return any(type(value) is type(option) and value == option for option in self.options)

    def __str__(self) -> str:
        return f"one of {', '.join(map(str, self.options))}"


@dataclass(frozen=True, slots=True)
class Several:
    """A list of numbers."""

    of: Number
    most: int

    def allows(self, value: Any) -> bool:  # noqa: ANN401 - whatever JSON holds
        """Whether a value is one."""
        return (
            isinstance(value, list | tuple)
            and 1 <= len(value) <= self.most
            and all(map(self.of.allows, value))
        )

    def __str__(self) -> str:
        return f"a list of 1 to {self.most}, each {self.of}"


Arguments: TypeAlias = Mapping[str, Number | Choice | Several]

_DEPTH = {"encoder_depth": Number(1, 5)}
_WIDTH = Number(1, 2048)
_SHARE = Number(0, 0.95, whole=False)
_FLAG = Choice((False, True))
_NORM = {"decoder_use_norm": Choice((False, True, "batchnorm", "identity", "layernorm", "instancenorm"))}
_RESIZE = {"decoder_interpolation": Choice(("nearest", "nearest-exact", "bilinear", "bicubic", "area"))}
_GROW = {"upsampling": Choice((None, 1, 2, 4, 8, 16, 32))}
_WIDTHS = {"decoder_channels": Several(_WIDTH, 5)}
# of a network that repairs masks: how it is shown a mask and prompts, see `sonoloop.models.prompts`
PROMPTS = "prompts"
_PROMPTS = {PROMPTS: Choice(("discs",))}
_UNET: Arguments = {
    **_DEPTH,
    **_NORM,
    **_WIDTHS,
    **_RESIZE,
    **_PROMPTS,
    "decoder_attention_type": Choice((None, "scse")),
}
_DEEPLAB: Arguments = {
    **_DEPTH,
    **_GROW,
    "encoder_output_stride": Choice((8, 16)),
    "decoder_channels": _WIDTH,
    "decoder_atrous_rates": Several(Number(1, 64), 8),
    "decoder_aspp_separable": _FLAG,
    "decoder_aspp_dropout": _SHARE,
}

# by architecture
SEGMENTERS: Mapping[str, Arguments] = {
    "Unet": _UNET,
    "UnetPlusPlus": _UNET,
    "MAnet": {**_DEPTH, **_NORM, **_WIDTHS, **_RESIZE, "decoder_pab_channels": _WIDTH},
    "Linknet": {**_DEPTH, **_NORM},
    "FPN": {
        **_DEPTH,
        **_RESIZE,
        **_GROW,
        "decoder_pyramid_channels": _WIDTH,
        "decoder_segmentation_channels": _WIDTH,
        "decoder_merge_policy": Choice(("add", "cat")),
        "decoder_dropout": _SHARE,
    },
    "PSPNet": {**_DEPTH, **_NORM, **_GROW, "psp_out_channels": _WIDTH, "psp_dropout": _SHARE},
    "DeepLabV3": _DEEPLAB,
    "DeepLabV3Plus": _DEEPLAB,
    "PAN": {
        **_DEPTH,
        **_RESIZE,
        **_GROW,
        "encoder_output_stride": Choice((16, 32)),
        "decoder_channels": _WIDTH,
    },
    "UPerNet": {**_DEPTH, **_NORM, **_GROW, "decoder_channels": _WIDTH},
    "Segformer": {**_DEPTH, **_GROW, "decoder_segmentation_channels": _WIDTH},
    "DPT": {
        **_DEPTH,
        "encoder_output_indices": Several(Number(0, 64), 5),
        "decoder_readout": Choice(("ignore", "add", "cat")),
        "decoder_intermediate_channels": Several(_WIDTH, 5),
        "decoder_fusion_channels": _WIDTH,
        "dynamic_img_size": _FLAG,
    },
}
# of whatever architecture; one that does not know an argument refuses it
CLASSIFIERS: Arguments = {
    "depth": Number(1, 64),
    "img_size": Number(32, 2048),
    "dynamic_img_size": _FLAG,
    "output_stride": Choice((8, 16, 32)),
    "drop_rate": _SHARE,
    "drop_path_rate": _SHARE,
}
PLAIN_UNET: Arguments = {"channels": Several(_WIDTH, 8)}
# of a user's own network: what it tells, and how frames are brought to its square
HEADS, BOTH = "heads", "both"
RESIZE, STRETCH = "resize", "stretch"
OWN_GRAPH: Arguments = {
    HEADS: Choice(("lesion", "classes", BOTH)),
    RESIZE: Choice(("letterbox", STRETCH)),
}


def check_arguments(allowed: Arguments, values: Mapping[str, Any], architecture: str) -> None:
    """Refuse an argument that an architecture is not given, or a value that it may not have, by its name."""
    for name, value in values.items():
        if name not in allowed:
            raise ValueError(
                f"arguments.{name} is none that {architecture} is given; there are: "
                f"{', '.join(sorted(allowed)) or 'none'}"
            )
        if not allowed[name].allows(value):
            raise ValueError(f"arguments.{name} must be {allowed[name]}, got {show(value)}")
