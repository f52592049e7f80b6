"""What has to be seen to before torch is imported."""

from __future__ import annotations

import importlib
import os
import sys
from importlib.util import find_spec

from sonoloop.errors import check_installed

_NEEDED = ("torch", "timm", "segmentation_models_pytorch", "safetensors")


def before_torch() -> None:
    """Refuse to go on where torch is not installed; where it is, load triton apart."""
    check_installed(_NEEDED, "torch")
    _load_triton_apart()


def _load_triton_apart() -> None:
    """Load triton so that it takes its own LLVM.

    On Linux, torch brings triton, whose library holds an LLVM of its own. Where Mesa has loaded another one
    to draw napari's canvas (llvmpipe, radeonsi), triton's symbols bind to that, and importing torch ends the
    process.
    """
    if sys.platform != "linux" or "torch" in sys.modules or find_spec("triton") is None:
        return
    flags = sys.getdlopenflags()
    sys.setdlopenflags(flags | os.RTLD_DEEPBIND)
    try:
        importlib.import_module("triton._C.libtriton")
    except ImportError:
        return  # torch does without it too
    finally:
        sys.setdlopenflags(flags)
