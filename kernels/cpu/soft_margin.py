"""Soft-margin loss as in `fastnet.ops.soft_margin`: one pass over the logits each way."""

from numba import prange

from fastnet.kernels.cpu import _targets
from fastnet.kernels.cpu._jit import parallel_kernel
from fastnet.kernels.cpu._logistic import sigmoid
from fastnet.kernels.cpu._transcendental import exp, log1p


def supports(x, targets, *, reduction="mean"):
    return _targets.supports(x, targets, reduction)


def forward(x, targets, *, reduction="mean"):
    return _targets.forward(_forward, x, targets, reduction, off=-1)


def backward(dy, cache, needs=None):
    x, t, slope, needs_x, needs_targets = _targets.backward(_backward, dy, cache, needs)
    return t * slope if needs_x else None, x * slope if needs_targets else None


@parallel_kernel(cost=10)
def _forward(x, t, losses, width):
    zero = x.dtype.type(0)
    for i in prange(x.size):
        margin = t[i] * x[i]
        losses[i] = (-margin if margin < zero else zero) + log1p(exp(-abs(margin)))
    return _targets.total(losses, width)


@parallel_kernel(cost=6)
def _backward(x, t, scale, slope):
    one = x.dtype.type(1)
    for i in prange(x.size):
        slope[i] = -sigmoid(-t[i] * x[i], one) * scale
