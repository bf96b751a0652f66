"""Binary cross-entropy of logits as in `fastnet.ops.sigmoid_cross_entropy`: one pass over the logits each way."""

from numba import prange

from fastnet.kernels.cpu import _targets
from fastnet.kernels.cpu._jit import parallel_kernel
from fastnet.kernels.cpu._logistic import sigmoid
from fastnet.kernels.cpu._transcendental import exp, log1p


def supports(x, targets, *, reduction="mean"):
    return _targets.supports(x, targets, reduction)


def forward(x, targets, *, reduction="mean"):
    return _targets.forward(_forward, x, targets, reduction)


def backward(dy, cache, needs=None):
    x, _, slope, needs_x, needs_targets = _targets.backward(_backward, dy, cache, needs)
    dtargets = x * x.dtype.type(-float(dy) / cache[-2]) if needs_targets else None
    return slope if needs_x else None, dtargets


@parallel_kernel(cost=10)
def _forward(x, t, losses, width):
    zero = x.dtype.type(0)
    for i in prange(x.size):
        positive = zero if x[i] < zero else x[i]
        losses[i] = (positive - t[i] * x[i]) + log1p(exp(-abs(x[i])))
    return _targets.total(losses, width)


@parallel_kernel(cost=6)
def _backward(x, t, scale, slope):
    one = x.dtype.type(1)
    for i in prange(x.size):
        slope[i] = (sigmoid(x[i], one) - t[i]) * scale
