"""Rectified linear unit: one pass forward, one backward, as in `fastnet.ops.relu`."""

from numba import prange

from fastnet.kernels.cpu._elementwise import apply, supports
from fastnet.kernels.cpu._jit import parallel_kernel

__all__ = ["backward", "forward", "supports"]


def forward(x):
    y = apply(_forward, x)
    return y, y


def backward(dy, cache, needs=None):
    return (apply(_backward, dy, cache) if needs is None or needs[0] else None,)


@parallel_kernel()
def _forward(x, y):
    zero = x.dtype.type(0)  # a plain 0 would make the branch's type float64
    for i in prange(x.size):
        # Not max(), and in this order, so that a NaN comes out as one.
        y[i] = zero if x[i] <= zero else x[i]


@parallel_kernel()
def _backward(dy, y, dx):
    zero = dy.dtype.type(0)
    for i in prange(dy.size):
        dx[i] = dy[i] if y[i] > zero else zero
