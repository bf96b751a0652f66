"""Gaussian error linear unit: one pass forward, one backward, as in `fastnet.ops.gelu`."""

import math

from numba import prange

from fastnet.kernels.cpu import _elementwise
from fastnet.kernels.cpu._elementwise import apply
from fastnet.kernels.cpu._jit import kernel, parallel_kernel
from fastnet.kernels.cpu._logistic import sigmoid
from fastnet.kernels.cpu._transcendental import gauss, mills

CUBIC = 0.044715
SCALE = math.sqrt(2 / math.pi)
DENSITY = 1 / math.sqrt(2 * math.pi)
LIMIT = 40  # from here on P is constant


def supports(x, *, approximate="none"):
    return _elementwise.supports(x) and approximate in ("none", "tanh")


def forward(x, *, approximate="none"):
    tanh_form = approximate == "tanh"
    return apply(_forward, x, tanh_form), (x, tanh_form)


def backward(dy, cache, needs=None):
    return (apply(_backward, dy, *cache) if needs is None or needs[0] else None,)


# `real` is x's type: a plain constant would turn the arithmetic to float64.
@kernel(inline="always")
def _bounded(x, real):
    # Comparisons, not min() and max(): a NaN must stay one.
    return real(LIMIT) if x > LIMIT else (real(-LIMIT) if x < -LIMIT else x)


@kernel(inline="always")
def _probability(x, tanh_form, real):
    if tanh_form:
        # (1 + tanh u)/2 is the logistic function of 2u, which is faster and loses no digits where P is small.
        return sigmoid(real(2 * SCALE) * (x + real(CUBIC) * x * x * x), real(1))
    tail = _density(x, real) * mills(abs(x))
    return tail if x < 0 else real(1) - tail


@kernel(inline="always")
def _density(x, real):
    return real(DENSITY) * gauss(x)


@parallel_kernel(cost=8)
def _forward(x, tanh_form, y):
    real = x.dtype.type
    for i in prange(x.size):
        y[i] = x[i] * _probability(_bounded(x[i], real), tanh_form, real)


@parallel_kernel(cost=9)
def _backward(dy, x, tanh_form, dx):
    real = x.dtype.type
    for i in prange(dy.size):
        b = _bounded(x[i], real)
        p = _probability(b, tanh_form, real)
        if tanh_form:
            slope = p * (real(1) - p) * real(2 * SCALE) * (real(1) + real(3 * CUBIC) * b * b)
        else:
            slope = _density(b, real)
        dx[i] = dy[i] * (p + b * slope)
