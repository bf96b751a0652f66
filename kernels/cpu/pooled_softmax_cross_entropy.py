"""The end of a classifier as in `fastnet.ops.pooled_softmax_cross_entropy`: the kernels of its three ops in turn.

On a CPU one pass for all three gains nothing, so training runs the layers and the loss by themselves.
"""

from fastnet.arrays import require_labels
from fastnet.kernels.cpu import global_avg_pool, linear, softmax_cross_entropy

NAME = "pooled_softmax_cross_entropy"


def supports(x, w, labels, b=None, *, label_smoothing=0.0):
    return (global_avg_pool.supports(x) and w.ndim == 2 and linear.supports(x[:, 0, 0], w, b)
            and softmax_cross_entropy.supports(x[:, 0, 0], labels, label_smoothing=label_smoothing))


def forward(x, w, labels, b=None, *, label_smoothing=0.0):
    require_labels(NAME, labels, len(x), w.shape[1])
    means, shape = global_avg_pool.forward(x)
    z, product = linear.forward(means, w, b)
    y, softmax = softmax_cross_entropy.forward(z, labels, label_smoothing=label_smoothing)
    return y, (shape, product, softmax)


def backward(dy, cache, needs=None):
    return backward_into(dy, cache, needs, (None,) * 4)


def backward_into(dy, cache, needs, into):
    shape, product, softmax = cache
    needs_x, needs_w, _, needs_b = needs or (True,) * 4
    if not (needs_x or needs_w or needs_b):
        return (None,) * 4
    dz, _ = softmax_cross_entropy.backward(dy, softmax)
    dmeans, dw, db = linear.backward_into(dz, product, (needs_x, needs_w, needs_b), (None, into[1], into[3]))
    return global_avg_pool.backward(dmeans, shape)[0] if needs_x else None, dw, None, db
