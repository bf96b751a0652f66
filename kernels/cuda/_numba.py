"""The launcher of the kernels that are written in Python: Numba-CUDA, for what is plain arithmetic entry by entry.

Numba compiles a kernel at its first call, for the types of its arguments: NumPy's numbers keep theirs, Python's are 64
bits wide. In Numba's simulator (NUMBA_ENABLE_CUDASIM=1) kernels run as Python, which the tests do without a GPU.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numba import cuda

from fastnet.arrays import array_module

try:
    from numba.cuda.core import config
except ImportError as error:  # what Numba itself has under this name is older
    raise ImportError(f"CUDA kernels in Python need the package numba-cuda, which is missing ({error}): "
                      "pip install 'fastnet[cuda12]' or 'fastnet[cuda13]'") from error

FLOATS = frozenset(map(np.dtype, (np.float32, np.float64)))


class Library(NamedTuple):
    """How the arrays of a library come into a kernel: as what Numba takes, on which stream."""

    taken: Callable[[Any], Any]
    stream: Callable[[], Any]


def _cupy_stream():
    import cupy

    return _stream(cupy.cuda.get_current_stream().ptr)


@functools.cache
def _stream(pointer):
    return cuda.external_stream(pointer) if pointer else 0


# Without waiting for what is still to fill the array: kernels run on the same stream, and so in order.
LIBRARIES = {"cupy": Library(lambda x: cuda.as_cuda_array(x, sync=False), _cupy_stream)}


def supported(*arrays):
    """Whether all arrays live where these kernels run."""
    return all(array_module(a).__name__ in LIBRARIES for a in arrays)


def launch(kernel, grid, threads, *arguments):
    """Run `kernel` on `grid` blocks of `threads`; the first argument is an array, and says whose stream it is."""
    library = LIBRARIES[array_module(arguments[0]).__name__]
    given = (a if isinstance(a, (bool, int, float, np.generic)) else library.taken(a) for a in arguments)
    asked, config.CUDA_LOW_OCCUPANCY_WARNINGS = config.CUDA_LOW_OCCUPANCY_WARNINGS, 0
    try:
        configured = kernel[grid, threads, library.stream()]  # where Numba warns of few blocks: small work has no more
    finally:
        config.CUDA_LOW_OCCUPANCY_WARNINGS = asked
    configured(*given)
