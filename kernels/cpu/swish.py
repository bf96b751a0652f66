"""Swish: one pass forward, one backward, as in `fastnet.ops.swish`."""

import numpy as np
from numba import prange

from fastnet.kernels.cpu._elementwise import flat, like, supports
from fastnet.kernels.cpu._jit import parallel_kernel
from fastnet.kernels.cpu._logistic import sigmoid

__all__ = ["backward", "forward", "supports"]


def forward(x):
    y, vector = like(x)
    x = np.ascontiguousarray(x)
    _forward(x.reshape(-1), vector)
    return y, x


def backward(dy, cache, needs=None):
    if needs is not None and not needs[0]:
        return (None,)
    dx, vector = like(dy)
    _backward(flat(dy), cache.reshape(-1), vector)
    return (dx,)


@parallel_kernel(cost=4)
def _forward(x, y):
    one = x.dtype.type(1)
    for i in prange(x.size):
        y[i] = x[i] * sigmoid(x[i], one)


@parallel_kernel(cost=4)
def _backward(dy, x, dx):
    one = dy.dtype.type(1)
    for i in prange(dy.size):
        s = sigmoid(x[i], one)
        dx[i] = dy[i] * (s * (one + x[i] * (one - s)))
