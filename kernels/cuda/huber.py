"""Huber's loss as in `fastnet.ops.huber`; `_losses` says what a wrong label does."""

from fastnet.kernels.cuda import _losses
from fastnet.kernels.cuda._launch import Kernel

_TERMS, _SLOPES = Kernel("huber", "huber_terms"), Kernel("huber", "huber_slopes")


def supports(x, targets, *, delta=1.0, reduction="mean"):
    return _losses.supports(x, targets, reduction) and delta > 0


def forward(x, targets, *, delta=1.0, reduction="mean"):
    return _losses.forward(_TERMS, x, targets, reduction, delta)


def backward(dy, cache, needs=None):
    return _losses.backward(_SLOPES, dy, cache, needs)
