"""Convolution of any shape as matrix products: pixels are gathered to rows (KH KW C/groups), one row a place.

Only a block of the rows exists at a time, in a buffer that stays in a core's cache. A 1x1 convolution with stride 1
needs none: its rows are the pixels themselves. For dx the products of a block are added up where they belong, a few
images at a time; for dw the sum over all places is cut into chunks, and dw itself by taps where it is too large to have
many copies. All cuts are fixed by the shape, so the bits do not depend on the number of threads.
"""

from typing import NamedTuple

import numba
from numba import carray

from fastnet.arrays import empty, given, zeros
from fastnet.kernels.cpu._blocks import block_kernel
from fastnet.kernels.cpu._gemm import NORMAL, SCALARS, TRANSPOSED, address, gemm
from fastnet.kernels.cpu._geometry import Geometry, Images
from fastnet.kernels.cpu._jit import kernel
from fastnet.kernels.cpu._simd import copy_entries, zero_entries

BUFFER = 1 << 17  # entries of a block's rows, 512 kB in float32: half of a small core's second-level cache
LEAST_ROWS = 16
MOST_ROWS = 512
LEAST_TOGETHER = 256  # rows of a unit of dx: BLAS rearranges the filters for each
CHUNKS = 16  # sums of dw side by side: so many threads can work at it
SUMS = 1 << 22  # entries of these sums together


class _Plan(NamedTuple):
    """The shape of w, and how the work is cut."""

    channels: int
    kh: int
    kw: int
    outputs: int
    gathered: int  # no for a 1x1 convolution with stride 1: then rows are pixels
    block: int  # rows
    chunks: int = 1  # sums of dw
    parts: int = 1  # that the taps are cut into
    together: int = 1  # images of a unit of dx


