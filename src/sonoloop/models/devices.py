"""Which device to run on, and whether reduced precision pays there."""

from __future__ import annotations

import functools
import logging
import time
from typing import Literal, get_args

import torch
from torch import nn

from sonoloop.errors import DeviceError

logger = logging.getLogger(__name__)

DeviceName = Literal["auto", "cpu", "cuda", "mps"]
DEVICE_NAMES: tuple[str, ...] = get_args(DeviceName)

# reduced precision has to win clearly: on CPUs without bf16 instructions it is 5 to 7 times slower
_CLEARLY_FASTER = 0.8
_ROUNDS = 15


def choose_device(name: str = "auto") -> torch.device:
    """Turn a name into a device that is there; "auto" is CUDA, else MPS, else the CPU."""
    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if name == "auto":
        name = next(kind for kind, present in there.items() if present)
    if name not in there:
        raise DeviceError(f"there is no device {name!r}; use one of {', '.join(DEVICE_NAMES)}")
    if not there[name]:
        raise DeviceError(
            f"this machine has no usable {name}; use --device auto, or install a torch built for it"
        )
    return torch.device(name)


@functools.cache
def autocast_dtype(device: torch.device) -> torch.dtype | None:
    """Return the reduced precision that a short trial on this device shows to pay, by a fifth, or None.

    It is bfloat16 where the device has it, else float16 on CUDA.
    """
    if device.type == "mps":
        return None  # autocast on MPS misses operators that the decoders use
    dtype = torch.bfloat16
    if device.type == "cuda" and not torch.cuda.is_bf16_supported(including_emulation=False):
        dtype = torch.float16
    trial = nn.Sequential(
        nn.Conv2d(32, 64, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(64, 64, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(64, 32, 1),
    )
    trial = trial.to(device).to(memory_format=torch.channels_last)
    batch = torch.rand(2, 32, 64, 64, device=device).to(memory_format=torch.channels_last)
    threads = torch.get_num_threads()
    try:
        # by turns and on one thread, so that the answer is the same whatever else the machine does
        torch.set_num_threads(1)
        with torch.inference_mode():
            pairs = [(_seconds(trial, batch, None), _seconds(trial, batch, dtype)) for _ in range(_ROUNDS)]
    finally:
        torch.set_num_threads(threads)
    full, reduced = (min(column) for column in zip(*pairs, strict=True))
    pays = reduced < _CLEARLY_FASTER * full
    logger.info("%s: %s takes %.2f of the time of float32", device, dtype, reduced / full)
    return dtype if pays else None


def _seconds(network: nn.Module, batch: torch.Tensor, dtype: torch.dtype | None) -> float:
    # on a CPU the thread's own time: the wall's also holds what other programs do meanwhile
    clock = time.thread_time if batch.device.type == "cpu" else time.perf_counter
    start = clock()
    with torch.autocast(batch.device.type, dtype or torch.bfloat16, enabled=dtype is not None):
        network(batch)
    if batch.device.type == "cuda":
        torch.cuda.synchronize(batch.device)
    return clock() - start
