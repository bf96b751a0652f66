"""Mean squared error as in `fastnet.ops.mean_squared_error`: one pass over the outputs each way."""

from numba import prange

from fastnet.kernels.cpu import _targets
from fastnet.kernels.cpu._jit import parallel_kernel


def supports(x, targets, *, reduction="mean"):
    return _targets.supports(x, targets, reduction)


def forward(x, targets, *, reduction="mean"):
    return _targets.forward(_forward, x, targets, reduction)


def backward(dy, cache, needs=None):
    _, _, slope, needs_x, needs_targets = _targets.backward(_backward, dy, cache, needs)
    return slope if needs_x else None, -slope if needs_targets else None


@parallel_kernel(cost=2)
def _forward(x, t, rows):
    for i in prange(len(x)):
        total = 0.0
        for k in range(x.shape[1]):
            residual = x[i, k] - t[i, k]
            total += residual * residual
        rows[i] = total


@parallel_kernel(cost=2)
def _backward(x, t, scale, slope):
    for i in prange(len(x)):
        for k in range(x.shape[1]):
            residual = x[i, k] - t[i, k]
            slope[i, k] = (residual + residual) * scale
