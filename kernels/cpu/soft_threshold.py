"""Soft thresholding as in `fastnet.functions.soft_threshold`: one pass over the vector."""

import math

from numba import prange

from fastnet.kernels.cpu import _update
from fastnet.kernels.cpu._jit import parallel_kernel


def supports(w, *, threshold):
    return _update.supports(w)


def run(w, *, threshold):
    _step(w, w.dtype.type(threshold))


@parallel_kernel()
def _step(w, threshold):
    for i in prange(w.size):
        if abs(w[i]) <= threshold:
            w[i] = 0
        else:
            w[i] -= math.copysign(threshold, w[i])
