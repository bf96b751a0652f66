"""Leaky rectified linear unit: one pass forward, one backward, as in `fastnet.ops.leaky_relu`."""

from numba import prange

from fastnet.kernels.cpu import _elementwise
from fastnet.kernels.cpu._elementwise import flat, like
from fastnet.kernels.cpu._jit import parallel_kernel


def supports(x, *, negative_slope=0.01):
    return _elementwise.supports(x) and negative_slope >= 0


def forward(x, *, negative_slope=0.01):
    y, vector = like(x)
    slope = x.dtype.type(negative_slope)
    x = flat(x)
    _scale_where_not_positive(x, x, slope, vector)
    return y, (y, slope)


def backward(dy, cache, needs=None):
    if needs is not None and not needs[0]:
        return (None,)
    y, slope = cache
    dx, vector = like(dy)
    _scale_where_not_positive(flat(dy), y.reshape(-1), slope, vector)
    return (dx,)


@parallel_kernel()
def _scale_where_not_positive(x, sign, slope, y):
    zero = x.dtype.type(0)
    for i in prange(x.size):
        y[i] = x[i] if sign[i] > zero else slope * x[i]
