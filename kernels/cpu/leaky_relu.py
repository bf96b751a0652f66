"""Leaky rectified linear unit: one pass forward, one backward, as in `fastnet.ops.leaky_relu`."""

from numba import prange

from fastnet.kernels.cpu import _elementwise
from fastnet.kernels.cpu._elementwise import apply
from fastnet.kernels.cpu._jit import parallel_kernel


def supports(x, *, negative_slope=0.01):
    return _elementwise.supports(x) and negative_slope >= 0


def forward(x, *, negative_slope=0.01):
    slope = x.dtype.type(negative_slope)
    y = apply(_scale_where_not_positive, x, x, slope)
    return y, (y, slope)


def backward(dy, cache, needs=None):
    return (apply(_scale_where_not_positive, dy, *cache) if needs is None or needs[0] else None,)


@parallel_kernel()
def _scale_where_not_positive(x, sign, slope, y):
    zero = x.dtype.type(0)
    for i in prange(x.size):
        y[i] = x[i] if sign[i] > zero else slope * x[i]
