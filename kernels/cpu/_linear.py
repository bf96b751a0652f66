"""The products of `fastnet.ops.linear`, with or without a ReLU behind them, over blocks fixed by the shape.

A wide, short x (a multi-layer perceptron's first layer) is split along D_in: each block reads its own part of w
alone, and the partial products are added in order. A long x is split along its rows. dw and dx never need adding:
dw is split along D_in, dx along whichever is longer.

Each pass is one compiled function: for the small layers of a perceptron the way into a function costs as much as what
it computes.
"""

import numba
import numpy as np
from numba import prange

from fastnet.arrays import contiguous, empty, given, zeros
from fastnet.kernels.cpu import _skinny
from fastnet.kernels.cpu._gemm import NORMAL, SCALARS, TRANSPOSED, address, gemm
from fastnet.kernels.cpu._jit import is_float, kernel, parallel_kernel
from fastnet.kernels.cpu._rows import column_sums
from fastnet.kernels.cpu._skinny import STRIP, dw_part, forward_part
from fastnet.kernels.cpu._vector import LANES

ROWS = 256  # rows a block, for long x: each block packs w anew
SKINNY_ROWS = 64  # where nothing is packed
FEATURES = 512  # columns of x a block: 512 x 64 float32 of w fill an eighth of a 1 MB L2 cache
LEAST_ROWS, LEAST_FEATURES = 32, 128  # of blocks that are made only so that there are two
FEW = 128  # outputs: with more, BLAS's copies of x pay
SHORT = 1 << 15  # entries of dy that one thread masks and sums before the products


def supports(x, w, b=None):
    return (x.ndim == 2 and w.ndim == 2 and x.shape[1] == w.shape[0] and is_float(x, w) and x.size > 0 and w.size > 0
            and (b is None or (b.shape == (w.shape[1],) and b.dtype == x.dtype)))


def forward(x, w, b, relu):
    x, w = contiguous(x), contiguous(w)
    y = empty((len(x), w.shape[1]), x.dtype)
    bias = zeros(w.shape[1], x.dtype) if b is None else contiguous(b)
    product.sized(work(x.shape, w.shape[1]))(x, w, bias, relu, *workspace(x, w.shape[1]), y, SCALARS[x.dtype])
    return y, (x, w, y if relu else None, b is not None)


def backward(dy, cache, needs, into):
    x, w, y, has_bias = cache
    needs_x, needs_w, needs_b = needs or (True, True, True)
    dy = contiguous(dy)
    dx = empty(x.shape, x.dtype) if needs_x else None
    dw = given(into[1], w.shape, w.dtype) if needs_w else None
    db = given(into[2], w.shape[1:], w.dtype) if needs_b and has_bias else None
    dz = dy if y is None else empty(dy.shape, dy.dtype)
    short = dy.size <= SHORT
    if not short:
        if y is not None:
            _mask(dy, y, dz)
        if db is not None:
            column_sums(dz, db)
    products_backward.sized(work(x.shape, w.shape[1]))(
        x, w, dz if y is None else y, dy, short and y is not None, short and db is not None, dx is not None,
        dw is not None, *workspace_backward(x, w.shape[1]), dz, w[:0] if dx is None else dx,
        w[:0] if dw is None else dw, w[:0, 0] if db is None else db, SCALARS[x.dtype])
    return dx, dw, db


def work(shape, outputs):
    """The weight of the products, for `ParallelKernel`: BLAS does some eight multiply-adds in the time of one."""
    return shape[0] * shape[1] * outputs // 8


