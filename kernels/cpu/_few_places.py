"""Convolution of so few places that reading the filters is much of the work: single images, on the smaller maps.

BLAS would first copy the filters into an order of its own, and with a row for each place `_im2col` has no more than one
block of them for the threads to share. Here the places are gathered to rows (KH KW C) once for all. Each thread takes
panels of outputs, copies a piece of the panel's filters side by side, and goes through the places with it: a tile of
sums stays in registers (`_simd`) while the piece is summed. The cuts are fixed by the shape, so the bits do not depend
on the number of threads.

The gradients are `_im2col`'s.
"""

from typing import NamedTuple

import numpy as np
from numba import carray

from fastnet.arrays import empty, zeros
from fastnet.kernels.cpu import _im2col
from fastnet.kernels.cpu._blocks import block_kernel, run_in_order
from fastnet.kernels.cpu._geometry import Geometry, Images
from fastnet.kernels.cpu._im2col import gather
from fastnet.kernels.cpu._simd import (
    AVX512,
    BYTES,
    MOST_VECTORS,
    copy_entries,
    prefetch,
    tile_add_products,
    tile_add_to,
    tile_zeros,
    zero_entries,
)
from fastnet.kernels.cpu._vector import LANES

MOST_PLACES = 512  # of all images; some 1.3 times as fast as with BLAS there, 2.5 times with 16
TOGETHER = 64  # places that share a copy of the filters, more or less
PANELS = (4, 3, 2, 1) if AVX512 else (2, 1)  # vectors of outputs
DEPTH = 64  # entries of a row summed in one go: 64 x 64 float32 of filters are a third of a first-level cache

dx, dw = _im2col.dx, _im2col.dw


class _Plan(NamedTuple):
    channels: int
    kh: int
    kw: int
    outputs: int
    together: int  # places of a unit, a whole number of tiles


def takes(x_shape, w_shape, g):
    """Whether this is the fastest way: few places, and outputs that fill vectors."""
    return (g.groups == 1 and x_shape[0] * g.out_h * g.out_w <= MOST_PLACES
            and w_shape[3] % max(LANES.values()) == 0)


def forward(x, w, b, g):
    kh, kw, channels, outputs = w.shape
    y = empty((len(x), g.out_h, g.out_w, outputs), x.dtype)
    bias = zeros(outputs, x.dtype) if b is None else b
    vectors = next(some for some in PANELS if outputs // LANES[x.dtype] % some == 0)
    rows = MOST_VECTORS // vectors
    places = len(x) * g.out_h * g.out_w
    parts = -(-places // TOGETHER)
    together = -(-places // (parts * rows)) * rows
    parts = -(-places // together)
    gathered = empty((parts * together, kh * kw * channels), x.dtype)
    panels = outputs // (vectors * LANES[x.dtype])
    run_in_order([(_gather, parts * together // rows), (_products, parts * panels)], places * w.size // 8,
                 (x, w, bias, gathered, y), (Images(*x.shape[:3]), g, _Plan(channels, kh, kw, outputs, together)),
                 (rows, vectors))
    return y


@block_kernel(Images, Geometry, _Plan)
def _gather(arrays, numbers, rows, vectors, block, thread):
    """The rows of a tile; zeros for places that are not there."""
    p = carray(numbers, 1)[0]
    x, gathered = carray(arrays[0], 1), carray(arrays[3], 1)
    width = p.kh * p.kw * p.channels
    first = block * rows
    count = max(0, min(rows, p.images * p.out_h * p.out_w - first))
    gather(x, p, 0, first, count, 0, p.kh * p.kw, gathered, first * width)
    zero_entries(gathered, (first + count) * width, (rows - count) * width)


@block_kernel(Images, Geometry, _Plan)
def _products(arrays, numbers, rows, vectors, unit, thread):
    p = carray(numbers, 1)[0]
    w, b, gathered, y = carray(arrays[1], 1), carray(arrays[2], 1), carray(arrays[3], 1), carray(arrays[4], 1)
    lanes = BYTES // w.itemsize
    panel, width = vectors * lanes, p.kh * p.kw * p.channels
    part, k = divmod(unit, p.outputs // panel)
    first, k = part * p.together, k * panel
    filters = np.empty(DEPTH * panel, w.dtype)
    sums = np.empty(p.together * panel, w.dtype)
    for r in range(p.together):
        copy_entries(b, k, sums, r * panel, panel)
    for d in range(0, width, DEPTH):
        depth = min(DEPTH, width - d)
        for t in range(depth):
            copy_entries(w, (d + t) * p.outputs + k, filters, t * panel, panel)
        for r in range(0, p.together, rows):
            tile = tile_zeros(rows, vectors, w)
            for t in range(depth):
                if r == 0:  # memory is slow to begin: what comes next is on its way during the products
                    for v in range(vectors):
                        prefetch(w, (d + DEPTH + t) * p.outputs + k + v * lanes)
                tile = tile_add_products(tile, gathered, (first + r) * width + d + t, width, filters, t * panel, lanes)
            tile_add_to(tile, sums, r * panel, panel, lanes)
    for r in range(min(p.together, p.images * p.out_h * p.out_w - first)):
        copy_entries(sums, r * panel, y, (first + r) * p.outputs + k, panel)
