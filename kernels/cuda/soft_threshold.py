"""Soft thresholding as in `fastnet.functions.soft_threshold`: one launch over the vector."""

import math

from numba import cuda

from fastnet.kernels.cuda import _update
from fastnet.kernels.cuda._update import launch


def supports(w, *, threshold):
    return _update.supports(w)


def run(w, *, threshold):
    launch(_step, w, w.dtype.type(threshold))


@cuda.jit
def _step(w, threshold):
    for i in range(cuda.grid(1), w.size, cuda.gridsize(1)):
        if abs(w[i]) <= threshold:
            w[i] = 0
        else:
            w[i] -= math.copysign(threshold, w[i])