def workspace(x, outputs):
    """How and in which memory `product` works: features a block, or 0 for blocks of rows; whether skinny; the scratch
    of all threads, and how much of it is one thread's; partial sums.
    """
    n, d = x.shape
    skinny = _is_skinny(x, outputs)
    by_rows = n > ROWS or d <= FEATURES
    length = 0 if by_rows else _length(d)
    size = _skinny.SCRATCH + 2 * (length or d) if skinny else 0
    return (length, skinny, empty(numba.get_num_threads() * size, x.dtype), size,
            empty(0 if by_rows else -(-d // length) * n * outputs, x.dtype))


def workspace_backward(x, outputs):
    """The same for `products_backward`, which has no partial sums."""
    skinny = _is_skinny(x, outputs)
    size = _skinny.SCRATCH + len(x) * STRIP * LANES[x.dtype] if skinny else 0
    return _length(x.shape[1]), skinny, empty(numba.get_num_threads() * size, x.dtype), size


def _length(d):
    """The features of a block: as many in each, but for the last, which has up to 16 a block fewer."""
    blocks = max(1, -(-d // FEATURES), min(2, d // LEAST_FEATURES))
    return -(-d // blocks // 16) * 16


@kernel()
def _row_blocks(n):
    return max(1, (n + ROWS - 1) // ROWS, min(2, n // LEAST_ROWS))


def _is_skinny(x, outputs):
    return x.shape[1] > FEATURES and len(x) >= _skinny.ROWS and outputs <= FEW


@parallel_kernel()
def product(x, w, b, relu, length, is_skinny, scratch, size, partial, y, scalars):
    """y = x w + b, or max(0, that)."""
    n, d = x.shape
    k = w.shape[1]
    by_rows = length == 0
    if by_rows:
        target = y.reshape(-1)
        blocks = max(1, n // SKINNY_ROWS) if is_skinny else _row_blocks(n)
    else:
        target = partial
        blocks = (d + length - 1) // length
    for block in prange(blocks):
        # Written once for both ways: what is called here is compiled as often as it is written.
        first, last = (block * n // blocks, (block + 1) * n // blocks) if by_rows else (0, n)
        start, stop = (0, d) if by_rows else (block * length, min(d, (block + 1) * length))
        to = first * k if by_rows else block * n * k
        if is_skinny:
            forward_part(x, first, last, w, start, stop, scratch, numba.get_thread_id() * size, target, to)
        else:
            gemm(NORMAL, NORMAL, last - first, k, stop - start, address(x, first * d + start), d,
                 address(w, start * k), k, False, address(target, to), k, scalars)
        if by_rows:
            _finish(y, b, relu, first, last)
    if not by_rows:
        for i in range(n):
            for j in range(k):
                y[i, j] = partial[i * k + j]
            for block in range(1, blocks):
                for j in range(k):
                    y[i, j] += partial[(block * n + i) * k + j]
        _finish(y, b, relu, 0, n)


@kernel()
def _finish(y, b, relu, first, last):
    zero = y.dtype.type(0)
    for i in range(first, last):
        for j in range(y.shape[1]):
            y[i, j] += b[j]
        if relu:
            for j in range(y.shape[1]):
                y[i, j] = zero if y[i, j] <= zero else y[i, j]  # in this order a NaN stays one


@parallel_kernel()
def _mask(dy, y, dz):
    zero = dy.dtype.type(0)
    for i in prange(len(dy)):
        for j in range(dy.shape[1]):
            dz[i, j] = dy[i, j] if y[i, j] > zero else zero


@parallel_kernel()
def products_backward(x, w, y, dy, masks, sums, needs_x, needs_w, length, is_skinny, scratch, size, dz, dx, dw, db,
                      scalars):
    n, d = x.shape
    k = w.shape[1]
    if masks:
        zero = dy.dtype.type(0)
        for i in range(n):
            for j in range(k):
                dz[i, j] = dy[i, j] if y[i, j] > zero else zero
    if sums:
        total = np.zeros(k, np.float64)
        for i in range(n):
            for j in range(k):
                total[j] += dz[i, j]
        for j in range(k):
            db[j] = total[j]
    blocks = (d + length - 1) // length
    if needs_w:
        for block in prange(blocks):
            start = block * length
            stop = min(d, start + length)
            if is_skinny:
                dw_part(x, dz, start, stop, scratch, numba.get_thread_id() * size, dw)
            else:
                gemm(TRANSPOSED, NORMAL, stop - start, k, n, address(x, start), d, address(dz, 0), k, False,
                     address(dw, start * k), k, scalars)
    if needs_x:
        by_rows = n > ROWS or d <= FEATURES
        row_blocks = _row_blocks(n)
        for block in prange(row_blocks if by_rows else blocks):
            if by_rows:
                start, stop = block * n // row_blocks, (block + 1) * n // row_blocks
                gemm(NORMAL, TRANSPOSED, stop - start, d, k, address(dz, start * k), k, address(w, 0), k, False,
                     address(dx, start * d), d, scalars)
            else:
                start = block * length
                gemm(NORMAL, TRANSPOSED, n, min(length, d - start), k, address(dz, 0), k, address(w, start * k), k,
                     False, address(dx, start), d, scalars)
