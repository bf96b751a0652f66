"""Convolution of so few places that reading the filters is much of the work: single images, on the smaller maps.

BLAS would first copy the filters into an order of its own, and with a row for each place `_im2col` has no more than one
block of them for the threads to share. Here the places are gathered to rows (KH KW C) once for all. Each thread takes
a slice of their entries and reads the filters of these, which lie side by side in memory, from one end to the other: a
piece of them at a time is multiplied with the places, panel of outputs by panel, each with a tile of sums in registers
(`_simd`). The slices' sums are added up in the end. The cuts are fixed by the shape, so the bits do not depend on the
number of threads.

The gradients are `_im2col`'s.
"""

from typing import NamedTuple

import numpy as np
from numba import carray

from fastnet.arrays import empty, zeros
from fastnet.kernels.cpu import _im2col
from fastnet.kernels.cpu._blocks import block_kernel, run_in_order
from fastnet.kernels.cpu._channels import add, store
from fastnet.kernels.cpu._geometry import Geometry, Images
from fastnet.kernels.cpu._im2col import gather
from fastnet.kernels.cpu._simd import (
    AVX512,
    BYTES,
    MOST_VECTORS,
    prefetch,
    tile_add_products,
    tile_add_to,
    tile_store,
    tile_zeros,
    zero_entries,
)
from fastnet.kernels.cpu._vector import LANES, load

MOST_PLACES = 512  # of all images; some 1.3 times as fast as with BLAS there, 2.5 times with 16
TOGETHER = 64  # places that share a reading of the filters, more or less
UNITS = 8  # of work, at most so many of them slices of the same places' rows: so many threads can work at it
PANELS = (4, 3, 2, 1) if AVX512 else (2, 1)  # vectors of outputs
DEPTH = 64  # entries of a row summed in one go: 64 x 64 float32 of filters are a third of a first-level cache

dx, dw = _im2col.dx, _im2col.dw


class _Plan(NamedTuple):
    channels: int
    kh: int
    kw: int
    outputs: int
    together: int  # places that share a reading of the filters, a whole number of tiles
    parts: int  # of the places
    slices: int  # of a row
    depth: int  # of a slice


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
    width = kh * kw * channels
    gathered = empty((parts * together, width), x.dtype)
    slices = max(1, min(UNITS // parts, width // DEPTH))
    depth = -(-width // (slices * DEPTH)) * DEPTH
    slices = -(-width // depth)
    sums = empty((slices, parts, together * outputs), x.dtype)
    tile, tiles = (rows, vectors), parts * together // rows
    run_in_order([(_gather, tile, tiles), (_products, tile, parts * slices), (_total, tile, tiles)],
                 places * w.size // 8, (x, w, bias, gathered, sums, y),
                 (Images(*x.shape[:3]), g, _Plan(channels, kh, kw, outputs, together, parts, slices, depth)))
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
    """The sums (panels of outputs, places, panel) of a part of the places over a slice of their rows."""
    p = carray(numbers, 1)[0]
    w, gathered, sums = carray(arrays[1], 1), carray(arrays[3], 1), carray(arrays[4], 1)
    lanes = BYTES // w.itemsize
    panel, width = vectors * lanes, p.kh * p.kw * p.channels
    place, begin = unit % p.parts * p.together * width, unit // p.parts * p.depth
    stop = min(width, begin + p.depth)
    filters = np.empty(DEPTH * panel, w.dtype)
    for d in range(begin, stop, DEPTH):
        depth = min(DEPTH, stop - d)
        for k in range(0, p.outputs, panel):
            to = unit * p.together * p.outputs + k * p.together
            for r in range(0, p.together, rows):
                at = place + r * width + d
                tile = tile_zeros(rows, vectors, w)
                if r == 0:  # copies the filters that it uses, while the next ones are on their way: memory is slow
                    for t in range(depth):
                        of = (d + t) * p.outputs + k
                        for v in range(vectors):
                            prefetch(w, of + DEPTH * p.outputs + v * lanes)
                            store(filters, t * panel + v * lanes, load(w, of + v * lanes))
                        tile = tile_add_products(tile, gathered, at + t, width, w, of, lanes)
                else:
                    for t in range(depth):
                        tile = tile_add_products(tile, gathered, at + t, width, filters, t * panel, lanes)
                if d > begin:
                    tile_add_to(tile, sums, to + r * panel, panel, lanes)
                else:
                    tile_store(tile, sums, to + r * panel, panel, lanes)


@block_kernel(Images, Geometry, _Plan)
def _total(arrays, numbers, rows, vectors, block, thread):
    """Bias and sums of all slices, for the places of a tile."""
    p = carray(numbers, 1)[0]
    b, sums, y = carray(arrays[2], 1), carray(arrays[4], 1), carray(arrays[5], 1)
    lanes = BYTES // y.itemsize
    panel, step = vectors * lanes, p.parts * p.together * p.outputs
    for place in range(block * rows, min((block + 1) * rows, p.images * p.out_h * p.out_w)):
        part, row = divmod(place, p.together)
        for k in range(0, p.outputs, panel):
            for v in range(0, panel, lanes):
                total = load(b, k + v)
                at = part * p.together * p.outputs + k * p.together + row * panel + v
                for i in range(p.slices):
                    total = add(total, load(sums, at + i * step))
                store(y, place * p.outputs + k + v, total)
