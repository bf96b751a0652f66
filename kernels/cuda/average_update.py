"""Averaging of the weights as in `fastnet.functions.average_update`: one launch over the vectors."""

from numba import cuda

from fastnet.kernels.cuda import _update
from fastnet.kernels.cuda._update import launch


def supports(average, w, *, decay):
    return _update.supports(average, w)


def run(average, w, *, decay):
    launch(_step, average, w, average.dtype.type(1 - decay))


@cuda.jit
def _step(average, w, share):
    for i in range(cuda.grid(1), average.size, cuda.gridsize(1)):
        average[i] += share * (w[i] - average[i])
