"""Global average pooling, a linear layer and the mean softmax cross-entropy: the end of a classifier as one op.

x (N, H, W, C), w (C, K), labels (N,) integers in 0..K-1, b (K,) or None; s is the label smoothing.

    m  = 1/(H W) sum_hw x                                    (N, C)
    z  = m w + b                                             (N, K), the logits
    y  = mean softmax cross-entropy of z against the labels  one number
    dz = dy (softmax(z) - t) / N                             with t as in `softmax_cross_entropy`
    dx = dz w^T / (H W) at every place, dw = m^T dz, db = sum_n dz_n

Between x and y, and between dy and dx, nothing is rounded to a type of 16 bits. Source: the three ops.
"""

from fastnet.arrays import accumulator, require_float
from fastnet.ops import global_avg_pool, linear, softmax_cross_entropy
from fastnet.ops._windows import require_images

NAME = "pooled_softmax_cross_entropy"


def forward(x, w, labels, b=None, *, label_smoothing=0.0):
    """Return the mean loss as a 0-d array. Raises TypeError or ValueError for what does not fit."""
    _check(x, w, labels, b, label_smoothing)
    means, shape = global_avg_pool.forward(x.astype(accumulator(x.dtype), copy=False))
    z, product = linear.forward(means, w, b)
    y, softmax = softmax_cross_entropy.forward(z, labels, label_smoothing=label_smoothing)
    return y.astype(x.dtype, copy=False), (shape, product, softmax, x.dtype)


def backward(dy, cache, needs=None):
    shape, product, softmax, dtype = cache
    needs_x, needs_w, _, needs_b = needs or (True,) * 4
    dz, _ = softmax_cross_entropy.backward(dy, softmax)
    dmeans, dw, db = linear.backward(dz, product, (needs_x, needs_w, needs_b))
    dx = global_avg_pool.backward(dmeans, shape)[0].astype(dtype, copy=False) if needs_x else None
    return dx, dw, None, db


def _check(x, w, labels, b, label_smoothing):
    require_float(NAME, x=x, w=w, b=b)
    require_images(NAME, x)
    if w.ndim != 2 or w.shape[0] != x.shape[3]:
        raise ValueError(f"{NAME}: x has {x.shape[3]} channels but w is {w.shape}: channels, classes")
    if b is not None and b.shape != w.shape[1:]:
        raise ValueError(f"{NAME}: b is {b.shape} but w has {w.shape[1]} classes (w is {w.shape}: channels, classes)")
    softmax_cross_entropy.check(NAME, (len(x), w.shape[1]), labels, label_smoothing)
