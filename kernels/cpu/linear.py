"""Linear layer: the products of `fastnet.ops.linear`, in parallel over blocks fixed by the shape.

A wide, short x (a multi-layer perceptron's first layer) is split along D_in: each block packs its own part of w
once, and the partial products are added in order. A long x is split along its rows. dw and dx never need adding:
dw is split along D_in, dx along whichever is longer.
"""

import math

import numpy as np
from numba import prange

from fastnet.arrays import contiguous, empty
from fastnet.kernels.cpu._gemm import NORMAL, SCALARS, TRANSPOSED, address, gemm
from fastnet.kernels.cpu._jit import is_float, parallel_kernel
from fastnet.kernels.cpu._rows import column_sums

ROWS = 256  # rows a block, for long x; two blocks of fewer rows pack w twice for nothing
FEATURES = 512  # columns of x a block: 512 x 64 float32 of w fill an eighth of a 1 MB L2 cache


def supports(x, w, b=None):
    return (x.ndim == 2 and w.ndim == 2 and x.shape[1] == w.shape[0] and is_float(x, w) and x.size > 0 and w.size > 0
            and (b is None or (b.shape == (w.shape[1],) and b.dtype == x.dtype)))


def forward(x, w, b=None):
    x, w = contiguous(x), contiguous(w)
    y = empty((x.shape[0], w.shape[1]), x.dtype)
    bias = np.zeros(w.shape[1], x.dtype) if b is None else contiguous(b)
    if x.shape[0] > ROWS or x.shape[1] <= FEATURES:
        _forward_rows.sized(_work(x, w))(x, w, bias, y, SCALARS[x.dtype])
    else:
        partial = empty((math.ceil(x.shape[1] / FEATURES), *y.shape), x.dtype)
        _forward_features.sized(_work(x, w))(x, w, bias, partial, y, SCALARS[x.dtype])
    return y, (x, w, b is not None)


def backward(dy, cache, needs=None):
    x, w, has_bias = cache
    needs_x, needs_w, needs_b = needs or (True, True, True)
    dy = contiguous(dy)
    dx = dw = db = None
    if needs_w:
        dw = empty(w.shape, w.dtype)
        _dw.sized(_work(x, w))(x, dy, dw, SCALARS[x.dtype])
    if needs_x:
        dx = empty(x.shape, x.dtype)
        _dx.sized(_work(x, w))(dy, w, dx, SCALARS[x.dtype])
    if needs_b and has_bias:
        db = column_sums(dy)
    return dx, dw, db


def _work(x, w):
    return x.shape[0] * w.size // 8  # BLAS does some eight multiply-adds in the time of a simple operation


@parallel_kernel()
def _forward_rows(x, w, b, y, scalars):
    n, d = x.shape
    k = w.shape[1]
    for block in prange((n + ROWS - 1) // ROWS):
        start = block * ROWS
        stop = min(n, start + ROWS)
        for i in range(start, stop):
            for j in range(k):
                y[i, j] = b[j]
        gemm(NORMAL, NORMAL, stop - start, k, d, address(x, start * d), d, address(w, 0), k, True,
             address(y, start * k), k, scalars)


@parallel_kernel()
def _forward_features(x, w, b, partial, y, scalars):
    n, d = x.shape
    k = w.shape[1]
    blocks = len(partial)
    for block in prange(blocks):
        start = block * FEATURES
        gemm(NORMAL, NORMAL, n, k, min(FEATURES, d - start), address(x, start), d, address(w, start * k), k, False,
             address(partial, block * n * k), k, scalars)
    for i in range(n):
        for j in range(k):
            y[i, j] = b[j]
        for block in range(blocks):
            for j in range(k):
                y[i, j] += partial[block, i, j]


@parallel_kernel()
def _dw(x, dy, dw, scalars):
    n, d = x.shape
    k = dy.shape[1]
    for block in prange((d + FEATURES - 1) // FEATURES):
        start = block * FEATURES
        gemm(TRANSPOSED, NORMAL, min(FEATURES, d - start), k, n, address(x, start), d, address(dy, 0), k, False,
             address(dw, start * k), k, scalars)


@parallel_kernel()
def _dx(dy, w, dx, scalars):
    n, k = dy.shape
    d = w.shape[0]
    if n > ROWS or d <= FEATURES:
        for block in prange((n + ROWS - 1) // ROWS):
            start = block * ROWS
            gemm(NORMAL, TRANSPOSED, min(ROWS, n - start), d, k, address(dy, start * k), k, address(w, 0), k, False,
                 address(dx, start * d), d, scalars)
    else:
        for block in prange((d + FEATURES - 1) // FEATURES):
            start = block * FEATURES
            gemm(NORMAL, TRANSPOSED, n, min(FEATURES, d - start), k, address(dy, 0), k, address(w, start * k), k,
                 False, address(dx, start), d, scalars)
