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

from typing import NamedTuple

import numba
import numpy as np
from numba import carray

from fastnet.arrays import contiguous, empty, zeros
from fastnet.kernels.cpu._blocks import block_kernel
from fastnet.kernels.cpu._geometry import Geometry, Images
from fastnet.kernels.cpu._products import CHANNELS, PANEL, ROWS, product, product_of_tiles
from fastnet.kernels.cpu._vector import BYTES, LANES
from fastnet.kernels.cpu._winograd_filters import filter_gradient, filters, transposed
from fastnet.kernels.cpu._winograd_transforms import POINTS, inputs, output_gradients, outputs

LEAST_TILES = 16  # with fewer, transforming the filters costs more than the products save
CACHED = 1 << 18  # entries of the transformed tiles of a block: 1 MB in float32, in a core's second-level cache
FILTERS = 1 << 20  # entries of transformed filters that a core can keep beside them
WHOLE = 1 << 22  # entries, 16 MB in float32: of the transformed tiles where the threads share out the points instead;
                 # of all sums of dw where they do not
CHUNKS = 16  # at most so many sums of dw side by side: so many threads can work at it
PART = 2 * ROWS  # tiles that a thread transforms at a time where the threads share out the points


class _Plan(NamedTuple):
    """How the work is cut."""

    channels: int  # of x, as many as fill vectors
    features: int  # of y, likewise
    tiles: int
    block: int  # tiles transformed at a time; as many as the buffers hold
    v_step: int  # entries from one point to the next, of transformed tiles of x
    m_step: int  # and of y. 16 more than they take: the lines of all points would share a cache set else
    first: int = 0  # tile of the buffers' first, and how many there are in them, where the threads share out the points
    count: int = 0
    chunks: int = 0  # sums of dw


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
    back = g._replace(out_h=x_shape[1], out_w=x_shape[2], pad_h=2 - g.pad_h, pad_w=2 - g.pad_w)
    return _convolved(dy, transposed(_whole_vectors(w, 2)), w.shape[2], None, back, True)


