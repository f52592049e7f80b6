"""Lightning Fabric for one process, or for those that ``torchrun`` started."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from lightning.fabric import Fabric

from sonoloop.errors import TrainingError
from sonoloop.models.devices import autocast_dtype, choose_device
from sonoloop_training.fit.recipe import FitConfig, Precision

_DTYPES: dict[Precision, torch.dtype | None] = {
    "float32": None,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}
# by Lightning's name
_PRECISIONS = {None: "32-true", torch.bfloat16: "bf16-mixed", torch.float16: "16-mixed"}


def settle_precision(config: FitConfig, device: str) -> Precision:
    """Say in which precision one process computes: a trial later on could come to another answer."""
    chosen = choose_device(device)
    config.check_device(chosen.type)
    if config.precision != "auto":
        return config.precision
    dtype = autocast_dtype(chosen)
    return next(name for name, kind in _DTYPES.items() if kind == dtype)


def make_fabric(config: FitConfig, device: str, *, held: str | None = None) -> Fabric:
    """Set up the device, the precision and, under ``torchrun``, the other processes.

    On several processes the precision is not tried out, since each might come to another answer: "auto" is
    then float32 on CPUs and bfloat16 (or float16) on GPUs.
    """
    chosen = choose_device(device)
    config.check_device(chosen.type)
    world = int(os.environ.get("WORLD_SIZE", "1"))
    local = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    if config.batch % world:
        raise TrainingError(f"a batch of {config.batch} cannot be shared by {world} processes; set fit.batch")
    if config.precision != "auto":
        dtype = _DTYPES[config.precision]
    elif held in (there := {_PRECISIONS[dtype]: dtype for dtype in _dtypes_of(chosen)}):
        dtype = there[held]
    elif world == 1:
        dtype = autocast_dtype(chosen)
    else:
        bf16 = torch.bfloat16 in _dtypes_of(chosen)
        dtype = None if chosen.type == "cpu" else torch.bfloat16 if bf16 else torch.float16
    # it tells at every start what `Started` tells too
    logging.getLogger("lightning.fabric").setLevel(logging.WARNING)
    fabric = Fabric(
        accelerator=chosen.type,
        devices=local,
        num_nodes=world // local,
        strategy="ddp" if world > 1 else "auto",
        precision=_PRECISIONS[dtype],  # type: ignore[arg-type]
    )
    fabric.launch()
    return fabric


def _dtypes_of(device: torch.device) -> list[torch.dtype | None]:
    if device.type == "cuda":
        bf16 = torch.cuda.is_bf16_supported(including_emulation=False)
        return [None, torch.float16, *([torch.bfloat16] if bf16 else [])]
    return [None, torch.bfloat16] if device.type == "cpu" else [None]


# that many keep a GPU busy, each with a core of its own
_MOST_WORKERS = 16


def count_workers(device: torch.device) -> int:
    """Count the processes that are to augment images: the cores that a GPU leaves free, none on a CPU."""
    if device.type == "cpu":
        return 0
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(0, min(_MOST_WORKERS, cores // int(os.environ.get("LOCAL_WORLD_SIZE", "1")) - 1))


# how drivers' errors begin where torch has no class of its own for them
_DRIVERS = ("CUDA", "cuDNN", "CUBLAS", "cuBLAS", "HIP", "NCCL", "MPS")


@contextmanager
def device_watched(
    device: torch.device, *, kept: str = "the checkpoint of the last epoch is kept"
) -> Iterator[None]:
    """Raise what a failing device raises as a `TrainingError` that says what to do.

    Out of memory is another matter and passes.
    """
    try:
        yield
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:
        if not is_device_fault(error):
            raise
        first = str(error).partition("\n")[0]
        raise TrainingError(
            f"the device {device} failed ({first}); {kept}: see that the device is back, and go on from there"
        ) from error


def is_device_fault(error: RuntimeError) -> bool:
    """Tell whether a device or its driver raised this, rather than the code that ran on it."""
    return isinstance(error, torch.AcceleratorError) or str(error).startswith(_DRIVERS)
