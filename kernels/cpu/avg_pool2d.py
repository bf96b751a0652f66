"""Average pooling as in `fastnet.ops.avg_pool2d`, over vectors of channels."""

import functools

import numpy as np
from numba import prange

from fastnet.arrays import contiguous, empty
from fastnet.kernels.cpu import _pool
from fastnet.kernels.cpu._channels import add, load_part, multiply, opaque, store_part
from fastnet.kernels.cpu._jit import kernel, parallel_kernel
from fastnet.kernels.cpu._pool import clear_rows, seen
from fastnet.kernels.cpu._vector import LANES, splat


def supports(x, *, window, stride=None, pad=0, ceil_mode=False):
    return _pool.supports("avg_pool2d", x, window, stride, pad, ceil_mode)


def forward(x, *, window, stride=None, pad=0, ceil_mode=False):
    g = _pool.geometry("avg_pool2d", x.shape[1:3], window, stride, pad, ceil_mode)
    n, height, width, channels = x.shape
    y = empty((n, g.out_h, g.out_w, channels), x.dtype)
    weights = _weights(g, height, width, x.dtype)
    _forward(contiguous(x).reshape(-1), n, height, width, g, weights, LANES[x.dtype], y.reshape(-1))
    return y, (weights, x.shape, g)


def backward(dy, cache, needs=None):
    if needs is not None and not needs[0]:
        return (None,)
    weights, shape, g = cache
    n, height, _, channels = shape
    dx = empty(shape, dy.dtype)
    blocks, rows = _pool.backward_blocks(n, g)
    _backward.sized(dx.size)(contiguous(dy).reshape(-1), weights, blocks, rows, channels, g,
                             LANES[dy.dtype], dx.reshape(n, height, -1))
    return (dx,)


@functools.cache
def _weights(g, height, width, dtype):
    """1 over the number of entries that count in each window: those of the image, and the zeros that `pad` adds."""
    rows, columns = (np.minimum(np.arange(places) * stride + size, length + 2 * pad) - np.arange(places) * stride
                     for places, stride, size, length, pad in (
                         (g.out_h, g.stride_h, g.window_h, height, g.pad_h),
                         (g.out_w, g.stride_w, g.window_w, width, g.pad_w)))
    return (1 / (rows[:, None] * columns)).astype(dtype)


@kernel()
def _forward_place(x, at, row, channels, rows, columns, weight, lanes, y, out):
    """One window: `rows` rows of `columns` entries from entry `at` on."""
    for c in range(0, channels, lanes):
        count = min(lanes, channels - c)
        total = load_part(x, at + c, 0)
        i = 0
        while i < rows:
            seen = at + i * row + c
            i = opaque(i + 1)
            j = 0
            while j < columns:
                total = add(total, load_part(x, seen + j * channels, count))
                j = opaque(j + 1)
        store_part(y, out + c, multiply(total, splat(weight)), count)


@parallel_kernel()
def _forward(x, n, height, width, g, weights, lanes, y):
    channels = x.size // (n * height * width)
    for row in prange(n * g.out_h):
        image, p = row // g.out_h, row % g.out_h
        for q in range(g.out_w):
            at, rows, columns, _ = seen(g, image, p, q, height, width, channels)
            _forward_place(x, at, width * channels, channels, rows, columns, weights[p, q], lanes, y,
                           (row * g.out_w + q) * channels)


@kernel()
def _backward_place(dy, out, weight, channels, dx, at, row, rows, columns, adding, lanes):
    for c in range(0, channels, lanes):
        count = min(lanes, channels - c)
        share = multiply(load_part(dy, out + c, count), splat(weight))
        i = 0
        while i < rows:
            seen = at + i * row + c
            i = opaque(i + 1)
            j = 0
            while j < columns:
                place = seen + j * channels
                part = share
                if adding:
                    part = add(load_part(dx, place, count), part)
                store_part(dx, place, part, count)
                j = opaque(j + 1)


@parallel_kernel()
def _backward(dy, weights, blocks, rows, channels, g, lanes, dx):
    _, height, row_size = dx.shape
    width = row_size // channels
    adding = g.stride_h < g.window_h or g.stride_w < g.window_w
    for block in prange(blocks):
        image, first_p = block * rows // g.out_h, block * rows % g.out_h
        clear_rows(dx, image, first_p, first_p + rows, g)
        for p in range(first_p, first_p + rows):
            for q in range(g.out_w):
                at, down, across, _ = seen(g, image, p, q, height, width, channels)
                _backward_place(dy, ((image * g.out_h + p) * g.out_w + q) * channels, weights[p, q], channels, dx, at,
                                row_size, down, across, adding, lanes)
