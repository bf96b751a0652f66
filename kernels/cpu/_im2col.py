"""Convolution of any shape as matrix products: pixels are gathered to rows (KH KW C/groups), one row a place.

Only a block of the rows exists at a time, in a buffer that stays in a core's cache. A 1x1 convolution with stride 1
needs none: its rows are the pixels themselves. For dx the products of a block are added up where they belong, image by
image; for dw the sum over all places is cut into chunks, and dw itself by taps where it is too large to have many
copies. All cuts are fixed by the shape, so the bits do not depend on the number of threads.
"""

import numba
import numpy as np
from numba import prange

from fastnet.arrays import empty
from fastnet.kernels.cpu._gemm import NORMAL, SCALARS, TRANSPOSED, address, gemm
from fastnet.kernels.cpu._jit import kernel, parallel_kernel

BUFFER = 1 << 17  # entries of a block's rows, 512 kB in float32: half of a small core's second-level cache
LEAST_ROWS = 16
MOST_ROWS = 512
CHUNKS = 16  # sums of dw side by side: so many threads can work at it
SUMS = 1 << 22  # entries of these sums together


def forward(x, w, b, g):
    outputs = w.shape[3]
    y = empty((len(x), g.out_h, g.out_w, outputs), x.dtype)
    bias = np.zeros(outputs, x.dtype) if b is None else b
    block = _block_rows(w)
    _forward.sized(_work(y, w))(
        x, w, bias, g, block, _is_pointwise(w.shape, g), _scratch(w, block), y, SCALARS[x.dtype])
    return y


def dx(dy, w, x_shape, g):
    dx = empty(tuple(x_shape), dy.dtype)
    block = _block_rows(w)
    _dx.sized(_work(dy, w))(
        dy, w, g, block, _is_pointwise(w.shape, g), _scratch(w, block), dx, SCALARS[dy.dtype])
    return dx


