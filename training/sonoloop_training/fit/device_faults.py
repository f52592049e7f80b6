"""A device that fails in the middle of a training, in words."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from sonoloop.errors import TrainingError

# how drivers' errors begin where torch has no class of its own for them
_DRIVERS = ("CUDA", "cuDNN", "CUBLAS", "cuBLAS", "HIP", "NCCL", "MPS")


@contextmanager
def device_watched(
    device: torch.device, *, kept: str = "the checkpoint of the last epoch is kept"
) -> Iterator[None]:
    """Raise what a failing device raises as a `TrainingError` that says what to do.

    Out of memory is another matter and passes.

    Parameters
    ----------
    device : torch.device
        Which.
    kept : str
        What there is to go on from.

    Raises
    ------
    TrainingError
        If the device was lost or its driver reports an error.
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
    if isinstance(error, torch.AcceleratorError):
        return True
    return isinstance(error, RuntimeError) and str(error).startswith(_DRIVERS)
