"""Soft-margin loss as in `fastnet.ops.soft_margin`: one pass over the logits each way."""

import math

from numba import prange

from fastnet.kernels.cpu import _targets
from fastnet.kernels.cpu._jit import parallel_kernel
from fastnet.kernels.cpu._logistic import sigmoid


def supports(x, targets, *, reduction="mean"):
    return _targets.supports(x, targets, reduction)


def forward(x, targets, *, reduction="mean"):
    return _targets.forward(_forward, x, targets, reduction, off=-1)


def backward(dy, cache, needs=None):
    x, t, slope, needs_x, needs_targets = _targets.backward(_backward, dy, cache, needs)
    return t * slope if needs_x else None, x * slope if needs_targets else None


@parallel_kernel(cost=16)
def _forward(x, t, rows):
    zero = x.dtype.type(0)
    for i in prange(len(x)):
        total = 0.0
        for k in range(x.shape[1]):
            margin = t[i, k] * x[i, k]
            total += (-margin if margin < zero else zero) + math.log1p(math.exp(-abs(margin)))
        rows[i] = total


@parallel_kernel(cost=16)
def _backward(x, t, scale, slope):
    one = x.dtype.type(1)
    for i in prange(len(x)):
        for k in range(x.shape[1]):
            slope[i, k] = -sigmoid(-t[i, k] * x[i, k], one) * scale
