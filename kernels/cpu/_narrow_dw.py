"""The gradient of a convolution's weights for few channels, directly, image by image.

dw is a sum of outer products, one a place: (a window of x) x (a pixel of dy). One of the two has to fill vectors:
the pixel where its channels are a multiple of the lanes, otherwise the row of a window, which lies in one piece
(5 taps x 3 channels = 15 of 16 lanes). The other's numbers are multiplied in one by one. A tile of sums stays in
registers (`_simd`) through all places of an image.

Sums are kept for blocks of IMAGES images and added in order: the same bits for any number of threads.
"""

from typing import NamedTuple

import numpy as np
from numba import carray

from fastnet.arrays import given, zeros
from fastnet.kernels.cpu._blocks import block_kernel
from fastnet.kernels.cpu._border import blank, place
from fastnet.kernels.cpu._geometry import Geometry, Images
from fastnet.kernels.cpu._jit import kernel
from fastnet.kernels.cpu._simd import (
    AVX512,
    BYTES,
    copy_entries,
    tile_add_products,
    tile_add_to,
    tile_zeros,
    zero_entries,
)

IMAGES = 8
ENTRIES = 10 if AVX512 else 5  # the tile's entries of a window, where pixels of dy are the vectors
# Its outputs and rows of a window, where those are the vectors: three rows at a time, then what is left of them by two.
OUTPUTS, TAPS, REST = (6, 3, 2) if AVX512 else (6, 1, 1)


class _Plan(NamedTuple):
    """Shapes and what follows from them. The sizes of the sums are up to whole numbers of tiles."""

    channels: int
    outputs: int
    kh: int  # of the sums, as the next three
    runs: int  # pieces that a row of a window falls into: with dilation its taps, otherwise one
    run: int  # entries of a piece
    kept: int  # outputs
    rows: int  # of an image with all that the tiles see
    columns: int


