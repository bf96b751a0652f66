"""x as rows of channels, in blocks fixed by the shape, and sums over the rows."""

import math

import numpy as np
from numba import prange

from fastnet.arrays import contiguous, given
from fastnet.kernels.cpu._jit import parallel_kernel

MOST_BLOCKS = 64
LEAST_ROWS = 32
WIDE = 64  # entries of a row from which on vectors are filled well


def rows(x):
    """x (N, ..., C) as a contiguous (M, C): a view where it is contiguous already."""
    return contiguous(x).reshape(-1, x.shape[-1])


def block_rows(m):
    """The rows of a block when m rows are summed block by block."""
    return max(LEAST_ROWS, math.ceil(m / MOST_BLOCKS))


def column_sums(x, into=None):
    """The sum of the rows of x (M, C), kept in float64 on the way: a gradient with respect to a bias."""
    m, channels = x.shape
    sums = given(into, x.shape[1:], x.dtype)
    fold = 1  # rows side by side as one: few channels alone would fill no vectors
    while fold * channels < WIDE and m % (2 * fold) == 0:
        fold *= 2
    _column_sums(x.reshape(m // fold, fold * channels), block_rows(m // fold), sums)
    return sums


@parallel_kernel()
def _column_sums(x, block_rows, sums):
    m, width = x.shape
    blocks = (m + block_rows - 1) // block_rows
    partial = np.zeros((blocks, width), np.float64)
    for block in prange(blocks):
        for i in range(block * block_rows, min(m, (block + 1) * block_rows)):
            for k in range(width):
                partial[block, k] += x[i, k]
    for block in range(1, blocks):
        for k in range(width):
            partial[0, k] += partial[block, k]
    for c in range(sums.size):
        total = 0.0
        for k in range(c, width, sums.size):
            total += partial[0, k]
        sums[c] = total
