"""Mean softmax cross-entropy as in `fastnet.ops.softmax_cross_entropy`: one pass over the logits each way."""

import math

import numpy as np
from numba import prange

from fastnet.arrays import contiguous, empty, require_labels
from fastnet.kernels.cpu._jit import is_float, parallel_kernel

ROWS = 256  # rows a block


def supports(x, labels, *, label_smoothing=0.0):
    return (x.ndim == 2 and x.size > 0 and is_float(x) and labels.dtype.kind in "iu" and labels.shape == x.shape[:1]
            and 0 <= label_smoothing < 1)


def forward(x, labels, *, label_smoothing=0.0):
    x, labels = contiguous(x), np.ascontiguousarray(labels, np.int64)
    p = empty(x.shape, x.dtype)
    loss = mean_loss(x, labels, label_smoothing, p)
    if loss < 0:  # the kernel met a label that is no column
        require_labels("softmax_cross_entropy", labels, *x.shape)
    return np.asarray(loss, x.dtype), (p, labels, label_smoothing)


def backward(dy, cache, needs=None):
    if needs is not None and not needs[0]:
        return None, None
    p, labels, label_smoothing = cache
    dx = empty(p.shape, p.dtype)
    mean_loss_backward(p, float(dy), labels, label_smoothing, dx)
    return dx, None


@parallel_kernel(cost=16)
def mean_loss(x, labels, smoothing, p):
    n, classes = x.shape
    for i in range(n):
        if labels[i] < 0 or labels[i] >= classes:
            return -1.0
    losses = np.empty(n, np.float64)
    for block in prange((n + ROWS - 1) // ROWS):
        for i in range(block * ROWS, min(n, (block + 1) * ROWS)):
            top = x[i, 0]
            for k in range(1, classes):
                if x[i, k] > top:
                    top = x[i, k]
            total, sum_shifted = 0.0, 0.0
            for k in range(classes):
                shifted = x[i, k] - top
                sum_shifted += shifted
                p[i, k] = math.exp(shifted)
                total += p[i, k]
            for k in range(classes):
                p[i, k] /= total
            at_label = x[i, labels[i]] - top
            losses[i] = math.log(total) - (1 - smoothing) * at_label - smoothing * (sum_shifted / classes)
    loss = 0.0
    for i in range(n):
        loss += losses[i]
    return loss / n


@parallel_kernel(cost=16)
def mean_loss_backward(p, dy, labels, smoothing, dx):
    n, classes = p.shape
    rest = smoothing / classes
    for block in prange((n + ROWS - 1) // ROWS):
        for i in range(block * ROWS, min(n, (block + 1) * ROWS)):
            for k in range(classes):
                dx[i, k] = dy * (p[i, k] - rest) / n
            dx[i, labels[i]] -= dy * (1 - smoothing) / n
