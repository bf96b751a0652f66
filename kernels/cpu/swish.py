"""Swish: one pass forward, one backward, as in `fastnet.ops.swish`."""

from numba import prange

from fastnet.kernels.cpu._elementwise import apply, supports
from fastnet.kernels.cpu._jit import parallel_kernel
from fastnet.kernels.cpu._logistic import sigmoid

__all__ = ["backward", "forward", "supports"]


def forward(x):
    return apply(_forward, x), x


def backward(dy, cache, needs=None):
    return (apply(_backward, dy, cache) if needs is None or needs[0] else None,)


@parallel_kernel(cost=5)
def _forward(x, y):
    one = x.dtype.type(1)
    for i in prange(x.size):
        y[i] = x[i] * sigmoid(x[i], one)


@parallel_kernel(cost=6)
def _backward(dy, x, dx):
    one = dy.dtype.type(1)
    for i in prange(dy.size):
        s = sigmoid(x[i], one)
        dx[i] = dy[i] * (s * (one + x[i] * (one - s)))
