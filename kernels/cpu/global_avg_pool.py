"""Global average pooling as in `fastnet.ops.global_avg_pool`: an image a block, its sums in float64."""

import numpy as np
from numba import prange

from fastnet.arrays import contiguous, empty
from fastnet.kernels.cpu._jit import is_float, parallel_kernel


def supports(x):
    return x.ndim == 4 and x.size > 0 and is_float(x)


def forward(x):
    n, height, width, channels = x.shape
    y = empty((n, channels), x.dtype)
    _forward(contiguous(x).reshape(n, height * width, channels), y)
    return y, x.shape


def backward(dy, cache, needs=None):
    if needs is not None and not needs[0]:
        return (None,)
    n, height, width, channels = cache
    dx = empty(cache, dy.dtype)
    _backward.sized(dx.size)(contiguous(dy), dx.reshape(n, height * width, channels))
    return (dx,)


@parallel_kernel()
def _forward(x, y):
    n, places, channels = x.shape
    for image in prange(n):
        total = np.zeros(channels, np.float64)
        for i in range(places):
            for c in range(channels):
                total[c] += x[image, i, c]
        for c in range(channels):
            y[image, c] = total[c] / places


@parallel_kernel()
def _backward(dy, dx):
    n, places, channels = dx.shape
    for image in prange(n):
        for c in range(channels):
            dx[image, 0, c] = dy[image, c] / places
        for i in range(1, places):
            for c in range(channels):
                dx[image, i, c] = dx[image, 0, c]