def forward(x, w, b, g):
    y = empty((len(x), g.out_h, g.out_w, w.shape[3]), x.dtype)
    bias = zeros(w.shape[3], x.dtype) if b is None else b
    plan = _plan(x.shape, w.shape, g)
    blocks = -(-len(x) * g.out_h * g.out_w // plan.block)
    _forward(blocks, _work(y, w.shape), (x, w, bias, _scratch(plan, g, x), y, SCALARS[x.dtype]),
             (Images(*x.shape[:3]), g, plan))
    return y


def dx(dy, w, x_shape, g):
    dx = empty(tuple(x_shape), dy.dtype)
    plan = _plan(x_shape, w.shape, g)
    plan = plan._replace(together=max(1, LEAST_TOGETHER // (g.out_h * g.out_w)))
    body, blocks = ((_dx, -(-len(dy) // plan.together)) if plan.gathered
                    else (_dx_of_pixels, -(-len(dy) * g.out_h * g.out_w // plan.block)))
    body(blocks, _work(dy, w.shape), (dy, w, _scratch(plan, g, dy), dx, SCALARS[dy.dtype]),
         (Images(*x_shape[:3]), g, plan))
    return dx


def dw(x, dy, w_shape, g, into=None):
    taps = w_shape[0] * w_shape[1]
    size = taps * w_shape[2] * w_shape[3]
    chunks = max(1, min(CHUNKS, SUMS // size, dy.size // dy.shape[3] // MOST_ROWS))
    chunks = 1 << (chunks.bit_length() - 1)  # a power of two, which threads can share evenly
    plan = _plan(x.shape, w_shape, g, chunks, 1 if chunks > 1 else taps)
    numbers = Images(*x.shape[:3]), g, plan
    dw = given(into, tuple(w_shape), x.dtype)
    sums = empty((chunks, *w_shape), x.dtype) if chunks > 1 else dw
    _dw(plan.chunks * plan.parts, _work(dy, w_shape), (x, dy, _scratch(plan, g, x), sums, SCALARS[x.dtype]), numbers)
    if chunks > 1:
        _add_up(-(-size // MOST_ROWS), sums.size, (sums, dw), numbers)
    return dw


def _plan(x_shape, w_shape, g, chunks=1, parts=1):
    gathered = not (tuple(w_shape[:2]) == (1, 1) and g.groups == 1 and g.stride_h == g.stride_w == 1
                    and g.pad_h == g.pad_w == 0)
    width = w_shape[0] * w_shape[1] // parts * w_shape[2]
    block = max(LEAST_ROWS, min(MOST_ROWS, BUFFER // width))
    return _Plan(x_shape[3], *w_shape[:2], w_shape[3], gathered, block, chunks, parts)


def _scratch(plan, g, x):
    """The rows of a block for each thread, where they are gathered."""
    width = plan.kh * plan.kw // plan.parts * (plan.channels // g.groups)
    return empty((numba.get_num_threads(), plan.block * width if plan.gathered else 0), x.dtype)


def _work(y, w_shape):
    """A simple operation for each entry gathered, and one for eight multiply-adds of BLAS."""
    kh, kw, channels, outputs = w_shape
    return y.size // outputs * kh * kw * channels * (1 + outputs // 8)


@kernel()
def gather(x, p, group, first, count, first_tap, taps, rows, start):
    """rows[r] = what place `first` + r, counted over all images, sees through `taps` taps from `first_tap` on."""
    part = p.channels // p.groups
    for r in range(count):
        image, place = divmod(first + r, p.out_h * p.out_w)
        top = place // p.out_w * p.stride_h - p.pad_h
        left = place % p.out_w * p.stride_w - p.pad_w
        for t in range(taps):
            i, j = divmod(first_tap + t, p.kw)
            row, column = top + i * p.dilation_h, left + j * p.dilation_w
            to = start + (r * taps + t) * part
            if 0 <= row < p.height and 0 <= column < p.width:
                of = ((image * p.height + row) * p.width + column) * p.channels + group * part
                copy_entries(x, of, rows, to, part)
            else:
                zero_entries(rows, to, part)


@kernel()
def _scatter(rows, start, p, group, first, count, dx):
    """Add rows[r], the gradient of what place `first` + r, counted over all images, sees, to dx."""
    part = p.channels // p.groups
    for r in range(count):
        image, place = divmod(first + r, p.out_h * p.out_w)
        top = place // p.out_w * p.stride_h - p.pad_h
        left = place % p.out_w * p.stride_w - p.pad_w
        for i in range(p.kh):
            for j in range(p.kw):
                row, column = top + i * p.dilation_h, left + j * p.dilation_w
                if 0 <= row < p.height and 0 <= column < p.width:
                    to = ((image * p.height + row) * p.width + column) * p.channels + group * part
                    of = start + ((r * p.kh + i) * p.kw + j) * part
                    for c in range(part):
                        dx[to + c] += rows[of + c]


@block_kernel(Images, Geometry, _Plan)
def _forward(arrays, numbers, rows, vectors, number, thread):
    p = carray(numbers, 1)[0]
    x, w, b, scratch = carray(arrays[0], 1), carray(arrays[1], 1), carray(arrays[2], 1), carray(arrays[3], 1)
    y, scalars = carray(arrays[4], 1), carray(arrays[5], 2)
    inner, some = p.kh * p.kw * (p.channels // p.groups), p.outputs // p.groups
    first = number * p.block
    count = min(p.block, p.images * p.out_h * p.out_w - first)
    own = thread * p.block * inner
    for r in range(first, first + count):
        for k in range(p.outputs):
            y[r * p.outputs + k] = b[k]
    for group in range(p.groups):
        if p.gathered:
            gather(x, p, group, first, count, 0, p.kh * p.kw, scratch, own)
        gemm(NORMAL, NORMAL, count, some, inner,
             address(scratch, own) if p.gathered else address(x, first * p.channels), inner,
             address(w, group * some), p.outputs, True,
             address(y, first * p.outputs + group * some), p.outputs, scalars)


@block_kernel(Images, Geometry, _Plan)
def _dx(arrays, numbers, rows, vectors, unit, thread):
    p = carray(numbers, 1)[0]
    dy, w, scratch, dx = carray(arrays[0], 1), carray(arrays[1], 1), carray(arrays[2], 1), carray(arrays[3], 1)
    inner, some = p.kh * p.kw * (p.channels // p.groups), p.outputs // p.groups
    size, places = p.height * p.width * p.channels, p.out_h * p.out_w
    own = thread * p.block * inner
    start, stop = unit * p.together, min(p.images, (unit + 1) * p.together)
    zero_entries(dx, start * size, (stop - start) * size)
    for first in range(start * places, stop * places, p.block):
        count = min(p.block, stop * places - first)
        for group in range(p.groups):
            gemm(NORMAL, TRANSPOSED, count, inner, some, address(dy, first * p.outputs + group * some), p.outputs,
                 address(w, group * some), p.outputs, False, address(scratch, own), inner, carray(arrays[4], 2))
            _scatter(scratch, own, p, group, first, count, dx)


@block_kernel(Images, Geometry, _Plan)
def _dx_of_pixels(arrays, numbers, rows, vectors, number, thread):
    p = carray(numbers, 1)[0]
    dy, w, dx = carray(arrays[0], 1), carray(arrays[1], 1), carray(arrays[3], 1)
    first = number * p.block
    gemm(NORMAL, TRANSPOSED, min(p.block, p.images * p.out_h * p.out_w - first), p.channels, p.outputs,
         address(dy, first * p.outputs), p.outputs, address(w, 0), p.outputs, False,
         address(dx, first * p.channels), p.channels, carray(arrays[4], 2))


@block_kernel(Images, Geometry, _Plan)
def _dw(arrays, numbers, rows, vectors, unit, thread):
    p = carray(numbers, 1)[0]
    x, dy, scratch, sums = carray(arrays[0], 1), carray(arrays[1], 1), carray(arrays[2], 1), carray(arrays[3], 1)
    taps = p.kh * p.kw // p.parts
    inner, some = taps * (p.channels // p.groups), p.outputs // p.groups
    places = p.images * p.out_h * p.out_w
    chunk, share = divmod(unit, p.parts)
    own = thread * p.block * inner
    start, stop = places * chunk // p.chunks, places * (chunk + 1) // p.chunks
    for group in range(p.groups):
        for first in range(start, stop, p.block):
            count = min(p.block, stop - first)
            if p.gathered:
                gather(x, p, group, first, count, share * taps, taps, scratch, own)
            gemm(TRANSPOSED, NORMAL, inner, some, count,
                 address(scratch, own) if p.gathered else address(x, first * p.channels), inner,
                 address(dy, first * p.outputs + group * some), p.outputs, first > start,
                 address(sums, unit * inner * p.outputs + group * some), p.outputs, carray(arrays[4], 2))


@block_kernel(Images, Geometry, _Plan)
def _add_up(arrays, numbers, rows, vectors, block, thread):
    p = carray(numbers, 1)[0]
    sums, dw = carray(arrays[0], 1), carray(arrays[1], 1)
    size = p.kh * p.kw * (p.channels // p.groups) * p.outputs
    for i in range(block * MOST_ROWS, min(size, (block + 1) * MOST_ROWS)):
        dw[i] = sums[i]
        for chunk in range(1, p.chunks):
            dw[i] += sums[chunk * size + i]
