"""Batch normalisation with given statistics, as in `fastnet.ops.batch_norm_fixed`: one pass each way.

Sums are kept in float64, a partial sum a block of rows, added in order: the same bits for any number of threads.
"""

import math

import numpy as np
from numba import prange

from fastnet.arrays import empty
from fastnet.kernels.cpu._jit import is_float, parallel_kernel
from fastnet.kernels.cpu._rows import block_rows, rows


def supports(x, gamma, beta, mean, var, *, eps=1e-5):
    return (x.ndim >= 2 and x.size > 0 and is_float(x, gamma, beta, mean, var)
            and gamma.shape == beta.shape == mean.shape == var.shape == x.shape[-1:] and eps > 0)


def forward(x, gamma, beta, mean, var, *, eps=1e-5):
    x_rows = rows(x)
    y = empty(x.shape, x.dtype)
    rstd = 1 / np.sqrt(var + eps)
    mean = np.ascontiguousarray(mean)
    _forward(x_rows, mean, gamma * rstd, np.ascontiguousarray(beta), y.reshape(x_rows.shape))
    return y, (x_rows, gamma, mean, rstd)


def backward(dy, cache, needs=None):
    x, gamma, mean, rstd = cache
    needs_x, *needs_rest = needs or (True,) * 5
    dx = empty(dy.shape, x.dtype)
    scale = gamma * rstd
    per_block = block_rows(len(x))
    partial = np.zeros((math.ceil(len(x) / per_block), 2, x.shape[1]), np.float64)
    _backward(rows(dy), x, mean, scale, per_block, needs_x, any(needs_rest), dx.reshape(x.shape), partial)
    dbeta, centred = partial.sum(axis=0)
    dgamma = centred * rstd
    gradients = (dgamma, dbeta, -scale * dbeta, -scale * rstd * dgamma / 2)
    return dx if needs_x else None, *(d.astype(x.dtype) if needed else None
                                      for d, needed in zip(gradients, needs_rest, strict=True))


@parallel_kernel(cost=2)
def _forward(x, mean, scale, beta, y):
    for i in prange(len(x)):
        for c in range(x.shape[1]):
            y[i, c] = (x[i, c] - mean[c]) * scale[c] + beta[c]


@parallel_kernel(cost=2)
def _backward(dy, x, mean, scale, block_rows, needs_x, needs_sums, dx, partial):
    for block in prange(len(partial)):
        dy_sum, centred_sum = partial[block, 0], partial[block, 1]
        for i in range(block * block_rows, min(len(x), (block + 1) * block_rows)):
            if needs_x:
                for c in range(x.shape[1]):
                    dx[i, c] = scale[c] * dy[i, c]
            if needs_sums:
                for c in range(x.shape[1]):
                    dy_sum[c] += dy[i, c]
                    centred_sum[c] += dy[i, c] * (x[i, c] - mean[c])