def dw(x, dy, w_shape, g):
    taps = w_shape[0] * w_shape[1]
    size = taps * w_shape[2] * w_shape[3]
    places = dy.size // dy.shape[3]
    chunks = max(1, min(CHUNKS, SUMS // size, places // MOST_ROWS))
    chunks = 1 << (chunks.bit_length() - 1)  # a power of two, which threads can share evenly
    parts = 1 if chunks > 1 else taps
    dw = empty(tuple(w_shape), x.dtype)
    sums = empty((chunks, *w_shape), x.dtype) if chunks > 1 else dw.reshape(1, *w_shape)
    block = max(LEAST_ROWS, min(MOST_ROWS, BUFFER // (taps // parts * w_shape[2])))
    scratch = empty((numba.get_num_threads(), block * (taps // parts) * w_shape[2]), x.dtype)
    _dw.sized(_work(dy, dw))(x, dy, g, block, parts, _is_pointwise(w_shape, g), scratch, sums, SCALARS[x.dtype])
    if chunks > 1:
        _add_up.sized(sums.size)(sums.reshape(chunks, -1), dw.reshape(-1))
    return dw


def _work(y, w):
    """A simple operation for each entry gathered, and one for eight multiply-adds of BLAS."""
    outputs = y.shape[3]
    return y.size // outputs * (w.size // outputs) * (1 + outputs // 8)


def _is_pointwise(w_shape, g):
    """Whether each place sees one pixel, and the places are the pixels: then there is nothing to gather."""
    return (tuple(w_shape[:2]) == (1, 1) and g.groups == 1 and g.stride_h == g.stride_w == 1
            and g.pad_h == g.pad_w == 0)


def _block_rows(w):
    return max(LEAST_ROWS, min(MOST_ROWS, BUFFER // (w.size // w.shape[3])))


def _scratch(w, block):
    return empty((numba.get_num_threads(), block * (w.size // w.shape[3])), w.dtype)


@kernel()
def _gather(x, g, group, first, count, first_tap, taps, kernel_w, rows):
    """rows[r] = what place `first` + r, counted over all images, sees through `taps` taps from `first_tap` on."""
    height, width, channels = x.shape[1:]
    part = channels // g.groups
    for r in range(count):
        image, place = divmod(first + r, g.out_h * g.out_w)
        top = place // g.out_w * g.stride_h - g.pad_h
        left = place % g.out_w * g.stride_w - g.pad_w
        for t in range(taps):
            i, j = divmod(first_tap + t, kernel_w)
            row, column = top + i * g.dilation_h, left + j * g.dilation_w
            to = (r * taps + t) * part
            if 0 <= row < height and 0 <= column < width:
                for c in range(part):
                    rows[to + c] = x[image, row, column, group * part + c]
            else:
                for c in range(part):
                    rows[to + c] = 0


@kernel()
def _scatter(rows, g, group, first, count, kernel_h, kernel_w, dx):
    """Add rows[r], the gradient of what place `first` + r of this image sees, to dx (H, W, C)."""
    height, width, channels = dx.shape
    part = channels // g.groups
    for r in range(count):
        place = first + r
        top = place // g.out_w * g.stride_h - g.pad_h
        left = place % g.out_w * g.stride_w - g.pad_w
        for i in range(kernel_h):
            for j in range(kernel_w):
                row, column = top + i * g.dilation_h, left + j * g.dilation_w
                if 0 <= row < height and 0 <= column < width:
                    of = ((r * kernel_h + i) * kernel_w + j) * part
                    for c in range(part):
                        dx[row, column, group * part + c] += rows[of + c]


@parallel_kernel()
def _forward(x, w, b, g, block, pointwise, scratch, y, scalars):
    kernel_h, kernel_w, part, outputs = w.shape
    taps, channels = kernel_h * kernel_w, x.shape[3]
    inner, some = taps * part, outputs // g.groups
    places = y.shape[0] * g.out_h * g.out_w
    flat = y.reshape(places, outputs)
    for number in prange((places + block - 1) // block):
        first = number * block
        count = min(block, places - first)
        for r in range(first, first + count):
            for k in range(outputs):
                flat[r, k] = b[k]
        rows = scratch[numba.get_thread_id()]
        for group in range(g.groups):
            if not pointwise:
                _gather(x, g, group, first, count, 0, taps, kernel_w, rows)
            gemm(NORMAL, NORMAL, count, some, inner,
                 address(x, first * channels) if pointwise else address(rows, 0), inner,
                 address(w, group * some), outputs, True,
                 address(flat, first * outputs + group * some), outputs, scalars)


@parallel_kernel()
def _dx(dy, w, g, block, pointwise, scratch, dx, scalars):
    kernel_h, kernel_w, part, outputs = w.shape
    inner, some = kernel_h * kernel_w * part, outputs // g.groups
    images = dy.shape[0]
    places = g.out_h * g.out_w
    if pointwise:
        total = images * places
        for number in prange((total + block - 1) // block):
            first = number * block
            gemm(NORMAL, TRANSPOSED, min(block, total - first), inner, outputs, address(dy, first * outputs), outputs,
                 address(w, 0), outputs, False, address(dx, first * inner), inner, scalars)
    else:
        for image in prange(images):
            rows = scratch[numba.get_thread_id()]
            dx[image] = 0
            for first in range(0, places, block):
                count = min(block, places - first)
                for group in range(g.groups):
                    gemm(NORMAL, TRANSPOSED, count, inner, some,
                         address(dy, (image * places + first) * outputs + group * some), outputs,
                         address(w, group * some), outputs, False, address(rows, 0), inner, scalars)
                    _scatter(rows, g, group, first, count, kernel_h, kernel_w, dx[image])


@parallel_kernel()
def _dw(x, dy, g, block, parts, pointwise, scratch, sums, scalars):
    chunks, kernel_h, kernel_w, part, outputs = sums.shape
    taps, channels = kernel_h * kernel_w // parts, x.shape[3]
    inner, some = taps * part, outputs // g.groups
    places = dy.shape[0] * g.out_h * g.out_w
    for unit in prange(chunks * parts):
        chunk, share = divmod(np.intp(unit), parts)  # prange counts in unsigned numbers
        rows = scratch[numba.get_thread_id()]
        start, stop = places * chunk // chunks, places * (chunk + 1) // chunks
        to = (chunk * parts + share) * inner * outputs
        for group in range(g.groups):
            for first in range(start, stop, block):
                count = min(block, stop - first)
                if not pointwise:
                    _gather(x, g, group, first, count, share * taps, taps, kernel_w, rows)
                gemm(TRANSPOSED, NORMAL, inner, some, count,
                     address(x, first * channels) if pointwise else address(rows, 0), inner,
                     address(dy, first * outputs + group * some), outputs, first > start,
                     address(sums, to + group * some), outputs, scalars)


@parallel_kernel()
def _add_up(sums, dw):
    for i in prange(dw.size):
        total = sums[0, i]
        for chunk in range(1, len(sums)):
            total += sums[chunk, i]
        dw[i] = total
