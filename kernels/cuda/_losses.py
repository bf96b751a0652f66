"""What the losses share: `loss.cuh` has their kernels' common parts, `fastnet.ops._targets` what targets mean.

To look for a label that is no class would make the host wait for the device, so such a label makes the loss NaN.
"""

import numpy as np

from fastnet.arrays import accumulator
from fastnet.kernels.cuda._arrays import contiguous, empty, on_device, supported
from fastnet.kernels.cuda._launch import Kernel

_MEAN = Kernel("loss", "loss_mean")


def supports(x, targets, reduction):
    labels = targets.dtype.kind in "iu"
    return (supported(x, None if labels else targets) and on_device(targets) and x.ndim == 2 and x.size > 0
            and targets.shape == (x.shape[:1] if labels else x.shape) and reduction in ("mean", "sample_mean"))


def forward(terms, x, targets, reduction, *options):
    """The loss, and the cache of `backward`. `terms` sums the terms of a block into one number."""
    labels = targets.dtype.kind in "iu"
    x, targets = contiguous(x), contiguous(targets.astype("int64", copy=False) if labels else targets)
    given = (None, targets) if labels else (targets, None)
    blocks = terms.grid_for(x.size)
    sums = empty(x, (blocks,), accumulator(x.dtype))
    terms(blocks, x, *given, sums, x.size, x.shape[1], *options)
    divisor = x.size if reduction == "mean" else len(x)
    return mean(sums, x, divisor), (x, *given, divisor, options)


def backward(slopes, dy, cache, needs):
    x, dense, labels, divisor, options = cache
    needs_x, needs_targets = needs or (True, True)
    dx = empty(x) if needs_x else None
    dt = empty(dense) if needs_targets and dense is not None else None
    if dx is not None or dt is not None:
        slopes(slopes.grid_for(x.size), x, dense, labels, *upstream(dy), divisor, dx, dt, x.size, x.shape[1], *options)
    return dx, dt


def mean(sums, x, divisor):
    """The sum of `sums` over `divisor`, a 0-d array of x's type."""
    loss = empty(x, ())
    _MEAN(1, sums, loss, len(sums), divisor)
    return loss


def upstream(dy):
    """dy as the kernels take it: an array with a number on the device, which need not come here, or else a number."""
    return (None, dy) if isinstance(dy, (int, float, np.number)) else (dy, 0)
