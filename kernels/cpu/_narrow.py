"""Convolution of few channels, directly, sixteen images (in float64 eight) to a vector.

Many outputs fill vectors themselves (`_narrow_forward`). Three or six fill none, and a row of a feature map
is short. So a block of images is turned until the images lie innermost (H, W, C, lanes): each multiply-add is then one
of whole vectors, with one weight for all images, and some outputs of neighbouring places stay in registers through all
taps and channels (`_simd`). A row of results is turned back while it lies in the first cache. Rows of padding are
skipped, columns of padding are zeros in the block.

dx goes the same way: the rows of dy are gathered, and each place's products are added along its row where they belong.
dw is in `_narrow_dw`.
"""

import math
from typing import NamedTuple

import numpy as np
from numba import carray

from fastnet.arrays import contiguous, empty, zeros
from fastnet.kernels.cpu import _narrow_dw, _narrow_forward
from fastnet.kernels.cpu._blocks import block_kernel
from fastnet.kernels.cpu._geometry import Geometry, Images
from fastnet.kernels.cpu._jit import kernel
from fastnet.kernels.cpu._lanes import turn, turn_back
from fastnet.kernels.cpu._simd import (
    AVX512,
    BYTES,
    MOST_VECTORS,
    tile_add_products,
    tile_add_to,
    tile_store,
    tile_zeros,
    zero_entries,
)
from fastnet.kernels.cpu._vector import LANES

MOST_CHANNELS = 8
MOST_ENTRIES = 1 << 15  # of an image: a block of them is then 2 MB, and stays in the second cache or nearly
# Tiles of channels x places: for 3, 6, 12 and for 16, 64 channels, whichever has to compute less for nothing.
# Four places share each weight that is read: LeNet-5's first layer takes a tenth less time than with two.
PLACES = (4, 2) if AVX512 else (1,)
SMALL, LARGE = (6, 8) if AVX512 else (6, 4)

dw = _narrow_dw.dw


class Plan(NamedTuple):
    """The shape of w, with its zeros, and what follows from it."""

    kh: int
    kw: int
    channels: int
    outputs: int
    kept: int  # channels of the result
    places: int  # out_w, up to a whole number of tiles
    columns: int  # of the padded image that they see


def takes(x_shape, w_shape, g):
    """Whether this is the best choice."""
    return g.groups == 1 and x_shape[3] <= MOST_CHANNELS and math.prod(x_shape[1:]) <= MOST_ENTRIES


def forward(x, w, b, g):
    n, outputs = len(x), w.shape[3]
    wide, tile = _by_outputs(n, w, g)
    if tile:
        bias = zeros(outputs, x.dtype) if b is None else b
        wide_w, wide_b = (w, bias) if wide == outputs else (_widened(w, wide), _widened(bias, wide))
        y = empty((n, g.out_h, g.out_w, wide), x.dtype)
        _narrow_forward.forward(x, wide_w, wide_b, g, tile, y)
        return y if wide == outputs else contiguous(y[..., :outputs])
    y = empty((n, g.out_h, g.out_w, outputs), x.dtype)
    run_forward(_forward, x, w, b, g, (y,))
    return y


def dx(dy, w, x_shape, g):
    dx = empty(x_shape, dy.dtype)
    run_dx(_dx, dy, w, g, (dx,))
    return dx


def turns(n, w, g):
    """Whether a forward pass of n images has them innermost."""
    return not _by_outputs(n, w, g)[1]


