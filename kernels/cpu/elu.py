"""Exponential linear unit: one pass forward, one backward, as in `fastnet.ops.elu`."""

import math

from numba import prange

from fastnet.kernels.cpu import _elementwise
from fastnet.kernels.cpu._elementwise import flat, like
from fastnet.kernels.cpu._jit import parallel_kernel


def supports(x, *, alpha=1.0):
    return _elementwise.supports(x) and alpha > 0


def forward(x, *, alpha=1.0):
    y, vector = like(x)
    alpha = x.dtype.type(alpha)
    _forward(flat(x), alpha, vector)
    return y, (y, alpha)


def backward(dy, cache, needs=None):
    if needs is not None and not needs[0]:
        return (None,)
    y, alpha = cache
    dx, vector = like(dy)
    _backward(flat(dy), y.reshape(-1), alpha, vector)
    return (dx,)


@parallel_kernel(cost=8)
def _forward(x, alpha, y):
    zero = x.dtype.type(0)
    for i in prange(x.size):
        y[i] = x[i] if x[i] > zero else alpha * math.expm1(x[i])


@parallel_kernel(cost=8)
def _backward(dy, y, alpha, dx):
    zero = dy.dtype.type(0)
    for i in prange(dy.size):
        dx[i] = dy[i] if y[i] > zero else dy[i] * (y[i] + alpha)
