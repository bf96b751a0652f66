"""Batch normalisation and ReLU of a few thousand numbers: plain loops on one thread, with sums in float64.

The way into the blocks of `_batch_norm` would take longer than these do.
"""

import math

import numpy as np

from fastnet.kernels.cpu._jit import kernel

MEAN, VAR, RSTD = range(3)  # rows of what normalise finds


@kernel()
def normalise(z, gamma, beta, eps, found, y):
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
def denormalise(dy, y, z, found, gamma, dz, of_parameters):
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
