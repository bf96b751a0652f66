"""The weights' gradient of a depthwise convolution: a sum over all places, in chunks of rows fixed by the shape.

Each chunk keeps short sums in x's own type, which are added up in float64. Four places at a time share each load of
these sums, as in `_depthwise`.
"""

import math

import numpy as np
from numba import prange

from fastnet.arrays import given, zeros
from fastnet.kernels.cpu._channels import fma, load_part, opaque, store
from fastnet.kernels.cpu._jit import kernel, parallel_kernel
from fastnet.kernels.cpu._vector import LANES, load

CHUNKS = 32  # so many threads can work at it
SHORT = 128  # places summed in x's own type: their rounding errors stay below one unit in the last place of dw


def dw(x, dy, w_shape, g, into=None):
    gradient = given(into, w_shape, x.dtype)
    kh, kw, _, k = w_shape
    chunks = min(CHUNKS, len(x) * g.out_h)
    lanes = LANES[x.dtype]
    shape = (chunks, kh, kw, math.ceil(k / lanes) * lanes)
    short, total = zeros(shape, x.dtype), zeros(shape, np.float64)
    _dw.sized(work(dy, gradient))(repeated(x, k).reshape(-1), (*x.shape[1:3], k), dy.reshape(-1), dy.shape[:3], g,
                                  lanes, short, total, gradient)
    return gradient


def work(y, w):
    return y.size * w.shape[0] * w.shape[1] // 4  # a multiplication in a vector, beside a simple operation


def repeated(x, outputs):
    return x if outputs == x.shape[3] else np.repeat(x, outputs // x.shape[3], axis=3)


@kernel()
def inside(start, distance, taps, length):
    """The range of taps that lie inside 0..length-1."""
    first = max(0, -(start // distance))
    return first, max(first, min(taps, (length - 1 - start) // distance + 1))


@kernel()
def _tap(x, at, apart, sums, of, count, dy0, dy1, dy2, dy3):
    """Add what one tap of four places gives to its weights."""
    total = load(sums, of)
    total = fma(load_part(x, at, count), dy0, total)
    total = fma(load_part(x, at + apart, count), dy1, total)
    total = fma(load_part(x, at + 2 * apart, count), dy2, total)
    store(sums, of, fma(load_part(x, at + 3 * apart, count), dy3, total))


@kernel()
def _inner_places(x, at, x_row, along, apart, dy, out, channels, lanes, sums, of, spread, kw, rows):
    """Four places inside the image, `rows` rows of three taps."""
    for c in range(0, channels, lanes):
        count = min(lanes, channels - c)
        dy0 = load_part(dy, out + c, count)
        dy1 = load_part(dy, out + c + channels, count)
        dy2 = load_part(dy, out + c + 2 * channels, count)
        dy3 = load_part(dy, out + c + 3 * channels, count)
        seen, weight = at + c, of + c
        i = 0
        while i < rows:
            i = opaque(i + 1)
            _tap(x, seen, apart, sums, weight, count, dy0, dy1, dy2, dy3)
            _tap(x, seen + along, apart, sums, weight + spread, count, dy0, dy1, dy2, dy3)
            _tap(x, seen + 2 * along, apart, sums, weight + 2 * spread, count, dy0, dy1, dy2, dy3)
            seen = opaque(seen + x_row)
            weight = opaque(weight + kw * spread)


@kernel()
def _one_tap(x, at, sums, of, count, dy0):
    store(sums, of, fma(load_part(x, at, count), dy0, load(sums, of)))


@kernel()
def _any_place(x, at, x_row, along, dy, out, channels, lanes, sums, of, spread, kw, rows, taps):
    """One place, `rows` rows of `taps` taps."""
    for c in range(0, channels, lanes):
        count = min(lanes, channels - c)
        dy0 = load_part(dy, out + c, count)
        seen, weight = at + c, of + c
        i = 0
        while i < rows:
            i = opaque(i + 1)
            if taps > 0:
                _one_tap(x, seen, sums, weight, count, dy0)
            if taps > 1:
                _one_tap(x, seen + along, sums, weight + spread, count, dy0)
            if taps > 2:
                _one_tap(x, seen + 2 * along, sums, weight + 2 * spread, count, dy0)
            j = 3
            while j < taps:
                _one_tap(x, seen + j * along, sums, weight + j * spread, count, dy0)
                j = opaque(j + 1)
            seen = opaque(seen + x_row)
            weight = opaque(weight + kw * spread)


@parallel_kernel()
def _dw(x, shape, dy, dy_shape, g, lanes, short, total, dw):
    height, width, channels = shape
    n, out_h, out_w = dy_shape
    chunks, kh, kw, spread = short.shape
    per_chunk = (n * out_h + chunks - 1) // chunks
    x_row, along, apart = g.dilation_h * width * channels, g.dilation_w * channels, g.stride_w * channels
    for chunk in prange(chunks):
        start, stop = chunk * per_chunk, min(n * out_h, (chunk + 1) * per_chunk)
        sums, sums64 = short[chunk].reshape(-1), total[chunk].reshape(-1)
        summed = 0
        for row in range(start, stop):
            image, top = row // out_h, row % out_h * g.stride_h - g.pad_h
            first_i, stop_i = inside(top, g.dilation_h, kh, height)
            at_row = (image * height + top + first_i * g.dilation_h) * width * channels
            of = first_i * kw * spread
            q, left = 0, -g.pad_w
            while q < out_w:
                out = (row * out_w + q) * channels
                if kw == 3 and left >= 0 and q + 3 < out_w and left + 3 * g.stride_w + 2 * g.dilation_w < width:
                    _inner_places(x, at_row + left * channels, x_row, along, apart, dy, out, channels, lanes,
                                  sums, of, spread, kw, stop_i - first_i)
                    q += 4
                    left += 4 * g.stride_w
                else:
                    first_j, stop_j = inside(left, g.dilation_w, kw, width)
                    _any_place(x, at_row + (left + first_j * g.dilation_w) * channels, x_row, along, dy, out, channels,
                               lanes, sums, of + first_j * spread, spread, kw, stop_i - first_i, stop_j - first_j)
                    q += 1
                    left += g.stride_w
            summed += out_w
            if summed >= SHORT or row == stop - 1:
                for k in range(sums.size):
                    sums64[k] += sums[k]
                    sums[k] = 0
                summed = 0
    for i in range(kh):
        for j in range(kw):
            for chunk in range(1, chunks):
                for c in range(channels):
                    total[0, i, j, c] += total[chunk, i, j, c]
            for c in range(channels):
                dw[i, j, 0, c] = total[0, i, j, c]
