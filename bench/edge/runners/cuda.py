"""The CUDA runtime by ctypes: memory, copies, a stream and events; no package is needed.

Functions and enumerations: CUDA Runtime API, docs.nvidia.com/cuda/cuda-runtime-api.
"""

from __future__ import annotations

import ctypes
import sys
from ctypes import POINTER, byref, c_char_p, c_float, c_int, c_size_t, c_void_p
from pathlib import Path

import numpy as np

from bench.edge.artifact import ArtifactError

# Function -> arguments. Each returns a cudaError_t, 0 for success.
SIGNATURES = {
    "cudaMalloc": (POINTER(c_void_p), c_size_t),
    "cudaFree": (c_void_p,),
    "cudaMallocHost": (POINTER(c_void_p), c_size_t),
    "cudaFreeHost": (c_void_p,),
    "cudaMemcpyAsync": (c_void_p, c_void_p, c_size_t, c_int, c_void_p),
    "cudaStreamCreate": (POINTER(c_void_p),),
    "cudaStreamSynchronize": (c_void_p,),
    "cudaStreamDestroy": (c_void_p,),
    "cudaEventCreate": (POINTER(c_void_p),),
    "cudaEventRecord": (c_void_p, c_void_p),
    "cudaEventSynchronize": (c_void_p,),
    "cudaEventElapsedTime": (POINTER(c_float), c_void_p, c_void_p),
    "cudaEventDestroy": (c_void_p,),
}
# cudaMemcpyKind
TO_DEVICE, TO_HOST = 1, 2
_NAMES = ("libcudart.so", "libcudart.so.13", "libcudart.so.12", "libcudart.so.11.0")
_FOLDER = Path("/usr/local/cuda/lib64")


def load() -> ctypes.CDLL:
    """The CUDA runtime, with its functions' arguments declared.

    Raises:
        ArtifactError: there is none.
    """
    library = next(filter(None, map(_open, _places())), None)
    if library is None:
        raise ArtifactError(
            "The CUDA runtime (libcudart.so) is not installed here. A Jetson has it with JetPack "
            "(sudo apt install nvidia-jetpack); elsewhere: pip install nvidia-cuda-runtime."
        )
    for name, arguments in SIGNATURES.items():
        function = getattr(library, name)
        function.argtypes, function.restype = arguments, c_int
    library.cudaGetErrorString.argtypes = (c_int,)
    library.cudaGetErrorString.restype = c_char_p
    return library


def _places() -> list[str]:
    """Where the loader looks, CUDA's own folder, and what pip installed."""
    installed = [
        path
        for folder in sys.path
        for path in sorted(Path(folder or ".").glob("nvidia/*/lib/libcudart.so.*"))
    ]
    return [*_NAMES, *(str(p) for p in [*(_FOLDER / n for n in _NAMES), *installed])]


def _open(name: str) -> ctypes.CDLL | None:
    try:
        return ctypes.CDLL(name)
    except OSError:
        return None


class Cuda:
    """A stream, two events, and memory that lasts until `close`."""

    def __init__(self):
        """Raises ArtifactError: no CUDA runtime, no driver, no GPU."""
        self._library = load()
        self._freed_by = []  # (function, pointer), in order of their making
        try:
            self.stream = self._made("cudaStreamCreate", "cudaStreamDestroy")
            self._begin = self._made("cudaEventCreate", "cudaEventDestroy")
            self._end = self._made("cudaEventCreate", "cudaEventDestroy")
        except ArtifactError:
            self.close()
            raise

    def device(self, size: int) -> int:
        """Address of `size` bytes on the GPU."""
        return self._made("cudaMalloc", "cudaFree", size)

    def pinned(self, shape: tuple[int, ...], dtype) -> np.ndarray:
        """Host memory that the GPU copies from and to by itself, as an array; not set."""
        size = int(np.prod(shape)) * np.dtype(dtype).itemsize
        address = self._made("cudaMallocHost", "cudaFreeHost", size)
        memory = (ctypes.c_byte * size).from_address(address)
        return np.frombuffer(memory, dtype).reshape(shape)

    def to_device(self, address: int, array: np.ndarray) -> None:
        """Queue a copy of a pinned array."""
        size = array.nbytes
        self._call("cudaMemcpyAsync", address, array.ctypes.data, size, TO_DEVICE, self.stream)

    def to_host(self, array: np.ndarray, address: int) -> None:
        """Queue a copy into a pinned array."""
        size = array.nbytes
        self._call("cudaMemcpyAsync", array.ctypes.data, address, size, TO_HOST, self.stream)

    def begin(self) -> None:
        """Queue the event from which `milliseconds` counts."""
        self._call("cudaEventRecord", self._begin, self.stream)

    def end(self) -> None:
        """Queue the event to which `milliseconds` counts."""
        self._call("cudaEventRecord", self._end, self.stream)

    def wait(self) -> None:
        """Until everything that was queued is done."""
        self._call("cudaStreamSynchronize", self.stream)

    def milliseconds(self) -> float:
        """Between the last `begin` and `end`, by the GPU's clock; both must have passed."""
        milliseconds = c_float()
        self._call("cudaEventElapsedTime", byref(milliseconds), self._begin, self._end)
        return milliseconds.value

    def close(self) -> None:
        """Free everything; arrays of `pinned` must not be touched any more."""
        while self._freed_by:
            function, pointer = self._freed_by.pop()
            getattr(self._library, function)(pointer)

    def _made(self, function: str, freed_by: str, *arguments) -> int:
        pointer = c_void_p()
        self._call(function, byref(pointer), *arguments)
        self._freed_by.append((freed_by, pointer.value))
        return pointer.value

    def _call(self, function: str, *arguments) -> None:
        code = getattr(self._library, function)(*arguments)
        if code:
            reason = self._library.cudaGetErrorString(code).decode()
            raise ArtifactError(
                f"CUDA does not work here, {function} says: {reason} ({code}). Check that "
                "nvidia-smi (on a Jetson: tegrastats) sees a GPU and that other work leaves it "
                "memory."
            )
