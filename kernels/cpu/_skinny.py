"""Products of a short, wide x (N, D) with few outputs K, a multi-layer perceptron's first layer: forward and dw.

BLAS copies x into blocks of its own first, which for so few outputs takes as long as the products. Here x is read where
it lies. Outputs are computed by register tiles of whole vectors along K; the few columns behind the last whole vector
are done with vectors along D instead, so that 50 outputs cost what 50 must and not what 64 do.

Both functions work on the features `start` to `stop` only, at least `LEAST` of them, so that blocks can run side by
side. Rows, or features, that do not fill a tile are made up by a last tile that overlaps the one before: it computes
the same numbers once more.
"""

from fastnet.kernels.cpu._channels import fma, store
from fastnet.kernels.cpu._jit import kernel
from fastnet.kernels.cpu._simd import MOST_VECTORS, tile_add_products, tile_store, tile_zeros
from fastnet.kernels.cpu._vector import BYTES, load, splat

PANEL = 3  # vectors of a tile along K
ROWS = MOST_VECTORS // PANEL
STRIP = 4  # vectors along D
LEAST = 64  # features, at least a strip


def _tile(vectors):
    """The function that computes c[i, j] = sum over `count` steps of a[i] b[j] for one tile."""

    @kernel()
    def multiply(a, a_start, a_row, a_step, b, b_start, b_step, count, c, c_start, c_row):
        lanes = BYTES // a.itemsize
        sums = tile_zeros(ROWS, vectors, a)
        for t in range(count):
            sums = tile_add_products(sums, a, a_start + t * a_step, a_row, b, b_start + t * b_step, lanes)
        tile_store(sums, c, c_start, c_row, lanes)

    return multiply


_tile_3, _tile_2, _tile_1 = _tile(3), _tile(2), _tile(1)


@kernel()
def _tiles(a, a_start, rows, a_row, a_step, b, b_start, k, count, c, c_start):
    """c[i, j] for i below `rows` and j below all whole vectors of k; b and c have rows of k entries."""
    lanes = BYTES // a.itemsize
    whole = k // lanes
    for r in range(0, rows, ROWS):
        i = min(r, rows - ROWS)
        at, to = a_start + i * a_row, c_start + i * k
        for v in range(0, whole, PANEL):
            j = v * lanes
            if whole - v >= 3:
                _tile_3(a, at, a_row, a_step, b, b_start + j, k, count, c, to + j, k)
            elif whole - v == 2:
                _tile_2(a, at, a_row, a_step, b, b_start + j, k, count, c, to + j, k)
            else:
                _tile_1(a, at, a_row, a_step, b, b_start + j, k, count, c, to + j, k)


@kernel()
def forward_block(x, w, start, stop, scratch, s_start, y, y_start):
    """y[n, k] = sum of x[n, d] w[d, k] over d from start to stop; y is (N, K) from entry `y_start` on, flat.

    The scratch has room for a vector and stop - start entries from `s_start` on.
    """
    n, d = x.shape
    k, lanes, count = w.shape[1], BYTES // x.itemsize, stop - start
    _tiles(x, start, n, d, 1, w, start * k, k, count, y, y_start)
    column = s_start + lanes
    for j in range(k // lanes * lanes, k):
        for i in range(count):
            scratch[column + i] = w[start + i, j]
        for r in range(n):
            at = r * d + start
            sums = splat(x.dtype.type(0))
            for i in range(0, count - lanes + 1, lanes):
                sums = fma(load(x, at + i), load(scratch, column + i), sums)
            store(scratch, s_start, sums)
            total = x.dtype.type(0)
            for i in range(lanes):
                total += scratch[s_start + i]
            for i in range(count // lanes * lanes, count):
                total += x[r, start + i] * scratch[column + i]
            y[y_start + r * k + j] = total


@kernel()
def dw_block(x, dy, start, stop, scratch, s_start, dw):
    """dw[d, k] = sum over n of x[n, d] dy[n, k] for d from start to stop; dw is (D, K).

    The scratch has room for `STRIP` vectors from `s_start` on.
    """
    n, d = x.shape
    k, lanes = dy.shape[1], BYTES // x.itemsize
    strip = STRIP * lanes
    _tiles(x, start, stop - start, 1, d, dy, 0, k, n, dw, start * k)
    for first in range(start, stop, strip):
        at = min(first, stop - strip)
        for j in range(k // lanes * lanes, k):
            sums = tile_zeros(1, STRIP, x)
            for i in range(n):
                sums = tile_add_products(sums, dy, i * k + j, 0, x, i * d + at, lanes)
            tile_store(sums, scratch, s_start, 0, lanes)
            for i in range(strip):
                dw[at + i, j] = scratch[s_start + i]
