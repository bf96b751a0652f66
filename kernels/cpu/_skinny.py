"""Products of a wide x (N, D) with few outputs K, a multi-layer perceptron's first layer: forward and dw.

BLAS copies x into blocks of its own first, which for so few outputs takes as long as the products. Here x is read where
it lies. Outputs are computed by register tiles of whole vectors along K; the few columns behind the last whole vector
are done with vectors along D instead, so that 50 outputs cost what 50 must and not what 64 do.

Both functions work on a part of x only, at least `ROWS` samples and `LEAST` features, so that parts can run side by
side. Rows, or features, that do not fill a tile are made up by a last tile that overlaps the one before: it computes
the same numbers once more.
"""

from fastnet.kernels.cpu._jit import kernel
from fastnet.kernels.cpu._simd import (
    MOST_VECTORS,
    copy_entries,
    prefetch,
    tile_add_dots,
    tile_add_products,
    tile_store,
    tile_zeros,
)
from fastnet.kernels.cpu._vector import BYTES

PANEL = 3  # vectors of a tile along K
ROWS = MOST_VECTORS // PANEL
STRIP = 4  # vectors along D
LEAST = 64  # features, at least a strip
SCRATCH = 2 * ROWS * BYTES // 4  # entries of a tile of two columns


def _tile(vectors):
    """The function that computes c[i, j] = sum over `count` steps of a[i] b[j] for one tile.

    Meanwhile it has the lines of `next_start`, `next_step` and so on in x fetched, one a step.
    """

    @kernel()
    def multiply(a, a_start, a_row, a_step, b, b_start, b_step, count, c, c_start, c_row, x, next_start, next_step):
        lanes = BYTES // a.itemsize
        sums = tile_zeros(ROWS, vectors, a)
        for t in range(count):
            prefetch(x, next_start + t * next_step)
            sums = tile_add_products(sums, a, a_start + t * a_step, a_row, b, b_start + t * b_step, lanes)
        tile_store(sums, c, c_start, c_row, lanes)

    return multiply


_tile_3, _tile_2, _tile_1 = _tile(3), _tile(2), _tile(1)


@kernel()
def _tiles(a, a_start, rows, a_row, a_step, b, b_start, k, count, c, c_start, x, next_start, next_row, next_step):
    """c[i, j] for i below `rows` and j below all whole vectors of k; b and c have rows of k entries."""
    lanes = BYTES // a.itemsize
    whole = k // lanes
    for r in range(0, rows, ROWS):
        i = min(r, rows - ROWS)
        at, to, ahead = a_start + i * a_row, c_start + i * k, next_start + i * next_row
        for v in range(0, whole, PANEL):
            j = v * lanes
            if whole - v >= 3:
                _tile_3(a, at, a_row, a_step, b, b_start + j, k, count, c, to + j, k, x, ahead, next_step)
            elif whole - v == 2:
                _tile_2(a, at, a_row, a_step, b, b_start + j, k, count, c, to + j, k, x, ahead, next_step)
            else:
                _tile_1(a, at, a_row, a_step, b, b_start + j, k, count, c, to + j, k, x, ahead, next_step)


def _dots(columns):
    """The function that computes neighbouring columns of y for `ROWS` rows of x.

    The scratch has room for a tile, and behind that, one after the other, the same columns of w.
    """

    @kernel()
    def multiply(x, x_start, d, count, scratch, s_start, y, y_start, k):
        lanes = BYTES // x.itemsize
        entries, column = x.reshape(-1), s_start + ROWS * columns * lanes
        sums = tile_zeros(ROWS, columns, x)
        for i in range(0, count - lanes + 1, lanes):
            sums = tile_add_dots(sums, x, x_start + i, d, scratch, column + i, count)
        tile_store(sums, scratch, s_start, columns * lanes, lanes)
        for r in range(ROWS):
            for c in range(columns):
                total = x.dtype.type(0)
                for i in range(lanes):
                    total += scratch[s_start + (r * columns + c) * lanes + i]
                for i in range(count // lanes * lanes, count):
                    total += entries[x_start + r * d + i] * scratch[column + c * count + i]
                y[y_start + r * k + c] = total

    return multiply


_two_columns, _one_column = _dots(2), _dots(1)


@kernel()
def forward_part(x, first, last, w, start, stop, scratch, s_start, y, y_start):
    """y[n, k] = sum of x[n, d] w[d, k] over d from start to stop, for n from first to last.

    y is flat, with row `first` from entry `y_start` on. The scratch has room for `SCRATCH` entries and two columns of
    stop - start from `s_start` on.
    """
    d, k, lanes, count = x.shape[1], w.shape[1], BYTES // x.itemsize, stop - start
    rows, x_start = last - first, first * d + start
    _tiles(x, x_start, rows, d, 1, w, start * k, k, count, y, y_start, x, x_start, d, 0)
    for j in range(k // lanes * lanes, k, 2):
        columns = min(2, k - j)
        column = s_start + ROWS * columns * lanes
        for c in range(columns):
            for i in range(count):
                scratch[column + c * count + i] = w[start + i, j + c]
        for r in range(0, rows, ROWS):
            i = min(r, rows - ROWS)
            at, to = x_start + i * d, y_start + i * k + j
            if columns == 2:
                _two_columns(x, at, d, count, scratch, s_start, y, to, k)
            else:
                _one_column(x, at, d, count, scratch, s_start, y, to, k)


@kernel()
def dw_part(x, dy, start, stop, scratch, s_start, dw):
    """dw[d, k] = sum over n of x[n, d] dy[n, k] for d from start to stop; dw is (D, K).

    Strips of x are copied first: down a column its rows are whole pages apart, which caches and prefetching do not
    like. The scratch has room for `SCRATCH` + N `STRIP` vectors from `s_start` on.
    """
    n, d = x.shape
    k, lanes = dy.shape[1], BYTES // x.itemsize
    strip = STRIP * lanes
    panel = s_start + SCRATCH
    for first in range(start, stop, strip):
        at = min(first, stop - strip)
        for i in range(n):
            copy_entries(x, i * d + at, scratch, panel + i * strip, strip)
        _tiles(scratch, panel, strip, 1, strip, dy, 0, k, n, dw, at * k, x, at + strip, 1, d)
        for j in range(k // lanes * lanes, k, 2):
            # Two columns at a time, so that the products need not wait for one another; a last one alone is one twice.
            other = min(1, k - j - 1)
            sums = tile_zeros(2, STRIP, x)
            for i in range(n):
                sums = tile_add_products(sums, dy, i * k + j, other, scratch, panel + i * strip, lanes)
            tile_store(sums, scratch, s_start, strip, lanes)
            for c in range(1 + other):
                for i in range(strip):
                    dw[at + i, j + c] = scratch[s_start + c * strip + i]
