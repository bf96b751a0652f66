"""Filters in and out of Winograd's domain (see `_winograd`)."""

from typing import NamedTuple

import numpy as np
from numba import carray

from fastnet.arrays import empty, given
from fastnet.kernels.cpu._blocks import block_kernel
from fastnet.kernels.cpu._gemm import address
from fastnet.kernels.cpu._jit import kernel
from fastnet.kernels.cpu._products import PANEL
from fastnet.kernels.cpu._simd import transpose_block
from fastnet.kernels.cpu._vector import BYTES, LANES, splat
from fastnet.kernels.cpu._winograd_matrices import transform_filter, transform_filter_gradient
from fastnet.kernels.cpu._winograd_transforms import leave_out, phases_at, single, table

GAP = 1040  # entries between points, more than a page: else the lines of all points share a few sets of the caches, and
            # 512 channels take twice as long
ROWS = 16  # channels whose filters a thread transforms in a row: 16 x 4 vectors, side by side, are a page of memory


class _Plan(NamedTuple):
    channels: int
    features: int
    in_phases: int = 1
    out_phases: int = 1
    rotated: int = 0
    chunks: int = 0


def filters(w, side, in_phases, out_phases, rotated):
    """u = G g G^T for each filter g of w (3, 3, C, K), first rotated by 180 degrees if so asked.

    C and K fill vectors. A row of u, of which there are side^2, is (phases of the output, panels of K, phases of the
    input, C, panel), as `_products` wants it, and `GAP` entries that mean nothing; where a phase lacks a point, nothing
    is written.
    """
    channels, features = w.shape[2:]
    u = empty((side**2, out_phases * in_phases * channels * features + GAP), w.dtype)
    units = -(-features // (PANEL * LANES[w.dtype])) * -(-channels // ROWS)
    _filters(units, u.size, (w, u), (_Plan(channels, features, in_phases, out_phases, rotated),), (side, 0))
    return u


def transposed(w):
    """(3, 3, K, C) of w (3, 3, C, K), where C and K fill vectors."""
    channels, features = w.shape[2:]
    turned = empty((3, 3, features, channels), w.dtype)
    _transposed(channels // LANES[w.dtype], w.size, (w, turned), (_Plan(channels, features),))
    return turned


def filter_gradient(sums, side, into=None):
    """dw (3, 3, C, K) = G^T u G for the sum u of sums (chunks, side^2, phases, C, K)."""
    chunks, _, phases, channels, features = sums.shape
    dw = given(into, (3, 3, channels, features), sums.dtype)
    _filter_gradient(channels, sums.size, (sums, dw), (_Plan(channels, features, phases, chunks=chunks),), (side, 0))
    return dw


@kernel(inline="always")
def _taps(w, p, side, c, phase, phases, outside, places):
    """Fill `places` with the addresses of a phase's taps of channel c; those that it lacks lie at `outside`."""
    row, column = single(phase, phases)
    size = side - 3
    step = 2 if phases > 1 else 1
    for i in range(size):
        for j in range(size):
            # Two taps are the first and the last, one is the one between them.
            tap = 3 * (row if row else step * i) + (column if column else step * j)
            tap = 8 - tap if p.rotated else tap
            exists = i < size - row and j < size - column
            places[i * size + j] = (address(w, (tap * p.channels + c) * p.features) if exists else address(outside, 0))


@block_kernel(_Plan)
def _filters(arrays, numbers, side, vectors, unit, thread):
    p, w, u = carray(numbers, 1)[0], carray(arrays[0], 1), carray(arrays[1], 1)
    lanes = BYTES // w.itemsize
    sources, targets = np.empty((side - 3)**2, np.intp), np.empty(side * side, np.intp)
    zeros = np.zeros(p.features, w.dtype)
    phases, rows = p.in_phases * p.out_phases, p.in_phases * p.channels
    panel, part = divmod(unit, (p.channels + ROWS - 1) // ROWS)
    first = panel * PANEL * lanes
    width = min(PANEL * lanes, p.features - first)
    for phase in range(phases):
        start = first * rows + (phase * p.channels * width if p.in_phases > 1 else phase * rows * p.features)
        for c in range(part * ROWS, min(p.channels, (part + 1) * ROWS)):
            _taps(w, p, side, c, phase, phases, zeros, sources)
            table(u, start + c * width, p.out_phases * rows * p.features + GAP, targets)
            leave_out(phase, phases, side, targets)
            for k in range(0, width, lanes):
                transform_filter(w, side, sources, (first + k) * w.itemsize, targets, k * w.itemsize,
                                 splat(w.dtype.type(0)))


@block_kernel(_Plan)
def _transposed(arrays, numbers, rows, vectors, block, thread):
    p, w, turned = carray(numbers, 1)[0], carray(arrays[0], 1), carray(arrays[1], 1)
    lanes = BYTES // w.itemsize
    c = block * lanes
    for tap in range(9):
        for k in range(0, p.features, lanes):
            transpose_block(w, (tap * p.channels + c) * p.features + k, p.features,
                            turned, (tap * p.features + k) * p.channels + c, p.channels)


@block_kernel(_Plan)
def _filter_gradient(arrays, numbers, side, vectors, c, thread):
    p, points = carray(numbers, 1)[0], side * side
    sums = carray(arrays[0], (p.chunks, points, p.in_phases, p.channels, p.features))
    dw = carray(arrays[1], 1)
    total, rest = np.empty((points, p.features), dw.dtype), np.empty(p.features, dw.dtype)
    sources, targets = np.empty(points, np.intp), np.empty((side - 3)**2, np.intp)
    table(total, 0, p.features, sources)
    for phase in range(p.in_phases):
        for point in range(points):
            first, stop = phases_at(point, side, p.in_phases)
            if first <= phase < stop:
                for k in range(p.features):
                    total[point, k] = sums[0, point, phase, c, k]
                for chunk in range(1, p.chunks):
                    for k in range(p.features):
                        total[point, k] += sums[chunk, point, phase, c, k]
            else:
                for k in range(p.features):
                    total[point, k] = 0
        _taps(dw, p, side, c, phase, p.in_phases, rest, targets)
        for at in range(0, p.features * dw.itemsize, BYTES):
            transform_filter_gradient(dw, side, sources, at, targets, at, splat(dw.dtype.type(0)))
