"""Mean softmax cross-entropy as in `fastnet.ops.softmax_cross_entropy`, but for one thing.

To look for a label that is no class would make the host wait for the device, so such a label makes the loss NaN.
"""

import numpy as np

from fastnet.arrays import accumulator
from fastnet.kernels.cuda._arrays import contiguous, empty, on_device, supported
from fastnet.kernels.cuda._launch import WARP, Kernel

_ROWS, _MEAN, _BACKWARD = (Kernel("softmax_cross_entropy", f"softmax_cross_entropy_{name}")
                           for name in ("rows", "mean", "backward"))


def supports(x, labels, *, label_smoothing=0.0):
    return (supported(x) and on_device(labels) and x.ndim == 2 and x.size > 0 and labels.dtype.kind in "iu"
            and labels.shape == x.shape[:1] and 0 <= label_smoothing < 1)


def forward(x, labels, *, label_smoothing=0.0):
    x, labels = contiguous(x), contiguous(labels.astype("int64", copy=False))
    precise = accumulator(x.dtype)
    p, losses, loss = empty(x, dtype=precise), empty(x, x.shape[:1], precise), empty(x, ())
    _ROWS(_ROWS.grid_for(len(x) * WARP), x, labels, label_smoothing, p, losses, *x.shape)
    _MEAN(1, losses, loss, len(x))
    return loss, (p, labels, label_smoothing, x.dtype)


def backward(dy, cache, needs=None):
    if needs is not None and not needs[0]:
        return None, None
    p, labels, label_smoothing, dtype = cache
    dx = empty(p, dtype=dtype)
    known = isinstance(dy, (int, float, np.number))  # else a number on the device, which need not come here
    _BACKWARD(_BACKWARD.grid_for(p.size), p, labels, None if known else dy, dy if known else 0, label_smoothing, dx,
              *p.shape)
    return dx, None
