"""Depthwise convolution (as many groups as channels): direct sums, vectorised over the channels.

Each place needs few multiplications a byte, so the loops read x and dy once and write once. Four neighbouring places
whose windows are three taps wide and lie inside the image share each load of the weights, and their sums stay in
registers; all others come one at a time.

dx is the same sum with the parts of x and dy exchanged. With a stride, the rows and the columns of x fall into
`stride` phases, of which each is seen by its own taps at even distances. So one kernel does both: along an axis, place
m of phase f is entry m phases + f of the result, and its tap t (out of `taps`) is entry base + m step + t distance of
the input, with weight first_weight + t weight_step.
"""

import functools
import math

import numpy as np
from numba import prange

from fastnet.arrays import empty
from fastnet.kernels.cpu._channels import fma, load_part, opaque, store_part
from fastnet.kernels.cpu._depthwise_dw import dw, inside, repeated, work
from fastnet.kernels.cpu._jit import kernel, parallel_kernel
from fastnet.kernels.cpu._vector import LANES

__all__ = ["dw", "dx", "forward", "takes"]


def takes(x, w, g):
    """Whether this is a depthwise convolution; with several outputs a channel, x is copied as often."""
    return g.groups == x.shape[3]


def forward(x, w, b, g):
    kh, kw, _, k = w.shape
    y = empty((len(x), g.out_h, g.out_w, k), x.dtype)
    rows = np.array([(-g.pad_h, g.stride_h, g.dilation_h, 0, 1, kh)])
    columns = np.array([(-g.pad_w, g.stride_w, g.dilation_w, 0, 1, kw)])
    b = np.zeros(k, x.dtype) if b is None else b
    _correlate.sized(work(y, w))(repeated(x, k).reshape(-1), x.shape[1:3], w.reshape(-1), kw, b, rows, columns,
                                 LANES[x.dtype], y.reshape(-1), y.shape[:3])
    return y


def dx(dy, w, x_shape, g):
    kh, kw, _, k = w.shape
    n, height, width, channels = x_shape
    out = empty((n, height, width, k), dy.dtype)
    rows = _phases(height, kh, g.stride_h, g.pad_h, g.dilation_h)
    columns = _phases(width, kw, g.stride_w, g.pad_w, g.dilation_w)
    _correlate.sized(work(dy, w))(dy.reshape(-1), dy.shape[1:3], w.reshape(-1), kw, np.zeros(k, dy.dtype), rows,
                                  columns, LANES[dy.dtype], out.reshape(-1), out.shape[:3])
    return out if k == channels else out.reshape(*x_shape, k // channels).sum(axis=4)


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
        seen, weight = at + c, of + c
        i = 0
        while i < rows:
            i = opaque(i + 1)
            y0, y1, y2, y3 = _tap(x, seen, apart, w, weight, count, y0, y1, y2, y3)
            y0, y1, y2, y3 = _tap(x, seen + along, apart, w, weight + w_along, count, y0, y1, y2, y3)
            y0, y1, y2, y3 = _tap(x, seen + 2 * along, apart, w, weight + 2 * w_along, count, y0, y1, y2, y3)
            seen = opaque(seen + x_row)
            weight = opaque(weight + w_row)
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
        seen, weight = at + c, of + c
        i = 0
        while i < rows:
            i = opaque(i + 1)
            if taps > 0:
                y0 = fma(load_part(x, seen, count), load_part(w, weight, count), y0)
            if taps > 1:
                y0 = fma(load_part(x, seen + along, count), load_part(w, weight + w_along, count), y0)
            if taps > 2:
                y0 = fma(load_part(x, seen + 2 * along, count), load_part(w, weight + 2 * w_along, count), y0)
            j = 3
            while j < taps:
                y0 = fma(load_part(x, seen + j * along, count), load_part(w, weight + j * w_along, count), y0)
                j = opaque(j + 1)
            seen = opaque(seen + x_row)
            weight = opaque(weight + w_row)
        store_part(y, out + c, y0, count)


@parallel_kernel()
def _correlate(x, shape, w, kw, b, rows, columns, lanes, y, y_shape):
    height, width = shape
    n, out_h, out_w = y_shape
    channels = b.size
    phases = len(columns)
    for row in prange(n * out_h):
        image, r = row // out_h, row % out_h
        base, step, distance, weight, weight_step, taps = rows[r % len(rows)]
        top = base + r // len(rows) * step
        first_i, stop_i = inside(top, distance, taps, height)
        x_row, w_row = distance * width * channels, weight_step * kw * channels
        at_row = (image * height + top + first_i * distance) * width * channels
        of_row = (weight + first_i * weight_step) * kw * channels
        for f in range(phases):
            base, step, distance, weight, weight_step, taps = columns[f]
            along, w_along = distance * channels, weight_step * channels
            apart, out_apart = step * channels, phases * channels
            q, left = f, base
            while q < out_w:
                out = (row * out_w + q) * channels
                if taps == 3 and left >= 0 and q + 3 * phases < out_w and left + 3 * step + 2 * distance < width:
                    _inner_places(x, at_row + left * channels, x_row, along, apart, w, of_row + weight * channels,
                                  w_row, w_along, stop_i - first_i, b, lanes, y, out, out_apart)
                    q += 4 * phases
                    left += 4 * step
                else:
                    first_j, stop_j = inside(left, distance, taps, width)
                    _any_place(x, at_row + (left + first_j * distance) * channels, x_row, along,
                               w, of_row + (weight + first_j * weight_step) * channels, w_row, w_along,
                               stop_i - first_i, stop_j - first_j, b, lanes, y, out)
                    q += phases
                    left += step
