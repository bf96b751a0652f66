"""Filters in and out of Winograd's domain (see `_winograd`)."""

from typing import NamedTuple

import numpy as np
from numba import carray

from fastnet.arrays import empty
from fastnet.kernels.cpu._blocks import block_kernel
from fastnet.kernels.cpu._gemm import address
from fastnet.kernels.cpu._products import PANEL
from fastnet.kernels.cpu._simd import transpose_block
from fastnet.kernels.cpu._vector import BYTES, LANES, splat
from fastnet.kernels.cpu._winograd_transforms import POINTS, table, transform_filter, transform_filter_gradient


class _Plan(NamedTuple):
    channels: int
    features: int
    rotated: int = 0
    chunks: int = 0


def filters(w, rotated):
    """u (36, C, K) = G g G^T for each filter g of w (3, 3, C, K), first rotated by 180 degrees if so asked.

    C and K fill vectors. Each point's (C, K) lies in panels, as `_products` wants it.
    """
    channels, features = w.shape[2:]
    u = empty((POINTS, channels, features), w.dtype)
    _filters(channels, u.size, (w, u), (_Plan(channels, features, rotated),))
    return u


def transposed(w):
    """(3, 3, K, C) of w (3, 3, C, K), where C and K fill vectors."""
    channels, features = w.shape[2:]
    turned = empty((3, 3, features, channels), w.dtype)
    _transposed(channels // LANES[w.dtype], w.size, (w, turned), (_Plan(channels, features),))
    return turned


def filter_gradient(sums):
    """dw (3, 3, C, K) = G^T u G for the sum u of sums (chunks, 36, C, K)."""
    chunks, _, channels, features = sums.shape
    dw = empty((3, 3, channels, features), sums.dtype)
    _filter_gradient(channels, sums.size, (sums, dw), (_Plan(channels, features, chunks=chunks),))
    return dw


@block_kernel(_Plan)
def _filters(arrays, numbers, rows, vectors, c, thread):
    p, w, u = carray(numbers, 1)[0], carray(arrays[0], 1), carray(arrays[1], 1)
    lanes = BYTES // w.itemsize
    sources, targets = np.empty(9, np.intp), np.empty(POINTS, np.intp)
    for tap in range(9):
        sources[8 - tap if p.rotated else tap] = address(w, (tap * p.channels + c) * p.features)
    for first in range(0, p.features, PANEL * lanes):
        width = min(PANEL * lanes, p.features - first)
        table(u, first * p.channels + c * width, p.channels * p.features, targets)
        for k in range(0, width, lanes):
            transform_filter(w, sources, (first + k) * w.itemsize, targets, k * w.itemsize, splat(w.dtype.type(0)))


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
def _filter_gradient(arrays, numbers, rows, vectors, c, thread):
    p = carray(numbers, 1)[0]
    sums, dw = carray(arrays[0], (p.chunks, POINTS, p.channels, p.features)), carray(arrays[1], 1)
    total = np.empty((POINTS, p.features), dw.dtype)
    for point in range(POINTS):
        for k in range(p.features):
            total[point, k] = sums[0, point, c, k]
        for chunk in range(1, p.chunks):
            for k in range(p.features):
                total[point, k] += sums[chunk, point, c, k]
    sources, targets = np.empty(POINTS, np.intp), np.empty(9, np.intp)
    table(total, 0, p.features, sources)
    table(dw, c * p.features, p.channels * p.features, targets)
    for at in range(0, p.features * dw.itemsize, BYTES):
        transform_filter_gradient(dw, sources, at, targets, at, splat(dw.dtype.type(0)))
