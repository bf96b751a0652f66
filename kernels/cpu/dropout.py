"""Inverted dropout as in `fastnet.ops.dropout`. The random words are made where they are used, four at a time."""

import numpy as np
from numba import prange

from fastnet.arrays import contiguous, empty
from fastnet.functions.philox import split_key
from fastnet.kernels.cpu._jit import is_float, parallel_kernel
from fastnet.kernels.cpu._philox import philox


def supports(x, samples, *, p, key):
    return (x.ndim >= 1 and x.size > 0 and is_float(x) and samples.dtype.kind in "iu" and samples.shape == x.shape[:1]
            and 0 <= p < 1 and len(key) == 3
            and 0 <= key[0] < 2**64 and 0 <= key[1] < 2**32 and 0 <= key[2] < 2**32)


def forward(x, samples, *, p, key):
    cache = (np.ascontiguousarray(samples, np.int64), p, key)
    return _masked(x, *cache), cache


def backward(dy, cache, needs=None):
    if needs is not None and not needs[0]:
        return None, None
    return _masked(dy, *cache), None


def _masked(x, samples, p, key):
    seed, stream, epoch = key
    y = empty(x.shape, x.dtype)
    threshold = min(round(p * 2**32), 2**32 - 1)
    _mask(contiguous(x).reshape(len(x), -1), samples, epoch, stream, *split_key(seed), np.uint64(threshold),
          x.dtype.type(1 / (1 - p)), y.reshape(len(x), -1))
    return y


@parallel_kernel(cost=2)
def _mask(x, samples, epoch, stream, key0, key1, threshold, scale, y):
    n, count = x.shape
    zero = x.dtype.type(0)
    quads = count // 4
    for i in prange(n):
        # Four statements, not a loop over the words: this form becomes vector instructions, ten times as fast.
        for quad in range(quads):
            w0, w1, w2, w3 = philox(quad, samples[i], epoch, stream, key0, key1)
            j = 4 * quad
            y[i, j] = x[i, j] * scale if w0 >= threshold else zero
            y[i, j + 1] = x[i, j + 1] * scale if w1 >= threshold else zero
            y[i, j + 2] = x[i, j + 2] * scale if w2 >= threshold else zero
            y[i, j + 3] = x[i, j + 3] * scale if w3 >= threshold else zero
        words = philox(quads, samples[i], epoch, stream, key0, key1)
        for k in range(count - 4 * quads):
            j = 4 * quads + k
            y[i, j] = x[i, j] * scale if words[k] >= threshold else zero
