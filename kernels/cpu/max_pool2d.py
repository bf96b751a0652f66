"""Max pooling as in `fastnet.ops.max_pool2d`, over vectors of channels.

The number of each winner's tap is kept in a byte (four where a window has more than 255 taps): backward then reads
that and dy alone.

Windows of few taps that lie inside the image go without loops, for which the kernels are compiled for their size;
those at the edges and large ones go tap by tap.
"""

from typing import NamedTuple

import numpy as np
from numba import carray

from fastnet.arrays import contiguous, empty
from fastnet.kernels.cpu import _pool
from fastnet.kernels.cpu._blocks import block_kernel, constant
from fastnet.kernels.cpu._channels import (
    add,
    larger,
    load_numbers,
    load_part,
    number_where_positive,
    numbered,
    numbers_at,
    opaque,
    positive,
    store_numbers,
    store_part,
    where_number,
    winner,
)
from fastnet.kernels.cpu._geometry import Images
from fastnet.kernels.cpu._jit import kernel
from fastnet.kernels.cpu._pool import Geometry, clear_rows, seen, whole
from fastnet.kernels.cpu._vector import BYTES

UNROLLED = 9  # taps of the largest window that is compiled without loops
BLOCKS = 64


class _Plan(NamedTuple):
    channels: int
    block_rows: int  # rows of windows
    flag: int  # forward: whether ReLU comes first; backward: whether there are entries that no window sees


def supports(x, *, window, stride=None, pad=0, ceil_mode=False):
    return _pool.supports("max_pool2d", x, window, stride, pad, ceil_mode)


def forward(x, *, window, stride=None, pad=0, ceil_mode=False):
    return largest(x, _pool.geometry("max_pool2d", x.shape[1:3], window, stride, pad, ceil_mode), False)


