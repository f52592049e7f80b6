"""Two copies of LLVM in one process: the graphics driver's and that of torch's compiler."""

from __future__ import annotations

import importlib
import os
import sys
from importlib.util import find_spec


def load_triton_apart() -> None:
    """Load triton so that it takes its own LLVM; to be called before torch is imported.

    On Linux, torch brings triton, whose library holds an LLVM of its own. Where Mesa has loaded another one
    to draw the canvas (llvmpipe, radeonsi), triton's symbols bind to that, and importing torch ends the
    process.
    """
    if sys.platform != "linux" or find_spec("triton") is None:
        return
    flags = sys.getdlopenflags()
    sys.setdlopenflags(flags | os.RTLD_DEEPBIND)
    try:
        importlib.import_module("triton._C.libtriton")
    except ImportError:
        return  # torch does without it too
    finally:
        sys.setdlopenflags(flags)
