"""x as rows of channels, in blocks fixed by the shape, and sums over the rows."""

import math

import numpy as np
from numba import prange

from fastnet.arrays import contiguous, given
from fastnet.kernels.cpu._jit import parallel_kernel

MOST_BLOCKS = 64
LEAST_ROWS = 32


def rows(x):
    """x (N, ..., C) as a contiguous (M, C): a view where it is contiguous already."""
    return contiguous(x).reshape(-1, x.shape[-1])


def block_rows(m):
    """The rows of a block when m rows are summed block by block."""
    return max(LEAST_ROWS, math.ceil(m / MOST_BLOCKS))


def column_sums(x, into=None):
    """The sum of the rows of x (M, C), kept in float64 on the way: a gradient with respect to a bias."""
    sums = given(into, x.shape[1:], x.dtype)
    _column_sums(x, block_rows(len(x)), sums)
    return sums


@parallel_kernel()
def _column_sums(x, block_rows, sums):
    m, channels = x.shape
    blocks = (m + block_rows - 1) // block_rows
    partial = np.zeros((blocks, channels), np.float64)
    for block in prange(blocks):
        for i in range(block * block_rows, min(m, (block + 1) * block_rows)):
            for c in range(channels):
                partial[block, c] += x[i, c]
    for c in range(channels):
        total = 0.0
        for block in range(blocks):
            total += partial[block, c]
        sums[c] = total