def largest(x, g, relu):
    """y and what `backward` needs; with `relu` y is max(0, the largest), and where that is 0 nothing has won."""
    n, height, width, channels = x.shape
    y = empty((n, g.out_h, g.out_w, channels), x.dtype)
    winners = empty(y.shape, np.uint8 if g.window_h * g.window_w < 256 else np.int32)
    rows = -(-n * g.out_h // BLOCKS)
    _forward(-(-n * g.out_h // rows), x.size, (contiguous(x), y, winners),
             (Images(n, height, width), g, _Plan(channels, rows, relu)), _tile(g))
    return y, (winners, x.shape, g)


def backward(dy, cache, needs=None):
    if needs is not None and not needs[0]:
        return (None,)
    winners, shape, g = cache
    n, height, width, channels = shape
    dx = empty(shape, dy.dtype)
    blocks, rows = _pool.backward_blocks(n, g)
    covered = (g.window_h == g.stride_h and g.out_h * g.stride_h - g.pad_h >= height
               and g.window_w == g.stride_w and g.out_w * g.stride_w - g.pad_w >= width)
    _backward(blocks, dx.size, (contiguous(dy), dx, winners),
              (Images(n, height, width), g, _Plan(channels, rows, not covered)), _tile(g))
    return (dx,)


def _tile(g):
    """What the kernels are compiled for: (height, width) of the window; (0, bytes of a winner) for large ones."""
    taps = g.window_h * g.window_w
    return (g.window_h, g.window_w) if taps <= UNROLLED else (0, 1 if taps < 256 else 4)


@block_kernel(Images, Geometry, _Plan)
def _forward(arrays, numbers, window_h, window_w, block, thread):
    x, y, winners = carray(arrays[0], 1), carray(arrays[1], 1), carray(numbers_at(arrays[2], window_h, window_w), 1)
    g = plan = carray(numbers, 1)[0]
    lanes = BYTES // x.itemsize
    channels, width = plan.channels, plan.width
    row, relu, nothing = width * channels, plan.flag, plan.window_h * plan.window_w  # which is the number of no tap
    for r in range(block * plan.block_rows, min(plan.images * plan.out_h, (block + 1) * plan.block_rows)):
        image, p = r // plan.out_h, r % plan.out_h
        top = p * plan.stride_h - plan.pad_h
        first, stop = whole(g, p, plan.height, width, window_h, window_w)
        for q in range(plan.out_w):
            at = ((image * plan.height + top) * width + q * plan.stride_w - plan.pad_w) * channels
            for c in range(0, channels, lanes):
                count = min(lanes, channels - c)
                if first <= q < stop:
                    best, number = _whole_window(x, at + c, row, channels, count, constant(window_h),
                                                 constant(window_w))
                else:
                    best, number = _window(x, seen(g, image, p, q, plan.height, width, channels), c, row, channels,
                                           count, plan.window_w)
                if relu:
                    number = number_where_positive(best, number, nothing)
                    best = positive(best)
                out = (r * plan.out_w + q) * channels + c
                store_part(y, out, best, count)
                store_numbers(winners, out, number, count)


@kernel(inline="always")
def _whole_window(x, at, row, channels, count, rows, columns):
    """The largest entries of a window of constant size, from entry `at` on, and their taps."""
    best = load_part(x, at, count)
    number = numbered(0, best)
    for i in range(rows):
        for j in range(columns):
            patch = load_part(x, at + i * row + j * channels, count)
            number = winner(patch, best, i * columns + j, number)
            best = larger(patch, best)
    return best, number


@kernel(inline="always")
def _window(x, place, c, row, channels, count, window_w):
    """The same of a window of any size, or of what the image has of it, which is what `seen` says."""
    at, rows, columns, first_tap = place
    best = load_part(x, at + c, count)
    number = numbered(first_tap, best)
    i = 0
    while i < rows:
        start, tap = at + i * row + c, first_tap + i * window_w
        i = opaque(i + 1)
        j = 0
        while j < columns:
            patch = load_part(x, start + j * channels, count)
            number = winner(patch, best, tap + j, number)
            best = larger(patch, best)
            j = opaque(j + 1)
    return best, number


@block_kernel(Images, Geometry, _Plan)
def _backward(arrays, numbers, window_h, window_w, block, thread):
    g = plan = carray(numbers, 1)[0]
    channels, width = plan.channels, plan.width
    row = width * channels
    dy, winners = carray(arrays[0], 1), carray(numbers_at(arrays[2], window_h, window_w), 1)
    dx = carray(arrays[1], (plan.images, plan.height, row))
    lanes = BYTES // dy.itemsize
    adding = plan.stride_h < plan.window_h or plan.stride_w < plan.window_w
    image, first_p = block * plan.block_rows // plan.out_h, block * plan.block_rows % plan.out_h
    if plan.flag:
        clear_rows(dx, image, first_p, first_p + plan.block_rows, g)
    for p in range(first_p, first_p + plan.block_rows):
        top = p * plan.stride_h - plan.pad_h
        first, stop = whole(g, p, plan.height, width, window_h, window_w)
        for q in range(plan.out_w):
            at = ((image * plan.height + top) * width + q * plan.stride_w - plan.pad_w) * channels
            for c in range(0, channels, lanes):
                count = min(lanes, channels - c)
                out = ((image * plan.out_h + p) * plan.out_w + q) * channels + c
                share = load_part(dy, out, count)
                number = load_numbers(winners, out, count, share)
                if first <= q < stop:
                    _to_whole_window(share, number, dx, at + c, row, channels, count, constant(window_h),
                                     constant(window_w), adding)
                else:
                    _to_window(share, number, dx, seen(g, image, p, q, plan.height, width, channels), c, row,
                               channels, count, plan.window_w, adding)


@kernel(inline="always")
def _to_whole_window(share, number, dx, at, row, channels, count, rows, columns, adding):
    for i in range(rows):
        for j in range(columns):
            _to_entry(where_number(number, i * columns + j, share), dx, at + i * row + j * channels, count, adding)


@kernel(inline="always")
def _to_window(share, number, dx, place, c, row, channels, count, window_w, adding):
    at, rows, columns, first_tap = place
    i = 0
    while i < rows:
        start, tap = at + i * row + c, first_tap + i * window_w
        i = opaque(i + 1)
        j = 0
        while j < columns:
            _to_entry(where_number(number, tap + j, share), dx, start + j * channels, count, adding)
            j = opaque(j + 1)


@kernel(inline="always")
def _to_entry(part, dx, place, count, adding):
    if adding:
        part = add(load_part(dx, place, count), part)
    store_part(dx, place, part, count)
