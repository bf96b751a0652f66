"""Winograd's F(4x4, 3x3): a 3x3 convolution with stride 1 by 36 products a tile of 4x4 outputs; direct sums take 144.

A tile sees 6x6 inputs d. With g the filter, for each pair of channels,

    y  = A^T [ sum over C of (G g G^T) * (B^T d B) ] A          the products, point by point, are 36 matrix products
    dg = G^T [ sum over tiles of (B^T d B) * (A dy A^T) ] G
    dx = the same convolution of dy with g rotated by 180 degrees and its channels swapped

The points are 0, +-1, +-2 and infinity. A block of tiles goes through transform, products and inverse transform in one
go, in buffers that stay in a core's cache: nothing of 36/16 of the images' size is ever in memory. Blocks and sums are
fixed by the shape, so the bits do not depend on the number of threads.

It rounds more than a direct sum: in float32 by some 1e-5 of the largest value, in float64 by 1e-14.

Sources: Winograd, "Arithmetic complexity of computations", 1980; Lavin & Gray, "Fast algorithms for convolutional
neural networks", 2016, section 4.3.
"""

import numba
import numpy as np
from numba import prange

from fastnet.arrays import contiguous, empty, zeros
from fastnet.kernels.cpu._jit import parallel_kernel
from fastnet.kernels.cpu._products import CHANNELS, PANEL, ROWS, product, product_of_tiles
from fastnet.kernels.cpu._vector import LANES
from fastnet.kernels.cpu._winograd_transforms import (
    POINTS,
    filter_gradient,
    filters,
    inputs,
    output_gradients,
    outputs,
    transposed,
)

LEAST_TILES = 16  # with fewer, transforming the filters costs more than the products save
CACHED = 1 << 18  # entries of the transformed tiles of a block: 1 MB in float32, in a core's second-level cache
FILTERS = 1 << 20  # entries of transformed filters that a core can keep beside them
WHOLE = 1 << 22  # entries of the transformed tiles where the threads share out the points instead: 16 MB
CHUNKS = 16  # at most so many sums of dw side by side: so many threads can work at it


def applies(w_shape, g):
    """Whether the algorithm is defined: 3x3 taps next to each other, at every place, all channels together."""
    return (tuple(w_shape[:2]) == (3, 3) and g.groups == 1 and g.stride_h == g.stride_w == 1
            and g.dilation_h == g.dilation_w == 1)


