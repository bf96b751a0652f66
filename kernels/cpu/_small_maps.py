"""Convolution of maps so small that half the taps or more fall outside: a matrix product for each pixel and tap inside.

Of a 3x3 convolution of 2x2 maps these are 16 of 36. A product's rows are the images, and the pixel lies at the same
place in each, so nothing is gathered: the images' distance is the distance of its rows. In the forward pass
neighbouring taps of a row share one product. The threads share out pixels (for dw taps) and parts of the channels.
"""

from typing import NamedTuple

from numba import carray

from fastnet.arrays import empty, given, zeros
from fastnet.kernels.cpu._blocks import block_kernel
from fastnet.kernels.cpu._gemm import NORMAL, SCALARS, TRANSPOSED, address, gemm
from fastnet.kernels.cpu._geometry import Geometry, Images

LEAST_IMAGES = 16  # with fewer, a product reads the filters for next to nothing
PART = 128  # channels of a product's result


class _Plan(NamedTuple):
    channels: int
    kh: int
    kw: int
    outputs: int


def takes(x_shape, w_shape, g):
    """Whether this is the fastest way: many images, and at least half of the taps fall outside."""
    if g.groups > 1 or g.dilation_h > 1 or g.dilation_w > 1 or x_shape[0] < LEAST_IMAGES:
        return False
    inside = [sum(0 <= place * stride + tap - pad < size for place in range(places) for tap in range(taps))
              for size, taps, places, stride, pad in zip(x_shape[1:3], w_shape[:2], (g.out_h, g.out_w),
                                                         (g.stride_h, g.stride_w), (g.pad_h, g.pad_w), strict=True)]
    return 2 * inside[0] * inside[1] <= g.out_h * g.out_w * w_shape[0] * w_shape[1]


def forward(x, w, b, g):
    y = empty((len(x), g.out_h, g.out_w, w.shape[3]), x.dtype)
    bias = zeros(w.shape[3], x.dtype) if b is None else b
    _forward(g.out_h * g.out_w * -(-w.shape[3] // PART), _work(y, w), (x, w, bias, y, SCALARS[x.dtype]),
             _numbers(x.shape, w.shape, g))
    return y


def dx(dy, w, x_shape, g):
    dx = empty(tuple(x_shape), dy.dtype)
    _dx(x_shape[1] * x_shape[2] * -(-x_shape[3] // PART), _work(dy, w), (dy, w, dx, SCALARS[dy.dtype]),
        _numbers(x_shape, w.shape, g))
    return dx


def dw(x, dy, w_shape, g, into=None):
    dw = given(into, tuple(w_shape), x.dtype)
    _dw(w_shape[0] * w_shape[1] * -(-w_shape[2] // PART), _work(dy, dw), (x, dy, dw, SCALARS[x.dtype]),
        _numbers(x.shape, w_shape, g))
    return dw


def _numbers(x_shape, w_shape, g):
    return Images(*x_shape[:3]), g, _Plan(x_shape[3], *w_shape[:2], w_shape[3])


def _work(y, w):
    """Eight multiply-adds of BLAS are a simple operation."""
    return y.size * w.shape[2] // 8


@block_kernel(Images, Geometry, _Plan)
def _forward(arrays, numbers, rows, vectors, unit, thread):
    p = carray(numbers, 1)[0]
    x, w, b = carray(arrays[0], 1), carray(arrays[1], 1), carray(arrays[2], 1)
    y, scalars = carray(arrays[3], 1), carray(arrays[4], 2)
    place, part = divmod(unit, (p.outputs + PART - 1) // PART)
    k, size = part * PART, p.out_h * p.out_w * p.outputs
    some = min(PART, p.outputs - k)
    for n in range(p.images):
        for i in range(some):
            y[n * size + place * p.outputs + k + i] = b[k + i]
    top, left = place // p.out_w * p.stride_h - p.pad_h, place % p.out_w * p.stride_w - p.pad_w
    first, stop = max(0, -left), min(p.kw, p.width - left)
    for i in range(max(0, -top), min(p.kh, p.height - top)):
        if first < stop:
            gemm(NORMAL, NORMAL, p.images, some, (stop - first) * p.channels,
                 address(x, ((top + i) * p.width + left + first) * p.channels), p.height * p.width * p.channels,
                 address(w, (i * p.kw + first) * p.channels * p.outputs + k), p.outputs, True,
                 address(y, place * p.outputs + k), size, scalars)


@block_kernel(Images, Geometry, _Plan)
def _dx(arrays, numbers, rows, vectors, unit, thread):
    p = carray(numbers, 1)[0]
    dy, w, dx = carray(arrays[0], 1), carray(arrays[1], 1), carray(arrays[2], 1)
    pixel, part = divmod(unit, (p.channels + PART - 1) // PART)
    row, column = divmod(pixel, p.width)
    c, size = part * PART, p.height * p.width * p.channels
    some = min(PART, p.channels - c)
    for n in range(p.images):
        for i in range(some):
            dx[n * size + pixel * p.channels + c + i] = 0
    for i in range(p.kh):
        for j in range(p.kw):
            q, aside = divmod(row + p.pad_h - i, p.stride_h)
            r, beside = divmod(column + p.pad_w - j, p.stride_w)
            if aside == 0 and beside == 0 and 0 <= q < p.out_h and 0 <= r < p.out_w:
                gemm(NORMAL, TRANSPOSED, p.images, some, p.outputs,
                     address(dy, (q * p.out_w + r) * p.outputs), p.out_h * p.out_w * p.outputs,
                     address(w, ((i * p.kw + j) * p.channels + c) * p.outputs), p.outputs, True,
                     address(dx, pixel * p.channels + c), size, carray(arrays[3], 2))


@block_kernel(Images, Geometry, _Plan)
def _dw(arrays, numbers, rows, vectors, unit, thread):
    p = carray(numbers, 1)[0]
    x, dy, dw = carray(arrays[0], 1), carray(arrays[1], 1), carray(arrays[2], 1)
    tap, part = divmod(unit, (p.channels + PART - 1) // PART)
    i, j = divmod(tap, p.kw)
    c = part * PART
    some = min(PART, p.channels - c)
    to = (tap * p.channels + c) * p.outputs
    for k in range(to, to + some * p.outputs):
        dw[k] = 0
    for q in range(p.out_h):
        for r in range(p.out_w):
            row, column = q * p.stride_h + i - p.pad_h, r * p.stride_w + j - p.pad_w
            if 0 <= row < p.height and 0 <= column < p.width:
                gemm(TRANSPOSED, NORMAL, some, p.outputs, p.images,
                     address(x, (row * p.width + column) * p.channels + c), p.height * p.width * p.channels,
                     address(dy, (q * p.out_w + r) * p.outputs), p.out_h * p.out_w * p.outputs, True,
                     address(dw, to), p.outputs, carray(arrays[3], 2))
