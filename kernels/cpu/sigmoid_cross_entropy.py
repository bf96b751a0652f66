"""Binary cross-entropy of logits as in `fastnet.ops.sigmoid_cross_entropy`: one pass over the logits each way."""

import math

from numba import prange

from fastnet.kernels.cpu import _targets
from fastnet.kernels.cpu._jit import parallel_kernel
from fastnet.kernels.cpu._logistic import sigmoid


def supports(x, targets, *, reduction="mean"):
    return _targets.supports(x, targets, reduction)


def forward(x, targets, *, reduction="mean"):
    return _targets.forward(_forward, x, targets, reduction)


def backward(dy, cache, needs=None):
    x, _, slope, needs_x, needs_targets = _targets.backward(_backward, dy, cache, needs)
    dtargets = x * x.dtype.type(-float(dy) / cache[-2]) if needs_targets else None
    return slope if needs_x else None, dtargets


@parallel_kernel(cost=16)
def _forward(x, t, rows):
    zero = x.dtype.type(0)
    for i in prange(len(x)):
        total = 0.0
        for k in range(x.shape[1]):
            positive = zero if x[i, k] < zero else x[i, k]
            total += (positive - t[i, k] * x[i, k]) + math.log1p(math.exp(-abs(x[i, k])))
        rows[i] = total


@parallel_kernel(cost=16)
def _backward(x, t, scale, slope):
    one = x.dtype.type(1)
    for i in prange(len(x)):
        for k in range(x.shape[1]):
            slope[i, k] = (sigmoid(x[i, k], one) - t[i, k]) * scale