def tiles(images, g):
    """The number of tiles."""
    return images * -(-g.out_h // 4) * -(-g.out_w // 4)


def forward(x, w, b, g):
    return _convolved(x, _whole_vectors(w, 2), w.shape[3], b, g, False)


def dx(dy, w, x_shape, g):
    wide = _whole_vectors(w, 2)
    turned = empty((3, 3, wide.shape[3], wide.shape[2]), w.dtype)
    transposed.sized(wide.size)(wide, turned)
    back = g._replace(out_h=x_shape[1], out_w=x_shape[2], pad_h=2 - g.pad_h, pad_w=2 - g.pad_w)
    return _convolved(dy, turned, w.shape[2], None, back, True)


def dw(x, dy, w_shape, g):
    c, k = w_shape[2:]
    x, dy = _whole_vectors(x, 1), _whole_vectors(dy, 1)
    channels, features = x.shape[3], dy.shape[3]
    count = tiles(len(x), g)
    work = count * channels * features
    block = min(count, max(ROWS, 2 * CACHED // (POINTS * (channels + features))))
    chunks = min(CHUNKS, WHOLE // (POINTS * channels * features), count // block)
    dtype = x.dtype
    gradient = empty((3, 3, channels, features), dtype)
    if chunks > 1:
        chunks = 1 << (chunks.bit_length() - 1)  # a power of two, which threads can share evenly
        sums = empty((chunks, POINTS, channels, features), dtype)
        scratch = empty((numba.get_num_threads(), 2, POINTS * (block * max(channels, features) + 16)), dtype)
        _dw_by_tiles.sized(work)(x, dy, g, block, scratch, sums)
    else:
        block = min(count, max(block, WHOLE // (POINTS * (channels + features))))
        sums = empty((1, POINTS, channels, features), dtype)
        v, s = (empty(POINTS * (block * width + 16), dtype) for width in (channels, features))
        _dw_by_points.sized(work)(x, dy, g, block, v, s, sums)
    filter_gradient.sized(sums.size)(sums, gradient)
    return gradient if (channels, features) == (c, k) else contiguous(gradient[:, :, :c, :k])


def _convolved(x, w, features, b, g, rotated):
    """The convolution of x (N, H, W, C) with w (3, 3, C', K'), rotated if so asked; C' and K' fill vectors."""
    x = _whole_vectors(x, 1)
    channels, width = w.shape[2:]
    u = empty((POINTS, channels, width), x.dtype)
    filters.sized(u.size)(w, rotated, u)
    y = empty((len(x), g.out_h, g.out_w, width), x.dtype)
    bias = zeros(width, x.dtype)
    if b is not None:
        bias[:features] = b
    count = tiles(len(x), g)
    work = count * channels * width
    by_tiles = u.size <= FILTERS
    block = _rounded(min(count, max(ROWS, (CACHED if by_tiles else WHOLE) // (POINTS * (channels + width)))))
    sizes = [POINTS * (block * n + 16) for n in (channels, width)]
    if by_tiles:
        threads = numba.get_num_threads()
        v, m = (empty((threads, size), x.dtype) for size in sizes)
        _by_tiles.sized(work)(x, u, bias, g, block, v, m, y)
    else:
        v, m = (empty(size, x.dtype) for size in sizes)
        _by_points.sized(work)(x, u, bias, g, block, v, m, y)
    return y if width == features else contiguous(y[..., :features])


def _whole_vectors(x, axes):
    """x with zeros behind its last axes up to a multiple of a vector's entries: x itself where that is nothing."""
    missing = [(0, 0)] * (x.ndim - axes) + [(0, -size % LANES[x.dtype]) for size in x.shape[-axes:]]
    return np.pad(x, missing) if any(after for _, after in missing) else x


def _rounded(count):
    return -(-count // ROWS) * ROWS


# From one point to the next it is 16 entries more than the point takes: all points' lines would share a cache set else.

@parallel_kernel()
def _by_tiles(x, u, bias, g, block, v, m, y):
    """Each thread takes blocks of tiles, and has the filters in its cache."""
    channels, width = u.shape[1:]
    lanes = 64 // x.itemsize
    total = len(x) * ((g.out_h + 3) // 4) * ((g.out_w + 3) // 4)
    v_step, m_step = block * channels + 16, block * width + 16
    zeros = np.zeros(channels, x.dtype)
    for number in prange((total + block - 1) // block):
        own_v, own_m = v[numba.get_thread_id()], m[numba.get_thread_id()]
        rest = np.empty(width, x.dtype)
        first = np.intp(number) * block
        count = min(block, total - first)
        inputs(x, zeros, g.out_h, g.out_w, g.pad_h, g.pad_w, first, count, own_v, 0, block, v_step)
        for point in range(POINTS):
            for k in range(0, width, PANEL * lanes):
                product(own_v, point * v_step, block, count, channels, u, point * channels * width, k, width,
                        own_m, point * m_step)
        outputs(own_m, 0, block, m_step, bias, rest, first, count, y)


@parallel_kernel()
def _by_points(x, u, bias, g, block, v, m, y):
    """Each thread takes points, and so its part of the filters: all of them are too large for a core's cache."""
    channels, width = u.shape[1:]
    lanes = 64 // x.itemsize
    total = len(x) * ((g.out_h + 3) // 4) * ((g.out_w + 3) // 4)
    panels = (width + PANEL * lanes - 1) // (PANEL * lanes)
    v_step, m_step = block * channels + 16, block * width + 16
    zeros = np.zeros(channels, x.dtype)
    for first in range(0, total, block):
        count = min(block, total - first)
        for part in prange((count + ROWS - 1) // ROWS):
            begin = np.intp(part) * ROWS
            inputs(x, zeros, g.out_h, g.out_w, g.pad_h, g.pad_w, first + begin, min(ROWS, count - begin), v, begin,
                   block, v_step)
        for unit in prange(POINTS * panels):
            point, panel = divmod(np.intp(unit), panels)
            product(v, point * v_step, block, count, channels, u, point * channels * width, panel * PANEL * lanes,
                    width, m, point * m_step)
        for part in prange((count + ROWS - 1) // ROWS):
            begin = np.intp(part) * ROWS
            rest = np.empty(width, x.dtype)
            outputs(m, begin, block, m_step, bias, rest, first + begin, min(ROWS, count - begin), y)


@parallel_kernel()
def _dw_by_tiles(x, dy, g, block, scratch, sums):
    """Each chunk of the tiles has a sum of its own, which stays in a core's cache."""
    chunks, _, channels, features = sums.shape
    total = len(x) * ((g.out_h + 3) // 4) * ((g.out_w + 3) // 4)
    v_step, s_step = block * channels + 16, block * features + 16
    zeros = np.zeros(max(channels, features), x.dtype)
    flat = sums.reshape(-1)
    for chunk in prange(chunks):
        v, s = scratch[numba.get_thread_id(), 0], scratch[numba.get_thread_id(), 1]
        start, stop = total * np.intp(chunk) // chunks, total * (np.intp(chunk) + 1) // chunks
        for first in range(start, stop, block):
            count = min(block, stop - first)
            inputs(x, zeros, g.out_h, g.out_w, g.pad_h, g.pad_w, first, count, v, 0, block, v_step)
            output_gradients(dy, zeros, first, count, s, 0, block, s_step)
            for point in range(POINTS):
                for c in range(0, channels, CHANNELS):
                    product_of_tiles(v, point * v_step, s, point * s_step, block, count, c, features, flat,
                                     (np.intp(chunk) * POINTS + point) * channels * features, first > start)


@parallel_kernel()
def _dw_by_points(x, dy, g, block, v, s, sums):
    """One sum, too large for a core's cache: the tiles are transformed first, then each thread takes its points."""
    _, _, channels, features = sums.shape
    total = len(x) * ((g.out_h + 3) // 4) * ((g.out_w + 3) // 4)
    v_step, s_step = block * channels + 16, block * features + 16
    zeros = np.zeros(max(channels, features), x.dtype)
    rows = channels // CHANNELS
    flat = sums.reshape(-1)
    for first in range(0, total, block):
        count = min(block, total - first)
        for part in prange((count + ROWS - 1) // ROWS):
            begin = np.intp(part) * ROWS
            some = min(ROWS, count - begin)
            inputs(x, zeros, g.out_h, g.out_w, g.pad_h, g.pad_w, first + begin, some, v, begin, block, v_step)
            output_gradients(dy, zeros, first + begin, some, s, begin, block, s_step)
        for unit in prange(POINTS * rows):
            point, row = divmod(np.intp(unit), rows)
            product_of_tiles(v, point * v_step, s, point * s_step, block, count, row * CHANNELS, features, flat,
                             point * channels * features, first > 0)
