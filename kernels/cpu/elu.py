"""Exponential linear unit: one pass forward, one backward, as in `fastnet.ops.elu`."""

from numba import prange

from fastnet.kernels.cpu import _elementwise
from fastnet.kernels.cpu._elementwise import apply
from fastnet.kernels.cpu._jit import parallel_kernel
from fastnet.kernels.cpu._transcendental import expm1


def supports(x, *, alpha=1.0):
    return _elementwise.supports(x) and alpha > 0


def forward(x, *, alpha=1.0):
    alpha = x.dtype.type(alpha)
    y = apply(_forward, x, alpha)
    return y, (y, alpha)


def backward(dy, cache, needs=None):
    return (apply(_backward, dy, *cache) if needs is None or needs[0] else None,)


@parallel_kernel(cost=4)
def _forward(x, alpha, y):
    zero = x.dtype.type(0)
    for i in prange(x.size):
        y[i] = x[i] if x[i] > zero else alpha * expm1(x[i])


@parallel_kernel()
def _backward(dy, y, alpha, dx):
    zero = dy.dtype.type(0)
    for i in prange(dy.size):
        dx[i] = dy[i] if y[i] > zero else dy[i] * (y[i] + alpha)