def _by_outputs(n, w, g):
    """The outputs and the tile of `_narrow_forward`; no tile where vectors of images are the better way."""
    outputs, lanes = w.shape[3], LANES[w.dtype]
    vectors = -(-outputs // lanes)
    # With so few images, vectors of outputs filled up with zeros do less for nothing than vectors of images.
    wide = vectors * lanes if n * vectors < outputs else outputs
    return wide, _narrow_forward.tile(n, wide, w.itemsize, g)


def run_forward(function, x, w, b, g, results, more=()):
    """Run a block kernel on x, w and b, extended to whole tiles, and `results`; the last numbers are `more`."""
    outputs = w.shape[3]
    rows = _rows(outputs)
    bias = zeros(outputs, x.dtype) if b is None else b
    arrays = x, _extended(w, 3, rows), _extended(bias, 0, rows), *results
    _run(function, arrays, x.shape, arrays[1].shape, outputs, g, rows, more)


def run_dx(function, dy, w, g, results, more=()):
    """The same on dy, w and `results`, of which dx is the first."""
    rows = _rows(w.shape[2])
    # Turned over, w has the channels of a tile side by side.
    arrays = dy, contiguous(_extended(w, 2, rows).swapaxes(2, 3)), *results
    _run(function, arrays, results[0].shape, (*w.shape[:2], *arrays[1].shape[:1:-1]), w.shape[2], g, rows, more)


def _run(function, arrays, x_shape, w_shape, kept, g, rows, more):
    n, height, width, _ = x_shape
    kw = w_shape[1]
    vectors = _vectors(rows, g.out_w)
    places = -(-g.out_w // vectors) * vectors
    columns = max(g.pad_w + width, (places - 1) * g.stride_w + (kw - 1) * g.dilation_w + 1)
    work = n * g.out_h * g.out_w * math.prod(w_shape) // 8  # eight multiply-adds take no longer than a simple operation
    numbers = Images(n, height, width), g, Plan(*w_shape, kept, places, columns), *more
    function(-(-n * arrays[1].itemsize // BYTES), work, arrays, numbers, (rows, vectors))


def _rows(channels):
    return min(LARGE, SMALL, key=lambda rows: -(-channels // rows) * rows)


def _vectors(rows, out_w):
    """The places of a tile: the number that computes the fewest for nothing, and of such the largest."""
    fitting = [vectors for vectors in PLACES if rows * vectors <= MOST_VECTORS]
    return min(fitting, key=lambda vectors: (-(-out_w // vectors) * vectors, -vectors))


def _extended(a, axis, rows):
    """`a` with zeros after it, up to a multiple of `rows`."""
    missing = -a.shape[axis] % rows
    return np.pad(a, [(0, missing if k == axis else 0) for k in range(a.ndim)]) if missing else a


def _widened(a, outputs):
    """As `_extended`, along the last axis and in a fraction of the time, which counts for a single image."""
    wide = zeros((*a.shape[:-1], outputs), a.dtype)
    wide[..., : a.shape[-1]] = a
    return wide


@block_kernel(Images, Geometry, Plan)
def _forward(arrays, numbers, rows, vectors, block, thread):
    x, w, b, y = carray(arrays[0], 1), carray(arrays[1], 1), carray(arrays[2], 1), carray(arrays[3], 1)
    plan = carray(numbers, 1)[0]
    lanes = BYTES // x.itemsize
    count = min(lanes, plan.images - block * lanes)
    turned = np.empty(plan.height * plan.columns * plan.channels * lanes, x.dtype)
    turn(x, block * lanes, count, plan.height, plan.width, plan.pad_w, plan.columns, plan.channels, turned)
    line = np.empty(plan.places * plan.outputs * lanes, x.dtype)
    ones = ones_like_vector(x)
    for p in range(plan.out_h):
        fill_line(tile_zeros(rows, vectors, x), rows, vectors, turned, w, b, ones, plan, p, line, 0)
        turn_back(line, 0, plan.outputs, y, block * lanes, count, plan.out_h, plan.out_w, plan.kept, p)


@kernel(inline="always")
def ones_like_vector(x):
    """A vector of ones of the type of x."""
    ones = np.empty(BYTES // x.itemsize, x.dtype)
    for lane in range(ones.size):
        ones[lane] = 1
    return ones


@kernel(inline="always")
def fill_line(zeros, rows, vectors, turned, w, b, ones, plan, p, line, start):
    """Row p of a block's outputs as (places, outputs, lanes), from entry `start` of `line` on; `zeros` is the tile."""
    lanes, channels, columns, outputs, kw = ones.size, plan.channels, plan.columns, plan.outputs, plan.kw
    runs, run = (kw, channels) if plan.dilation_w > 1 else (1, kw * channels)  # entries of a row side by side
    tap, step = run * outputs, plan.dilation_w * channels * lanes
    neighbour = plan.stride_w * channels * lanes
    for q in range(0, plan.places, vectors):
        for k in range(0, outputs, rows):
            tile = tile_add_products(zeros, b, k, 1, ones, 0, 0)
            for i in range(plan.kh):
                row = p * plan.stride_h + i * plan.dilation_h - plan.pad_h
                if 0 <= row < plan.height:
                    for j in range(runs):
                        weight = (i * runs + j) * tap + k
                        at = row * columns * channels * lanes + q * neighbour + j * step
                        for c in range(run):
                            tile = tile_add_products(tile, w, weight + c * outputs, 1,
                                                     turned, at + c * lanes, neighbour)
            tile_store(tile, line, start + (q * outputs + k) * lanes, lanes, outputs * lanes)


@block_kernel(Images, Geometry, Plan)
def _dx(arrays, numbers, rows, vectors, block, thread):
    dy, w, dx, plan = carray(arrays[0], 1), carray(arrays[1], 1), carray(arrays[2], 1), carray(numbers, 1)[0]
    lanes = BYTES // dy.itemsize
    count = min(lanes, plan.images - block * lanes)
    turned = np.empty(plan.out_h * plan.places * plan.outputs * lanes, dy.dtype)
    turn(dy, block * lanes, count, plan.out_h, plan.out_w, 0, plan.places, plan.outputs, turned)
    spread(tile_zeros(rows, vectors, dy), rows, vectors, turned, w, plan, block * lanes, count, dx)


@kernel(inline="always")
def spread(zeros, rows, vectors, turned, w, plan, first, count, dx):
    """dx of `count` images from image `first` on, of which `turned` has dy (OH, places, K, lanes)."""
    lanes = BYTES // dx.itemsize
    channels, places, outputs, kw = plan.channels, plan.places, plan.outputs, plan.kw
    line = np.empty(plan.columns * channels * lanes, dx.dtype)
    for h in range(plan.height):
        zero_entries(line, 0, line.size)
        for q in range(0, places, vectors):
            for c in range(0, channels, rows):
                for j in range(kw):
                    tile = zeros
                    for i in range(plan.kh):
                        above = h + plan.pad_h - i * plan.dilation_h
                        p = above // plan.stride_h
                        if above == p * plan.stride_h and 0 <= p < plan.out_h:
                            weight = (i * kw + j) * outputs * channels + c
                            at = (p * places + q) * outputs * lanes
                            for k in range(outputs):
                                tile = tile_add_products(tile, w, weight + k * channels, 1,
                                                         turned, at + k * lanes, outputs * lanes)
                    tile_add_to(tile, line, ((q * plan.stride_w + j * plan.dilation_w) * channels + c) * lanes, lanes,
                                plan.stride_w * channels * lanes)
        turn_back(line, plan.pad_w, channels, dx, first, count, plan.height, plan.width, plan.kept, h)
