"""What the loss kernels share; `fastnet.ops._targets` has the meaning of targets and reductions.

A kernel gets dense targets and fills one float64 sum a row. NumPy adds those up in an order that depends on their
number alone, so the loss has the same bits for any number of threads.
"""

import numpy as np

from fastnet.arrays import one_hot
from fastnet.kernels.cpu._jit import is_float


def supports(x, targets, reduction):
    if x.ndim != 2 or x.size == 0 or not is_float(x) or reduction not in ("mean", "sample_mean"):
        return False
    if targets.dtype.kind in "iu":
        return targets.shape == x.shape[:1] and bool(targets.min() >= 0) and bool(targets.max() < x.shape[1])
    return targets.shape == x.shape and targets.dtype == x.dtype


def forward(kernel, x, targets, reduction, *options, off=0):
    """Run `kernel(x, t, *options, rows)`; return the loss and what backward needs.

    Dense targets are kept even where labels were given: they are as small as the logits.
    """
    labels = targets.dtype.kind in "iu"
    t = one_hot(targets, x.shape[1], x.dtype, off) if labels else np.ascontiguousarray(targets)
    x = np.ascontiguousarray(x)
    rows = np.empty(len(x), np.float64)
    kernel(x, t, *options, rows)
    count = x.size if reduction == "mean" else len(x)
    return np.asarray(rows.sum() / count, x.dtype), (x, t, *options, count, not labels)


def backward(kernel, dy, cache, needs):
    """Run `kernel(x, t, *options, scale, slope)`; return x, t, the slope and which gradients are needed."""
    *arguments, count, dense = cache
    x, t = arguments[:2]
    needs_x, needs_targets = needs or (True, True)
    slope = np.empty_like(x)
    kernel(*arguments, x.dtype.type(float(dy) / count), slope)
    return x, t, slope, needs_x, needs_targets and dense
