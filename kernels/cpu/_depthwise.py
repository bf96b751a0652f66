"""Depthwise convolution (as many groups as channels): direct sums, vectorised over the channels.

Each place needs few multiplications a byte, so the loops are made to read x and dy once and to write once. Four
neighbouring places share each load of the weights, and their sums stay in registers; places whose window leaves the
image come one at a time. The channel loop knows nothing of either.

dx is the same sum with the parts of x and dy exchanged. With a stride, the rows and the columns of x fall into
`stride` phases, of which each is seen by its own taps at even distances. So one kernel does both: along an axis, place
m of phase f (out of `phases`) is entry m phases + f of the result, and its tap t (out of `taps`) is entry
base + m step + t distance of the input, with weight first_weight + t weight_step.

dw is a sum over all places: in chunks of rows fixed by the shape, each in short float32 sums that are added up in
float64.
"""

import functools
import math

import numpy as np
from numba import prange

from fastnet.arrays import empty
from fastnet.kernels.cpu._channels import fma, load_part, opaque, store, store_part
from fastnet.kernels.cpu._jit import kernel, parallel_kernel
from fastnet.kernels.cpu._vector import LANES, load

CHUNKS = 32  # of dw: so many threads can work at it
SHORT = 128  # places summed in x's own type: random rounding errors stay below one unit in the last place of dw


def takes(x, w, g):
    """Whether this is a depthwise convolution; with several outputs a channel, x is copied as often."""
    return g.groups == x.shape[3]


def forward(x, w, b, g):
    kh, kw, _, k = w.shape
    y = empty((len(x), g.out_h, g.out_w, k), x.dtype)
    rows = np.array([(-g.pad_h, g.stride_h, g.dilation_h, 0, 1, kh)])
    columns = np.array([(-g.pad_w, g.stride_w, g.dilation_w, 0, 1, kw)])
    b = np.zeros(k, x.dtype) if b is None else b
    _correlate.sized(_work(y, w))(_repeated(x, k).reshape(-1), x.shape[1:3], w.reshape(-1), kw, b, rows, columns,
                                  LANES[x.dtype], y.reshape(-1), y.shape[:3])
    return y


