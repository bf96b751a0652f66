"""Batch normalisation as in `fastnet.ops.batch_norm`: two passes over x forward, two over (dy, x) backward.

Sums are kept in float64, a partial sum a block of rows, added in order: the same bits for any number of threads.
One pass gives both mean and variance, because the sums are taken about the first row: the cancellation in
E[(x-k)^2] - E[x-k]^2 is then harmless however far the mean lies from zero.
"""

import math

import numpy as np
from numba import prange

from fastnet.arrays import contiguous, empty
from fastnet.kernels.cpu._jit import is_float, parallel_kernel
from fastnet.kernels.cpu._rows import block_rows, rows


def supports(x, gamma, beta, *, eps=1e-5):
    return (x.ndim >= 2 and x.size > 0 and is_float(x, gamma, beta) and gamma.shape == beta.shape == x.shape[-1:]
            and eps > 0)


def forward(x, gamma, beta, *, eps=1e-5):
    x_rows = rows(x)
    y = empty(x.shape, x.dtype)
    mean, var, rstd = empty((3, x.shape[-1]), x.dtype)
    gamma = contiguous(gamma)
    _forward(x_rows, gamma, contiguous(beta), eps, block_rows(len(x_rows)), y.reshape(x_rows.shape),
             mean, var, rstd)
    return y, (x_rows, gamma, mean, var, rstd)


def statistics(cache):
    _, _, mean, var, _ = cache
    return mean, var


def backward(dy, cache, needs=None):
    x, gamma, mean, _, rstd = cache
    needs_x, needs_gamma, needs_beta = needs or (True, True, True)
    dx = empty(dy.shape, x.dtype)
    dgamma, dbeta = np.empty((2, x.shape[1]), x.dtype)
    _backward(rows(dy), x, gamma, mean, rstd, block_rows(len(x)), needs_x, dx.reshape(x.shape), dgamma, dbeta)
    return dx if needs_x else None, dgamma if needs_gamma else None, dbeta if needs_beta else None


@parallel_kernel(cost=4)
def _forward(x, gamma, beta, eps, block_rows, y, mean, var, rstd):
    m, channels = x.shape
    blocks = (m + block_rows - 1) // block_rows
    partial = np.zeros((blocks, 2, channels), np.float64)
    for block in prange(blocks):
        total, squares = partial[block, 0], partial[block, 1]
        for i in range(block * block_rows, min(m, (block + 1) * block_rows)):
            for c in range(channels):
                d = np.float64(x[i, c]) - np.float64(x[0, c])
                total[c] += d
                squares[c] += d * d
    scale = np.empty(channels, x.dtype)
    for c in range(channels):
        total_c, squares_c = 0.0, 0.0
        for block in range(blocks):
            total_c += partial[block, 0, c]
            squares_c += partial[block, 1, c]
        shift = total_c / m
        var_c = max(squares_c / m - shift * shift, 0.0)
        mean[c] = x[0, c] + shift
        var[c] = var_c
        rstd[c] = 1 / math.sqrt(var_c + eps)
        scale[c] = gamma[c] * rstd[c]
    for block in prange(blocks):
        for i in range(block * block_rows, min(m, (block + 1) * block_rows)):
            for c in range(channels):
                y[i, c] = (x[i, c] - mean[c]) * scale[c] + beta[c]


@parallel_kernel(cost=4)
def _backward(dy, x, gamma, mean, rstd, block_rows, needs_x, dx, dgamma, dbeta):
    m, channels = x.shape
    blocks = (m + block_rows - 1) // block_rows
    partial = np.zeros((blocks, 2, channels), np.float64)
    for block in prange(blocks):
        beta_sum, gamma_sum = partial[block, 0], partial[block, 1]
        for i in range(block * block_rows, min(m, (block + 1) * block_rows)):
            for c in range(channels):
                beta_sum[c] += dy[i, c]
                gamma_sum[c] += dy[i, c] * ((x[i, c] - mean[c]) * rstd[c])
    mean_dy = np.empty(channels, x.dtype)
    slope = np.empty(channels, x.dtype)
    scale = np.empty(channels, x.dtype)
    for c in range(channels):
        beta_c, gamma_c = 0.0, 0.0
        for block in range(blocks):
            beta_c += partial[block, 0, c]
            gamma_c += partial[block, 1, c]
        dbeta[c] = beta_c
        dgamma[c] = gamma_c
        mean_dy[c] = beta_c / m
        slope[c] = gamma_c / m * rstd[c]
        scale[c] = gamma[c] * rstd[c]
    if needs_x:
        for block in prange(blocks):
            for i in range(block * block_rows, min(m, (block + 1) * block_rows)):
                for c in range(channels):
                    dx[i, c] = scale[c] * (dy[i, c] - mean_dy[c] - (x[i, c] - mean[c]) * slope[c])
