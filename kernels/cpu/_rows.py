"""What the batch-norm kernels share: x as rows of channels, in blocks fixed by the shape."""

import math

import numpy as np

MOST_BLOCKS = 64
LEAST_ROWS = 32


def rows(x):
    """x (N, ..., C) as a contiguous (M, C): a view where it is contiguous already."""
    return np.ascontiguousarray(x).reshape(-1, x.shape[-1])


def block_rows(m):
    """The rows of a block when m rows are summed block by block."""
    return max(LEAST_ROWS, math.ceil(m / MOST_BLOCKS))
