"""PyTorch: on a GPU as on a CPU, channels last, in the precision that pays."""

from __future__ import annotations

from pathlib import Path
from typing import Self

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 - torch's own abbreviation
from numpy.typing import NDArray

from sonoloop.models.bundle import Bundle, read_bundle
from sonoloop.models.devices import autocast_dtype, choose_device
from sonoloop.models.engines import Engine

# a logit whose probability is zero in every precision
_NO_LESION = -100.0


class TorchEngine(Engine):
    """A bundle's network on a device; see `sonoloop.models.devices.choose_device`.

    It computes in the precision that pays there, or in "float32" where that is asked for.
    """

    name = "torch"

    def __init__(self, bundle: Bundle, device: str = "auto", precision: str = "") -> None:
        super().__init__(bundle.card)
        self._asked_precision = precision
        self._network = bundle.network
        self._move_to(choose_device(device))

    @classmethod
    def load(cls, folder: Path, device: str = "auto") -> Self:
        """Load and verify the bundle in a folder."""
        return cls(read_bundle(folder), device)

    @torch.inference_mode()
    def run(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Run the network; one that only classifies sees no lesion anywhere."""
        images = images.contiguous(memory_format=torch.channels_last)
        lesion, classes = self._run(images, self._dtype)
        if self._dtype is not None and not (lesion.isfinite().all() and classes.isfinite().all()):
            # what overflows in reduced precision need not in float32
            lesion, classes = self._run(images, None)
        # an infinite one would pass for certainty
        lesion = torch.where(lesion.isfinite(), lesion, torch.nan)
        return lesion.sigmoid(), classes

    def _run(self, images: torch.Tensor, dtype: torch.dtype | None) -> tuple[torch.Tensor, torch.Tensor]:
        with torch.autocast(self._device.type, dtype or torch.bfloat16, enabled=dtype is not None):
            lesion, classes = self._network(images)
        if lesion is None:
            lesion = torch.full_like(images, _NO_LESION)
        return lesion.float(), classes.float()

    def put(self, values: NDArray[np.float32]) -> torch.Tensor:
        """Turn an array to a tensor: torch resizes faster than numpy, and as in training."""
        return torch.from_numpy(values)

    def upload(self, values: torch.Tensor) -> torch.Tensor:
        """Bring a batch to the device."""
        return values.to(self._device)

    def fetch(self, values: torch.Tensor) -> NDArray[np.float32]:
        """Turn a tensor to an array."""
        array: NDArray[np.float32] = values.cpu().numpy()
        return array

    def is_out_of_memory(self, error: Exception) -> bool:
        """Whether memory ran out; on the CPU torch says so in words only."""
        if isinstance(error, torch.OutOfMemoryError | MemoryError):
            return True
        return any(told in str(error) for told in ("can't allocate memory", "not enough memory", "bad_alloc"))

    def free(self) -> None:
        """Give back what CUDA's allocator keeps."""
        if self._device.type == "cuda":
            torch.cuda.empty_cache()

    def move_to_cpu(self) -> None:
        """Go on on the CPU."""
        self._move_to(torch.device("cpu"))

    def _move_to(self, device: torch.device) -> None:
        self._device, self.device = device, str(device)
        self._network = self._network.to(device)
        self._dtype = None if self._asked_precision == "float32" else autocast_dtype(device)
        self.precision = str(self._dtype or torch.float32).removeprefix("torch.")


def resize(maps: torch.Tensor, height: int, width: int, *, antialias: bool) -> torch.Tensor:
    """Resize (B, C, H, W); see `sonoloop.models.preprocess.resize`."""
    return F.interpolate(maps, (height, width), mode="bilinear", align_corners=False, antialias=antialias)
