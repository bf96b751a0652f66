"""Max pooling as in `fastnet.ops.max_pool2d`, over vectors of channels.

The number of each winner's tap is kept in a byte (four where a window has more than 255 taps): backward then reads
that and dy alone.
"""

import numpy as np
from numba import prange

from fastnet.arrays import contiguous, empty
from fastnet.kernels.cpu import _pool
from fastnet.kernels.cpu._channels import (
    add,
    larger,
    load_numbers,
    load_part,
    number_where_positive,
    numbered,
    opaque,
    positive,
    store_numbers,
    store_part,
    where_number,
    winner,
)
from fastnet.kernels.cpu._jit import kernel, parallel_kernel
from fastnet.kernels.cpu._pool import clear_rows, seen
from fastnet.kernels.cpu._vector import LANES


def supports(x, *, window, stride=None, pad=0, ceil_mode=False):
    return _pool.supports("max_pool2d", x, window, stride, pad, ceil_mode)


def forward(x, *, window, stride=None, pad=0, ceil_mode=False):
    return largest(x, _pool.geometry("max_pool2d", x, window, stride, pad, ceil_mode), False)


def largest(x, g, relu):
    """y and what `backward` needs; with `relu` y is max(0, the largest), and where that is 0 nothing has won."""
    n, height, width, channels = x.shape
    y = empty((n, g.out_h, g.out_w, channels), x.dtype)
    winners = empty(y.shape, np.uint8 if g.window_h * g.window_w < 256 else np.int32)
    _forward(contiguous(x).reshape(-1), n, height, width, g, LANES[x.dtype], relu, y.reshape(-1),
             winners.reshape(-1))
    return y, (winners, x.shape, g)


def backward(dy, cache, needs=None):
    if needs is not None and not needs[0]:
        return (None,)
    winners, shape, g = cache
    n, height, _, channels = shape
    dx = empty(shape, dy.dtype)
    blocks, rows = _pool.backward_blocks(n, g)
    _backward.sized(dx.size)(contiguous(dy).reshape(-1), winners.reshape(-1), blocks, rows, channels, g,
                             LANES[dy.dtype], dx.reshape(n, height, -1))
    return (dx,)


@kernel()
def _forward_place(x, at, row, channels, rows, columns, number, g, lanes, relu, y, winners, out):
    """One window: `rows` rows of `columns` entries from entry `at` on, of which the first is tap `number`."""
    for c in range(0, channels, lanes):
        count = min(lanes, channels - c)
        best = load_part(x, at + c, count)
        best_number = numbered(number, best)
        i = 0
        while i < rows:
            seen, tap = at + i * row + c, number + i * g.window_w
            i = opaque(i + 1)
            j = 0
            while j < columns:
                patch = load_part(x, seen + j * channels, count)
                best_number = winner(patch, best, tap + j, best_number)
                best = larger(patch, best)
                j = opaque(j + 1)
        if relu:
            best_number = number_where_positive(best, best_number, g.window_h * g.window_w)  # which no tap has
            best = positive(best)
        store_part(y, out + c, best, count)
        store_numbers(winners, out + c, best_number, count)


@parallel_kernel()
def _forward(x, n, height, width, g, lanes, relu, y, winners):
    channels = x.size // (n * height * width)
    for row in prange(n * g.out_h):
        for q in range(g.out_w):
            at, rows, columns, tap = seen(g, row // g.out_h, row % g.out_h, q, height, width, channels)
            _forward_place(x, at, width * channels, channels, rows, columns, tap, g, lanes, relu, y, winners,
                           (row * g.out_w + q) * channels)


@kernel()
def _backward_place(dy, winners, out, channels, dx, at, row, rows, columns, number, window_w, lanes, adding):
    for c in range(0, channels, lanes):
        count = min(lanes, channels - c)
        share = load_part(dy, out + c, count)
        numbers = load_numbers(winners, out + c, count, share)
        i = 0
        while i < rows:
            seen, tap = at + i * row + c, number + i * window_w
            i = opaque(i + 1)
            j = 0
            while j < columns:
                place = seen + j * channels
                part = where_number(numbers, tap + j, share)
                if adding:
                    part = add(load_part(dx, place, count), part)
                store_part(dx, place, part, count)
                j = opaque(j + 1)


@parallel_kernel()
def _backward(dy, winners, blocks, rows, channels, g, lanes, dx):
    _, height, row_size = dx.shape
    width = row_size // channels
    adding = g.stride_h < g.window_h or g.stride_w < g.window_w
    for block in prange(blocks):
        image, first_p = block * rows // g.out_h, block * rows % g.out_h
        clear_rows(dx, image, first_p, first_p + rows, g)
        for p in range(first_p, first_p + rows):
            for q in range(g.out_w):
                at, down, across, tap = seen(g, image, p, q, height, width, channels)
                _backward_place(dy, winners, ((image * g.out_h + p) * g.out_w + q) * channels, channels, dx, at,
                                row_size, down, across, tap, g.window_w, lanes, adding)
