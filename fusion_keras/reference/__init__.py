"""Every fusion variant in plain PyTorch: what our models must equal, and outrun.

Import this before keras-hub, which imports TensorFlow. TensorFlow and Triton, a part of PyTorch for
CUDA, each bring an LLVM, and the process dies when Triton's comes second; and PyTorch finds
TensorFlow's stand-ins for the CUDA runtime in place of its own when those are there first.
"""

import contextlib

import torch  # noqa: F401

with contextlib.suppress(ImportError):  # PyTorch for CPUs has none
    import triton  # noqa: F401
