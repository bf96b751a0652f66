"""Where the windows of a convolution stand, as plain numbers for compiled kernels."""

import functools
from typing import NamedTuple

from fastnet import shapes


class Images(NamedTuple):
    """How many images there are, and their size."""

    images: int
    height: int
    width: int


class Geometry(NamedTuple):
    """Places of the output and spacing of the taps, (height, width) each; `pad` is the padding before the image.

    Tap (i, j) of the window of output (p, q) sees the input at (p stride_h + i dilation_h - pad_h, and so on), which
    is zero where it lies outside the image.
    """

    out_h: int
    out_w: int
    stride_h: int
    stride_w: int
    pad_h: int
    pad_w: int
    dilation_h: int
    dilation_w: int
    groups: int


def geometry(x, w, stride, pad, dilation, groups):
    """The geometry of x (N, H, W, C) under w (KH, KW, C/groups, K); options as in `fastnet.ops.conv2d`.

    Raises ValueError or TypeError for options that the reference refuses too.
    """
    stride = shapes.pair("conv2d", "stride", stride, 1)
    dilation = shapes.pair("conv2d", "dilation", dilation, 1)
    pad = shapes.pair("conv2d", "pad", pad, 0)
    return _geometry(x.shape[1:3], w.shape[:2], stride, pad, dilation, groups)


@functools.lru_cache(maxsize=1024, typed=True)  # typed: of groups, 1.0 is refused and 1 is not
def _geometry(size, kernel, stride, pad, dilation, groups):
    rows, columns = shapes.windows("conv2d", size, kernel, stride, pad, dilation)
    return Geometry(rows.places, columns.places, *stride, *pad, *dilation, groups)
