"""Where pooling windows stand, as plain numbers for compiled kernels, and what these kernels share.

Backward, each block zeroes the rows of dx that its windows see, and adds what they give: where windows of different
rows do not overlap a block is one row of them, else a whole image. So no two threads write to the same place.
"""

import functools
from typing import NamedTuple

from fastnet import shapes
from fastnet.kernels.cpu._jit import is_float, kernel


class Geometry(NamedTuple):
    """Sizes of windows and places of the output, (height, width) each; `pad` is the padding before the image."""

    window_h: int
    window_w: int
    stride_h: int
    stride_w: int
    pad_h: int
    pad_w: int
    out_h: int
    out_w: int


def geometry(op, size, window, stride, pad, ceil_mode):
    """The geometry of pooling images of `size` (H, W).

    Raises ValueError or TypeError for options that the reference refuses.
    """
    window, stride, pad = shapes.pool_options(op, window, stride, pad)
    return _geometry(op, size, window, stride, pad, ceil_mode)


@functools.lru_cache(maxsize=1024)
def _geometry(op, size, window, stride, pad, ceil_mode):
    rows, columns = shapes.windows(op, size, window, stride, pad, ceil_mode=ceil_mode)
    return Geometry(*window, *stride, *pad, rows.places, columns.places)


def supports(op, x, window, stride, pad, ceil_mode):
    if x.ndim != 4 or x.size == 0 or not is_float(x):
        return False
    try:
        geometry(op, x.shape[1:3], window, stride, pad, ceil_mode)
    except (TypeError, ValueError):
        return False
    return True


def backward_blocks(images, g):
    """(blocks, rows of windows in each) of a backward pass."""
    return (images * g.out_h, 1) if g.stride_h >= g.window_h else (images, g.out_h)


@kernel(inline="always")
def inside(start, size, length):
    """The range of a window's taps that lie inside 0..length-1."""
    return max(0, -start), min(size, length - start)


@kernel(inline="always")
def seen(g, image, p, q, height, width, channels):
    """What the window at place (p, q) sees of an image: (first entry, rows, columns, first tap)."""
    top, left = p * g.stride_h - g.pad_h, q * g.stride_w - g.pad_w
    first_i, stop_i = inside(top, g.window_h, height)
    first_j, stop_j = inside(left, g.window_w, width)
    return (((image * height + top + first_i) * width + left + first_j) * channels, stop_i - first_i, stop_j - first_j,
            first_i * g.window_w + first_j)


@kernel(inline="always")
def whole(g, p, height, width, window_h, window_w):
    """The windows first..stop-1 of row p that lie inside an image; none where the window is not window_h x window_w."""
    top = p * g.stride_h - g.pad_h
    if g.window_h != window_h or g.window_w != window_w or top < 0 or top + window_h > height:
        return 0, 0
    return (g.pad_w + g.stride_w - 1) // g.stride_w, min(g.out_w, (width + g.pad_w - window_w) // g.stride_w + 1)


@kernel()
def clear_rows(dx, image, first_p, stop_p, g):
    """Zero the rows of dx (N, H, W C) that the windows of these rows see, and those that no window sees beside them."""
    height = dx.shape[1]
    start = 0 if first_p == 0 else first_p * g.stride_h - g.pad_h
    stop = height if stop_p == g.out_h else stop_p * g.stride_h - g.pad_h
    zero = dx.dtype.type(0)
    for r in range(start, stop):
        for k in range(dx.shape[2]):
            dx[image, r, k] = zero