def dx(dy, w, x_shape, g):
    kh, kw, _, k = w.shape
    n, height, width, channels = x_shape
    out = empty((n, height, width, k), dy.dtype)
    rows = _phases(height, kh, g.stride_h, g.pad_h, g.dilation_h)
    columns = _phases(width, kw, g.stride_w, g.pad_w, g.dilation_w)
    _correlate.sized(_work(dy, w))(dy.reshape(-1), dy.shape[1:3], w.reshape(-1), kw, np.zeros(k, dy.dtype), rows,
                                   columns, LANES[dy.dtype], out.reshape(-1), out.shape[:3])
    return out if k == channels else out.reshape(*x_shape, k // channels).sum(axis=4)


def dw(x, dy, w_shape, g):
    gradient = empty(w_shape, x.dtype)
    kh, kw, _, k = w_shape
    chunks = min(CHUNKS, len(x) * g.out_h)
    lanes = LANES[x.dtype]
    shape = (chunks, kh, kw, math.ceil(k / lanes) * lanes)
    short, total = np.zeros(shape, x.dtype), np.zeros(shape, np.float64)
    _dw.sized(_work(dy, gradient))(_repeated(x, k).reshape(-1), (*x.shape[1:3], k), dy.reshape(-1), dy.shape[:3], g,
                                   lanes, short, total, gradient)
    return gradient


def _work(y, w):
    return y.size * w.shape[0] * w.shape[1] // 4  # a multiplication in a vector, beside a simple operation


def _repeated(x, outputs):
    return x if outputs == x.shape[3] else np.repeat(x, outputs // x.shape[3], axis=3)


@functools.cache
def _phases(length, size, stride, pad, dilation):
    """How each phase of `length` entries of x is seen: (base, step, distance, first_weight, weight_step, taps)."""
    phases = []
    weight_step = stride // math.gcd(stride, dilation)  # every so many taps meet the same phase
    distance = dilation * weight_step // stride
    for f in range(min(stride, length)):
        first = next((j for j in range(min(size, weight_step)) if (f + pad - j * dilation) % stride == 0), size)
        taps = len(range(first, size, weight_step))
        last = first + (taps - 1) * weight_step
        phases.append(((f + pad - last * dilation) // stride, 1, distance, last, -weight_step, taps))
    return np.array(phases)


@kernel()
def _inside(start, distance, taps, length):
    """The range of taps that lie inside 0..length-1."""
    first = max(0, -(start // distance))
    return first, max(first, min(taps, (length - 1 - start) // distance + 1))


@kernel()
def _tap(x, at, apart, w, of, count, y0, y1, y2, y3):
    """Add what one tap of four places sees, from entry `at` on, times its weight."""
    w_ij = load_part(w, of, count)
    return (fma(load_part(x, at, count), w_ij, y0), fma(load_part(x, at + apart, count), w_ij, y1),
            fma(load_part(x, at + 2 * apart, count), w_ij, y2), fma(load_part(x, at + 3 * apart, count), w_ij, y3))


@kernel()
def _inner_places(x, at, x_row, along, apart, w, of, w_row, w_along, rows, b, lanes, y, out, out_apart):
    """Four places inside the image, `rows` rows of three taps."""
    channels = b.size
    for c in range(0, channels, lanes):
        count = min(lanes, channels - c)
        y0 = load_part(b, c, count)
        y1 = y2 = y3 = y0
        i = 0
        while i < rows:
            seen, weight = at + i * x_row + c, of + i * w_row + c
            i = opaque(i + 1)
            y0, y1, y2, y3 = _tap(x, seen, apart, w, weight, count, y0, y1, y2, y3)
            y0, y1, y2, y3 = _tap(x, seen + along, apart, w, weight + w_along, count, y0, y1, y2, y3)
            y0, y1, y2, y3 = _tap(x, seen + 2 * along, apart, w, weight + 2 * w_along, count, y0, y1, y2, y3)
        store_part(y, out + c, y0, count)
        store_part(y, out + c + out_apart, y1, count)
        store_part(y, out + c + 2 * out_apart, y2, count)
        store_part(y, out + c + 3 * out_apart, y3, count)


@kernel()
def _any_place(x, at, x_row, along, w, of, w_row, w_along, rows, taps, b, lanes, y, out):
    """One place, `rows` rows of `taps` taps."""
    channels = b.size
    for c in range(0, channels, lanes):
        count = min(lanes, channels - c)
        y0 = load_part(b, c, count)
        i = 0
        while i < rows:
            seen, weight = at + i * x_row + c, of + i * w_row + c
            i = opaque(i + 1)
            j = 0
            while j < taps:
                y0 = fma(load_part(x, seen + j * along, count), load_part(w, weight + j * w_along, count), y0)
                j = opaque(j + 1)
        store_part(y, out + c, y0, count)


@parallel_kernel()
def _correlate(x, shape, w, kw, b, rows, columns, lanes, y, y_shape):
    height, width = shape
    n, out_h, out_w = y_shape
    channels = b.size
    for row in prange(n * out_h):
        image, r = row // out_h, row % out_h
        base, step, distance, weight, weight_step, taps = rows[r % len(rows)]
        top = base + r // len(rows) * step
        first_i, stop_i = _inside(top, distance, taps, height)
        x_row, w_row = distance * width * channels, weight_step * kw * channels
        at_row = (image * height + top + first_i * distance) * width * channels
        of_row = (weight + first_i * weight_step) * kw * channels
        for f in range(len(columns)):
            base, step, distance, weight, weight_step, taps = columns[f]
            along, w_along = distance * channels, weight_step * channels
            q = f
            while q < out_w:
                left = base + q // len(columns) * step
                first_j, stop_j = _inside(left, distance, taps, width)
                at = at_row + (left + first_j * distance) * channels
                of = of_row + (weight + first_j * weight_step) * channels
                out = (row * out_w + q) * channels
                if (taps == 3 and stop_j - first_j == 3 and q + 3 * len(columns) < out_w
                        and left + 3 * step + 2 * distance < width):
                    _inner_places(x, at, x_row, along, step * channels, w, of, w_row, w_along, stop_i - first_i,
                                  b, lanes, y, out, len(columns) * channels)
                    q += 4 * len(columns)
                else:
                    _any_place(x, at, x_row, along, w, of, w_row, w_along, stop_i - first_i, stop_j - first_j,
                               b, lanes, y, out)
                    q += len(columns)


@kernel()
def _dw_tap(x, at, apart, sums, of, count, dy0, dy1, dy2, dy3):
    """Add what one tap of four places gives to its weights."""
    total = load(sums, of)
    total = fma(load_part(x, at, count), dy0, total)
    total = fma(load_part(x, at + apart, count), dy1, total)
    total = fma(load_part(x, at + 2 * apart, count), dy2, total)
    store(sums, of, fma(load_part(x, at + 3 * apart, count), dy3, total))


@kernel()
def _dw_inner_places(x, at, x_row, along, apart, dy, out, channels, lanes, sums, of, spread, kw, rows):
    """Four places inside the image, `rows` rows of three taps."""
    for c in range(0, channels, lanes):
        count = min(lanes, channels - c)
        dy0 = load_part(dy, out + c, count)
        dy1 = load_part(dy, out + c + channels, count)
        dy2 = load_part(dy, out + c + 2 * channels, count)
        dy3 = load_part(dy, out + c + 3 * channels, count)
        i = 0
        while i < rows:
            seen, weight = at + i * x_row + c, of + i * kw * spread + c
            i = opaque(i + 1)
            _dw_tap(x, seen, apart, sums, weight, count, dy0, dy1, dy2, dy3)
            _dw_tap(x, seen + along, apart, sums, weight + spread, count, dy0, dy1, dy2, dy3)
            _dw_tap(x, seen + 2 * along, apart, sums, weight + 2 * spread, count, dy0, dy1, dy2, dy3)


@kernel()
def _dw_any_place(x, at, x_row, along, dy, out, channels, lanes, sums, of, spread, kw, rows, taps):
    for c in range(0, channels, lanes):
        count = min(lanes, channels - c)
        dy0 = load_part(dy, out + c, count)
        i = 0
        while i < rows:
            seen, weight = at + i * x_row + c, of + i * kw * spread + c
            i = opaque(i + 1)
            j = 0
            while j < taps:
                total = load(sums, weight + j * spread)
                store(sums, weight + j * spread, fma(load_part(x, seen + j * along, count), dy0, total))
                j = opaque(j + 1)


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
            first_i, stop_i = _inside(top, g.dilation_h, kh, height)
            at_row = (image * height + top + first_i * g.dilation_h) * width * channels
            q = 0
            while q < out_w:
                left = q * g.stride_w - g.pad_w
                first_j, stop_j = _inside(left, g.dilation_w, kw, width)
                at = at_row + (left + first_j * g.dilation_w) * channels
                out = (row * out_w + q) * channels
                of = (first_i * kw + first_j) * spread
                if (kw == 3 and stop_j - first_j == 3 and q + 3 < out_w
                        and left + 3 * g.stride_w + 2 * g.dilation_w < width):
                    _dw_inner_places(x, at, x_row, along, apart, dy, out, channels, lanes, sums, of, spread, kw,
                                     stop_i - first_i)
                    q += 4
                else:
                    _dw_any_place(x, at, x_row, along, dy, out, channels, lanes, sums, of, spread, kw,
                                  stop_i - first_i, stop_j - first_j)
                    q += 1
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
