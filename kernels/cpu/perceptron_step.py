"""A perceptron's pass forward and backward as in `fastnet.functions.perceptron_step`, in one compiled call.

It calls what the three ops call, in the same order, so the bits are theirs.
"""

import numpy as np

from fastnet.arrays import contiguous, empty, rehearsing, require_labels
from fastnet.kernels.cpu import _linear, softmax_cross_entropy
from fastnet.kernels.cpu._gemm import SCALARS
from fastnet.kernels.cpu._jit import PARALLEL_WORK, is_float, kernel
from fastnet.kernels.cpu.perceptron import backward_layers, forward_layers, statistics_of, table_of
from fastnet.shapes import ABSENT, fits


def supports(x, labels, vector, gradient, *, layers, label_smoothing=0.0):
    return (x.ndim == 2 and vector.ndim == 1 and vector.shape == gradient.shape and is_float(x, vector, gradient)
            and len(x) > 0 and labels.dtype.kind in "iu" and labels.shape == x.shape[:1] and 0 <= label_smoothing < 1
            and vector.flags.c_contiguous and gradient.flags.c_contiguous
            and len(layers) > 1 and layers[0].features == x.shape[1] and layers[0].gamma == ABSENT
            and fits(layers, vector.size) and _linear.work(x.shape, layers[0].outputs) >= PARALLEL_WORK
            and len(x) * layers[0].outputs <= _linear.SHORT)


def run(x, labels, vector, gradient, *, layers, label_smoothing=0.0):
    x, labels = contiguous(x), np.ascontiguousarray(labels, np.int64)
    table, eps, columns = table_of(layers[1:])
    n, dtype = len(x), x.dtype
    classes, first, (w, b) = layers[-1].outputs, layers[0].outputs, layers[0][2:4]
    z, dz, inner, y = (empty((n, size) if size == first else n * size, dtype)
                       for size in (first, first, columns, columns))
    found, scratch = empty(3 * columns, dtype), empty((2, n * columns), dtype)
    logits, p = empty((n, classes), dtype), empty((n, classes), dtype)
    forward, backward = _linear.workspace(x, first), _linear.workspace_backward(x, first)
    loss = 0.0
    if not rehearsing():
        loss = _run(x, labels, vector, gradient, w, b, table, eps, label_smoothing, forward, backward, z, dz, inner, y,
                    found, scratch, logits, p, SCALARS[dtype])
    if loss < 0:  # the kernel met a label that is no column
        require_labels("softmax_cross_entropy", labels, n, classes)
    return np.asarray(loss, dtype), logits, statistics_of(layers[1:], found)


@kernel()
def _run(x, labels, vector, gradient, w, b, table, eps, smoothing, forward, backward, z, dz, inner, y, found, scratch,
         logits, p, scalars):
    d, k = x.shape[1], z.shape[1]
    length, skinny, memory, size, partial = forward
    bias = vector[b : b + k] if b >= 0 else np.zeros(k, x.dtype)
    _product(x, vector[w : w + d * k].reshape((d, k)), bias, False, length, skinny, memory, size, partial, z, scalars)
    forward_layers(z, vector, table, eps, y, inner, found, logits, scalars)
    loss = _loss(logits, labels, smoothing, p)
    if loss < 0:
        return loss
    _loss_backward(p, 1.0, labels, smoothing, p)  # in place: each entry is read before it is written
    backward_layers(p, z, vector, table, y, inner, found, scratch, dz, gradient, scalars)
    length, skinny, memory, size = backward
    _product_backward(x, vector[w : w + d * k].reshape((d, k)), z, dz, False, b >= 0, False, True, length, skinny,
                      memory, size, dz, gradient[:0].reshape((0, 1)), gradient[w : w + d * k].reshape((d, k)),
                      gradient[b : b + k], scalars)
    return loss


_product, _product_backward = _linear.product.parallel, _linear.products_backward.parallel
_loss, _loss_backward = softmax_cross_entropy.mean_loss.serial, softmax_cross_entropy.mean_loss_backward.serial