def dw(x, dy, w_shape, g):
    x, dy = _whole_vectors(x, 1), _whole_vectors(dy, 1)
    channels, features = x.shape[3], dy.shape[3]
    images = Images(*x.shape[:3])
    plan = _plan(x, features, g, 2 * CACHED)
    chunks = min(CHUNKS, WHOLE // (POINTS * channels * features), plan.tiles // plan.block)
    work = plan.tiles * channels * features
    if chunks > 1:
        plan = plan._replace(chunks=1 << (chunks.bit_length() - 1))  # a power of two, which threads can share evenly
        sums = empty((plan.chunks, POINTS, channels, features), x.dtype)
        v, s = _buffers(plan, x.dtype, numba.get_num_threads())
        _dw_by_tiles(plan.chunks, work, (x, dy, v, s, sums), (images, g, plan))
    else:
        plan = _plan(x, features, g, WHOLE)
        sums = empty((1, POINTS, channels, features), x.dtype)
        v, s = _buffers(plan, x.dtype, 1)
        for part in _parts(plan):
            _transform_inputs(-(-part.count // PART), work, (x, v), (images, g, part))
            _transform_gradients(-(-part.count // PART), work, (dy, s), (images, g, part))
            _sum_products(POINTS * (channels // CHANNELS), work, (v, s, sums), (images, g, part))
    gradient = filter_gradient(sums)
    return gradient if gradient.shape == tuple(w_shape) else contiguous(gradient[:, :, : w_shape[2], : w_shape[3]])


def _convolved(x, w, features, b, g, rotated):
    """The convolution of x (N, H, W, C) with w (3, 3, C', K'), rotated if so asked; C' and K' fill vectors."""
    x = _whole_vectors(x, 1)
    channels, width = w.shape[2:]
    u = filters(w, rotated)
    y = empty((len(x), g.out_h, g.out_w, width), x.dtype)
    bias = zeros(width, x.dtype)
    if b is not None:
        bias[:features] = b
    images, work = Images(*x.shape[:3]), tiles(len(x), g) * channels * width
    if u.size <= FILTERS:
        plan = _plan(x, width, g, CACHED)
        v, m = _buffers(plan, x.dtype, numba.get_num_threads())
        _by_tiles(-(-plan.tiles // plan.block), work, (x, u, bias, v, m, y),
                  (images, g, plan))
    else:
        plan = _plan(x, width, g, WHOLE)
        v, m = _buffers(plan, x.dtype, 1)
        for part in _parts(plan):
            _transform_inputs(-(-part.count // PART), work, (x, v), (images, g, part))
            _products(POINTS * -(-width // (PANEL * LANES[x.dtype])), work, (v, u, m), (images, g, part))
            _transform_outputs(-(-part.count // PART), work, (m, bias, y), (images, g, part))
    return y if width == features else contiguous(y[..., :features])


def _plan(x, features, g, entries):
    """The plan for blocks of about so many entries of transformed tiles."""
    channels = x.shape[3]
    count = tiles(len(x), g)
    block = min(count, max(ROWS, entries // (POINTS * (channels + features))))
    block = -(-block // ROWS) * ROWS
    return _Plan(channels, features, count, block, block * channels + 16, block * features + 16)


def _buffers(plan, dtype, threads):
    """Room for a block of transformed tiles of x and of y, for each thread."""
    return empty((threads, POINTS * plan.v_step), dtype), empty((threads, POINTS * plan.m_step), dtype)


def _parts(plan):
    """The plan of each block in turn."""
    for first in range(0, plan.tiles, plan.block):
        yield plan._replace(first=first, count=min(plan.block, plan.tiles - first))


def _whole_vectors(x, axes):
    """x with zeros behind its last axes up to a multiple of a vector's entries: x itself where that is nothing."""
    missing = [(0, 0)] * (x.ndim - axes) + [(0, -size % LANES[x.dtype]) for size in x.shape[-axes:]]
    return np.pad(x, missing) if any(after for _, after in missing) else x


# Filters that fit a core's cache: each thread takes blocks of tiles from the images to the result.

@block_kernel(Images, Geometry, _Plan)
def _by_tiles(arrays, numbers, rows, vectors, number, thread):
    p = carray(numbers, 1)[0]
    x, y = (carray(arrays[0], (p.images, p.height, p.width, p.channels)),
            carray(arrays[5], (p.images, p.out_h, p.out_w, p.features)))
    u, bias, v, m = carray(arrays[1], 1), carray(arrays[2], 1), carray(arrays[3], 1), carray(arrays[4], 1)
    first = number * p.block
    count = min(p.block, p.tiles - first)
    own_v, own_m = thread * POINTS * p.v_step, thread * POINTS * p.m_step
    inputs(x, p.out_h, p.out_w, p.pad_h, p.pad_w, first, count, v, own_v, p.block, p.v_step)
    for point in range(POINTS):
        for k in range(0, p.features, PANEL * (BYTES // x.itemsize)):
            product(v, own_v + point * p.v_step, p.block, count, p.channels, u, point * p.channels * p.features, k,
                    p.features, m, own_m + point * p.m_step)
    outputs(m, own_m, p.block, p.m_step, bias, first, count, y)


@block_kernel(Images, Geometry, _Plan)
def _dw_by_tiles(arrays, numbers, rows, vectors, chunk, thread):
    p = carray(numbers, 1)[0]
    x, dy = (carray(arrays[0], (p.images, p.height, p.width, p.channels)),
             carray(arrays[1], (p.images, p.out_h, p.out_w, p.features)))
    v, s, sums = carray(arrays[2], 1), carray(arrays[3], 1), carray(arrays[4], 1)
    own_v, own_s = thread * POINTS * p.v_step, thread * POINTS * p.m_step
    start, stop = p.tiles * chunk // p.chunks, p.tiles * (chunk + 1) // p.chunks
    for first in range(start, stop, p.block):
        count = min(p.block, stop - first)
        inputs(x, p.out_h, p.out_w, p.pad_h, p.pad_w, first, count, v, own_v, p.block, p.v_step)
        output_gradients(dy, first, count, s, own_s, p.block, p.m_step)
        for point in range(POINTS):
            for c in range(0, p.channels, CHANNELS):
                product_of_tiles(v, own_v + point * p.v_step, s, own_s + point * p.m_step, p.block, count, c,
                                 p.features, sums, (chunk * POINTS + point) * p.channels * p.features, first > start)


# Larger ones: the threads transform tiles, then each takes points, and so its part of the filters or sums.

@block_kernel(Images, Geometry, _Plan)
def _transform_inputs(arrays, numbers, rows, vectors, part, thread):
    p = carray(numbers, 1)[0]
    x, v = carray(arrays[0], (p.images, p.height, p.width, p.channels)), carray(arrays[1], 1)
    begin = part * PART
    inputs(x, p.out_h, p.out_w, p.pad_h, p.pad_w, p.first + begin, min(PART, p.count - begin), v,
           begin * (BYTES // x.itemsize), p.block, p.v_step)


@block_kernel(Images, Geometry, _Plan)
def _transform_gradients(arrays, numbers, rows, vectors, part, thread):
    p = carray(numbers, 1)[0]
    dy, s = carray(arrays[0], (p.images, p.out_h, p.out_w, p.features)), carray(arrays[1], 1)
    begin = part * PART
    output_gradients(dy, p.first + begin, min(PART, p.count - begin), s, begin * (BYTES // dy.itemsize), p.block,
                     p.m_step)


@block_kernel(Images, Geometry, _Plan)
def _transform_outputs(arrays, numbers, rows, vectors, part, thread):
    p = carray(numbers, 1)[0]
    m, bias = carray(arrays[0], 1), carray(arrays[1], 1)
    y = carray(arrays[2], (p.images, p.out_h, p.out_w, p.features))
    begin = part * PART
    outputs(m, begin * (BYTES // y.itemsize), p.block, p.m_step, bias, p.first + begin, min(PART, p.count - begin), y)


@block_kernel(Images, Geometry, _Plan)
def _products(arrays, numbers, rows, vectors, unit, thread):
    p = carray(numbers, 1)[0]
    v, u, m = carray(arrays[0], 1), carray(arrays[1], 1), carray(arrays[2], 1)
    width = PANEL * (BYTES // v.itemsize)
    point, panel = divmod(unit, (p.features + width - 1) // width)
    product(v, point * p.v_step, p.block, p.count, p.channels, u, point * p.channels * p.features, panel * width,
            p.features, m, point * p.m_step)


@block_kernel(Images, Geometry, _Plan)
def _sum_products(arrays, numbers, rows, vectors, unit, thread):
    p = carray(numbers, 1)[0]
    v, s, sums = carray(arrays[0], 1), carray(arrays[1], 1), carray(arrays[2], 1)
    point, row = divmod(unit, p.channels // CHANNELS)
    product_of_tiles(v, point * p.v_step, s, point * p.m_step, p.block, p.count, row * CHANNELS, p.features, sums,
                     point * p.channels * p.features, p.first > 0)
