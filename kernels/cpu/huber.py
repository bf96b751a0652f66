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
def _forward(x, t, delta, losses, width):
    half = x.dtype.type(0.5)
    for i in prange(x.size):
        size = abs(x[i] - t[i])
        clipped = delta if size > delta else size
        losses[i] = clipped * (size - half * clipped)
    return _targets.total(losses, width)


@parallel_kernel(cost=4)
def _backward(x, t, delta, scale, slope):
    for i in prange(x.size):
        residual = x[i] - t[i]
        # Comparisons, not min() and max(): a NaN must stay one.
        clipped = delta if residual > delta else (-delta if residual < -delta else residual)
        slope[i] = clipped * scale
