"""Logistic function: one pass forward, one backward, as in `fastnet.ops.sigmoid`."""

from numba import prange

from fastnet.kernels.cpu import _logistic
from fastnet.kernels.cpu._elementwise import apply, supports
from fastnet.kernels.cpu._jit import parallel_kernel

__all__ = ["backward", "forward", "supports"]


def forward(x):
    y = apply(_forward, x)
    return y, y


def backward(dy, cache, needs=None):
    return (apply(_backward, dy, cache) if needs is None or needs[0] else None,)


@parallel_kernel(cost=4)
def _forward(x, y):
    one = x.dtype.type(1)
    for i in prange(x.size):
        y[i] = _logistic.sigmoid(x[i], one)


@parallel_kernel()
def _backward(dy, y, dx):
    one = dy.dtype.type(1)
    for i in prange(dy.size):
        dx[i] = dy[i] * (y[i] * (one - y[i]))
