"""What the loss kernels share; `fastnet.ops._targets` has the meaning of targets and reductions.

A kernel gets logits and dense targets flat, fills in each entry's loss and returns their `total`, which one thread adds
up: the loss has the same bits for any number of threads.
"""

import numpy as np

from fastnet.arrays import contiguous, empty, one_hot
from fastnet.kernels.cpu._jit import is_float, kernel


def supports(x, targets, reduction):
    if x.ndim != 2 or x.size == 0 or not is_float(x) or reduction not in ("mean", "sample_mean"):
        return False
    if targets.dtype.kind in "iu":
        return targets.shape == x.shape[:1] and bool(targets.min() >= 0) and bool(targets.max() < x.shape[1])
    return targets.shape == x.shape and targets.dtype == x.dtype


def forward(kernel, x, targets, reduction, *options, off=0):
    """Run `kernel(x, t, *options, losses, width)`; return the loss and what backward needs.

    Dense targets are kept even where labels were given: they are as small as the logits.
    """
    labels = targets.dtype.kind in "iu"
    t = one_hot(targets, x.shape[1], x.dtype, off) if labels else contiguous(targets)
    x = contiguous(x)
    loss = kernel(x.reshape(-1), t.reshape(-1), *options, empty(x.size, x.dtype), x.shape[1])
    count = x.size if reduction == "mean" else len(x)
    return np.asarray(loss / count, x.dtype), (x, t, *options, count, not labels)


def backward(kernel, dy, cache, needs):
    """Run `kernel(x, t, *options, scale, slope)`; return x, t, the slope and which gradients are needed."""
    x, t, *options, count, dense = cache
    needs_x, needs_targets = needs or (True, True)
    slope = empty(x.shape, x.dtype)
    kernel(x.reshape(-1), t.reshape(-1), *options, x.dtype.type(float(dy) / count), slope.reshape(-1))
    return x, t, slope, needs_x, needs_targets and dense


@kernel()
def total(losses, width):
    """The sum of the losses, of rows of `width`, in float64: one row's sum need not wait for another's."""
    every = 0.0
    for start in range(0, losses.size, width):
        row = 0.0
        for k in range(start, start + width):
            row += losses[k]
        every += row
    return every
