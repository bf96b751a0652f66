"""Philox4x32-10 for use inside Numba's kernels; `fastnet.functions.philox` explains the counter's words."""

import numpy as np
from numba import cuda

from fastnet.functions.philox import MULTIPLIERS, WEYL

_M0, _M1 = (np.uint64(m) for m in MULTIPLIERS)
_W0, _W1 = (np.uint64(w) for w in WEYL)
_LOW = np.uint64(0xFFFFFFFF)
_HALF = np.uint64(32)


@cuda.jit(device=True)
def philox(block, sample, epoch, stream, key0, key1):
    """One block of four 32-bit words, each in a uint64: Numba widens mixed integers, so all are kept wide."""
    c0, c1, c2, c3 = np.uint64(block), np.uint64(sample), np.uint64(epoch), np.uint64(stream)
    k0, k1 = np.uint64(key0), np.uint64(key1)
    for _ in range(10):
        first, second = c0 * _M0, c2 * _M1
        c0, c1, c2, c3 = (second >> _HALF) ^ c1 ^ k0, second & _LOW, (first >> _HALF) ^ c3 ^ k1, first & _LOW
        k0, k1 = (k0 + _W0) & _LOW, (k1 + _W1) & _LOW
    return c0, c1, c2, c3
