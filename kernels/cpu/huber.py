"""Huber's loss as in `fastnet.ops.huber`: one pass over the outputs each way."""

from numba import prange

from fastnet.kernels.cpu import _targets
from fastnet.kernels.cpu._jit import parallel_kernel


def supports(x, targets, *, delta=1.0, reduction="mean"):
    return delta > 0 and _targets.supports(x, targets, reduction)


def forward(x, targets, *, delta=1.0, reduction="mean"):
    return _targets.forward(_forward, x, targets, reduction, x.dtype.type(delta))


def backward(dy, cache, needs=None):
    _, _, slope, needs_x, needs_targets = _targets.backward(_backward, dy, cache, needs)
    return slope if needs_x else None, -slope if needs_targets else None


@parallel_kernel(cost=4)
def _forward(x, t, delta, rows):
    for i in prange(len(x)):
        total = 0.0
        for k in range(x.shape[1]):
            size = abs(x[i, k] - t[i, k])
            clipped = delta if size > delta else size
            total += clipped * (size - 0.5 * clipped)
        rows[i] = total


@parallel_kernel(cost=4)
def _backward(x, t, delta, scale, slope):
    for i in prange(len(x)):
        for k in range(x.shape[1]):
            residual = x[i, k] - t[i, k]
            # Comparisons, not min() and max(): a NaN must stay one.
            clipped = delta if residual > delta else (-delta if residual < -delta else residual)
            slope[i, k] = clipped * scale