def dw(x, dy, w_shape, g, into=None):
    n, height, width, channels = x.shape
    kh, kw, _, outputs = w_shape
    lanes = BYTES // x.itemsize
    blocks = -(-n // IMAGES)
    runs, run = (kw, channels) if g.dilation_w > 1 else (1, kw * channels)
    by_pixels = outputs % lanes == 0
    if by_pixels:
        sizes = kh, runs, _up(run, ENTRIES), outputs
        sums = zeros((blocks, kh, runs, sizes[2], outputs), x.dtype)
    else:
        sizes = kh // TAPS * TAPS + (REST if kh % TAPS else 0), runs, _up(run, lanes), _up(outputs, OUTPUTS)
        sums = zeros((blocks, sizes[3], *sizes[:3]), x.dtype)
    rows = max(g.pad_h + height, (g.out_h - 1) * g.stride_h + (sizes[0] - 1) * g.dilation_h + 1)
    columns = max(g.pad_w + width, (g.out_w - 1) * g.stride_w + (kw - 1) * g.dilation_w + 1)
    numbers = Images(n, height, width), g, _Plan(channels, outputs, *sizes, rows, columns)
    work = dy.size * kh * kw * channels // 8  # eight multiply-adds take no longer than a simple operation
    if by_pixels:
        _by_pixels(blocks, work, (x, dy, sums), numbers, (ENTRIES, 1))
    else:
        _by_windows(blocks, work, (x, dy, sums), numbers, (OUTPUTS, TAPS))
    total = sums.sum(0)
    total = total[:, :, :run] if by_pixels else total[:outputs, :kh, :, :run].transpose(1, 2, 3, 0)
    dw = given(into, w_shape, x.dtype)
    dw.reshape(total.shape)[...] = total
    return dw


def _up(number, step):
    return -(-number // step) * step


@block_kernel(Images, Geometry, _Plan)
def _by_pixels(arrays, numbers, rows, vectors, block, thread):
    """sums (blocks, KH, runs, entries of a run, K)."""
    x, dy, sums, plan = carray(arrays[0], 1), carray(arrays[1], 1), carray(arrays[2], 1), carray(numbers, 1)[0]
    lanes = BYTES // x.itemsize
    channels, outputs, run, out_w = plan.channels, plan.outputs, plan.run, plan.out_w
    step, line = plan.stride_w * channels, plan.columns * channels
    image = blank(plan.rows, plan.columns, plan.channels, plan.run, x)
    for n in range(block * IMAGES, min(plan.images, (block + 1) * IMAGES)):
        place(x, n, plan.height, plan.width, plan.channels, plan.pad_h, plan.pad_w, plan.columns, image)
        to = block * plan.kh * plan.runs * run * outputs
        for i in range(plan.kh):
            for j in range(plan.runs):
                corner = i * plan.dilation_h * line + j * plan.dilation_w * channels
                for r in range(0, run, rows):
                    for k in range(0, outputs, lanes):
                        tile = tile_zeros(rows, vectors, x)
                        for p in range(plan.out_h):
                            at = corner + p * plan.stride_h * line + r
                            pixel = (n * plan.out_h + p) * out_w * outputs + k
                            for q in range(out_w):
                                tile = tile_add_products(tile, image, at + q * step, 1, dy, pixel + q * outputs, 0)
                        tile_add_to(tile, sums, to + r * outputs + k, outputs, 0)
                to += run * outputs


@block_kernel(Images, Geometry, _Plan)
def _by_windows(arrays, numbers, rows, vectors, block, thread):
    """sums (blocks, K, KH, runs, entries of a run)."""
    x, dy, sums, plan = carray(arrays[0], 1), carray(arrays[1], 1), carray(arrays[2], 1), carray(numbers, 1)[0]
    lanes = BYTES // x.itemsize
    image = blank(plan.rows, plan.columns, plan.channels, plan.run, x)
    size = plan.out_h * plan.out_w * plan.outputs
    ragged = plan.kept > plan.outputs  # then the last tile of outputs reads beyond the last pixel
    pixels = np.empty(size + rows, x.dtype) if ragged else dy
    if ragged:
        zero_entries(pixels, size, rows)
    tap = plan.runs * plan.run
    for n in range(block * IMAGES, min(plan.images, (block + 1) * IMAGES)):
        place(x, n, plan.height, plan.width, plan.channels, plan.pad_h, plan.pad_w, plan.columns, image)
        if ragged:
            copy_entries(dy, n * size, pixels, 0, size)
        first = 0 if ragged else n * size
        for j in range(plan.runs):
            for r in range(0, plan.run, lanes):
                for k in range(0, plan.kept, rows):
                    for i in range(0, plan.kh, vectors):
                        at = (i * plan.dilation_h * plan.columns + j * plan.dilation_w) * plan.channels + r
                        to = ((block * plan.kept + k) * plan.kh + i) * tap + j * plan.run + r
                        if plan.kh - i >= vectors:
                            tile = _products(tile_zeros(rows, vectors, x), pixels, first + k, image, at, plan)
                            tile_add_to(tile, sums, to, plan.kh * tap, tap)
                        else:
                            rest = _products(tile_zeros(rows, REST, x), pixels, first + k, image, at, plan)
                            tile_add_to(rest, sums, to, plan.kh * tap, tap)


@kernel(inline="always")
def _products(tile, pixels, first, image, at, plan):
    """The tile plus the products of pixels (OH, OW, K) from entry `first` on and of the windows from `at` on."""
    line, step, outputs = plan.columns * plan.channels, plan.stride_w * plan.channels, plan.outputs
    for p in range(plan.out_h):
        pixel, corner = p * plan.out_w * outputs + first, at + p * plan.stride_h * line
        for q in range(plan.out_w):
            tile = tile_add_products(tile, pixels, pixel + q * outputs, 1, image, corner + q * step,
                                     plan.dilation_h * line)
    return tile
