"""A hidden layer of a perceptron as in `fastnet.ops.linear_batch_norm_relu`: the products, then the normalisation.

A few thousand outputs are normalised by plain loops on one thread, with sums in float64: the way into the blocks of
`_batch_norm` would take longer than that. More outputs go there.
"""

import math

import numpy as np

from fastnet.arrays import contiguous, empty, rehearsing
from fastnet.kernels.cpu import _batch_norm, _linear
from fastnet.kernels.cpu._jit import is_float, kernel

FEW = 1 << 14  # outputs, one thread's work of some 10 microseconds
MEAN, VAR, RSTD = range(3)


def supports(x, w, gamma, beta, *, eps=1e-5):
    return (_linear.supports(x, w) and is_float(x, gamma, beta) and gamma.shape == beta.shape == w.shape[1:]
            and eps > 0)


def forward(x, w, gamma, beta, *, eps=1e-5):
    z, of_linear = _linear.forward(x, w, None, relu=False)
    if z.size > FEW:
        y, of_norm = _batch_norm.forward(_batch_norm.RELU, z, gamma, beta, None, eps)
        return y, (of_linear, None, None, of_norm)
    y, found = empty(z.shape, z.dtype), empty((3, z.shape[1]), z.dtype)
    gamma = contiguous(gamma)
    if not rehearsing():
        _normalise(z, gamma, contiguous(beta), eps, found, y)
    return y, (of_linear, gamma, y, (z, found))


def statistics(cache):
    _, _, y, of_norm = cache
    return _batch_norm.statistics(of_norm) if y is None else of_norm[1][:2]


def backward(dy, cache, needs=None):
    return backward_into(dy, cache, needs, (None,) * 4)


def backward_into(dy, cache, needs, into):
    of_linear, gamma, y, of_norm = cache
    needs = needs or (True,) * 4
    if y is None:
        dz, *of_parameters, _ = _batch_norm.backward(_batch_norm.RELU, dy, of_norm, True)
    else:
        dz, of_parameters = empty(dy.shape, dy.dtype), empty((2, dy.shape[1]), dy.dtype)
        if not rehearsing():
            _denormalise(contiguous(dy), y, *of_norm, gamma, dz, of_parameters)
    dgamma, dbeta = (d if needed else None for d, needed in zip(of_parameters, needs[2:], strict=True))
    dx, dw, _ = _linear.backward(dz, of_linear, (*needs[:2], False), (*into[:2], None))
    return dx, dw, dgamma, dbeta


@kernel()
def _normalise(z, gamma, beta, eps, found, y):
    """y = max(0, z^ gamma + beta), and the statistics of z."""
    n, channels = z.shape
    zero = z.dtype.type(0)
    # About the first row, as `_batch_norm` explains.
    total, squares = np.zeros(channels, np.float64), np.zeros(channels, np.float64)
    for i in range(n):
        for c in range(channels):
            d = np.float64(z[i, c]) - np.float64(z[0, c])
            total[c] += d
            squares[c] += d * d
    for c in range(channels):
        shift = total[c] / n
        var = max(squares[c] / n - shift * shift, 0.0)
        found[MEAN, c] = z[0, c] + shift
        found[VAR, c] = var
        found[RSTD, c] = 1 / math.sqrt(var + eps)
    for i in range(n):
        for c in range(channels):
            result = (z[i, c] - found[MEAN, c]) * (gamma[c] * found[RSTD, c]) + beta[c]
            y[i, c] = zero if result <= zero else result  # in this order a NaN stays one


@kernel()
def _denormalise(dy, y, z, found, gamma, dz, of_parameters):
    """dz, dgamma and dbeta."""
    n, channels = z.shape
    zero = z.dtype.type(0)
    total, products = np.zeros(channels, np.float64), np.zeros(channels, np.float64)
    for i in range(n):
        for c in range(channels):
            g = dy[i, c] if y[i, c] > zero else zero
            dz[i, c] = g
            total[c] += g
            products[c] += g * ((z[i, c] - found[MEAN, c]) * found[RSTD, c])
    mean_dy, slope = np.empty(channels, z.dtype), np.empty(channels, z.dtype)
    for c in range(channels):
        of_parameters[0, c] = products[c]
        of_parameters[1, c] = total[c]
        mean_dy[c] = total[c] / n
        slope[c] = products[c] / n * found[RSTD, c]
    for i in range(n):
        for c in range(channels):
            dz[i, c] = gamma[c] * found[RSTD, c] * (
                dz[i, c] - mean_dy[c] - (z[i, c] - found[MEAN, c]) * slope[c])
