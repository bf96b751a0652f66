"""Averaging of the weights as in `fastnet.functions.average_update`: one pass over the vectors."""

from numba import prange

from fastnet.kernels.cpu._jit import is_float, parallel_kernel


def supports(average, w, *, decay):
    return is_float(average, w) and all(a.ndim == 1 and a.flags.c_contiguous and a.size == w.size for a in (average, w))


def run(average, w, *, decay):
    _update(average, w, average.dtype.type(1 - decay))


@parallel_kernel(cost=2)
def _update(average, w, share):
    for i in prange(w.size):
        average[i] += share * (w[i] - average[i])
