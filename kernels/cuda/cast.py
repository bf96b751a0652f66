"""Another floating type as in `fastnet.functions.cast`, between a 16-bit type and float32."""

import numpy as np

from fastnet.arrays import accumulator
from fastnet.kernels.cuda._arrays import contiguous, empty, supported
from fastnet.kernels.cuda._launch import Kernel, storage

_WIDEN, _NARROW = Kernel("cast", "cast_widen"), Kernel("cast", "cast_narrow")


def supports(x, *, dtype):
    given, wanted = x.dtype, np.dtype(dtype)
    return supported(x) and x.size > 0 and (given == wanted or (
        np.dtype(np.float32) in (given, wanted) and accumulator(given) == accumulator(wanted)
        and storage(wanted) is not None))


def run(x, *, dtype):
    if x.dtype == dtype:
        return x
    x, y = contiguous(x), empty(x, dtype=np.dtype(dtype))
    kernel = _WIDEN if y.dtype == accumulator(x.dtype) else _NARROW
    kernel(kernel.grid_for(x.size), x, y, x.size)
    return y
