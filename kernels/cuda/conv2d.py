"""Convolution as in `fastnet.ops.conv2d`, by the kernels that suit the shape.

| kernels | where | file |
|---|---|---|
| tensor cores, all taps at once | 16-bit numbers, channels in multiples of 64: 3x3, stride 1, padding 1 | `_conv3x3` |
| tensor cores, tap by tap | the same, any other kernel, stride, padding and dilation | `_conv_taps` |
| plain multiply-adds | everything else | `_conv_plain` |

There is no Winograd's convolution: every `conv_algorithm` is direct.
"""

import functools
import math

from fastnet import shapes
from fastnet.kernels.cuda import _conv3x3, _conv_plain, _conv_taps
from fastnet.kernels.cuda._arrays import contiguous, empty, supported
from fastnet.kernels.cuda._launch import WARP, Kernel
from fastnet.kernels.cuda._parts import in_parts

__all__ = ["backward", "backward_into", "forward", "supports"]

MOST_PIXELS = 1 << 30  # they are counted in 32 bits
WAYS = (_conv3x3, _conv_taps, _conv_plain)  # the first that takes a shape computes it

_DB = Kernel("conv2d_parts", "conv2d_db")


def supports(x, w, b=None, *, stride=1, pad=0, dilation=1, groups=1, conv_algorithm="auto"):
    if not (supported(x, w, b) and x.ndim == w.ndim == 4 and x.size and w.size):
        return False
    if not (isinstance(groups, int) and groups > 0 and x.shape[3] == w.shape[2] * groups and w.shape[3] % groups == 0
            and (b is None or b.shape == w.shape[3:]) and conv_algorithm in ("auto", "winograd", "direct")):
        return False
    try:
        g = geometry(x.shape, w.shape, stride, pad, dilation, groups)
    except (TypeError, ValueError):
        return False
    return max(math.prod(x.shape[:3]), math.prod((x.shape[0], *g[4:6])), w.size) < MOST_PIXELS


def forward(x, w, b=None, *, stride=1, pad=0, dilation=1, groups=1, conv_algorithm="auto"):
    x, w, b = map(contiguous, (x, w, b))
    g = geometry(x.shape, w.shape, stride, pad, dilation, groups)
    chosen = way(x, g)
    weights = chosen.weights(x, w)
    return chosen.forward(x, weights, b, g), (x, w, weights, b is not None, g, chosen)


def way(x, g):
    """The kernels that convolve x; g are the numbers of `geometry`."""
    return next(candidate for candidate in WAYS if candidate.takes(x, g))


def backward(dy, cache, needs=None):
    return backward_into(dy, cache, needs, (None, None, None))


def backward_into(dy, cache, needs, into):
    x, w, weights, with_b, g, chosen = cache
    _, dw_into, db_into = into
    needs_x, needs_w, needs_b = needs or (True, True, True)
    dy = contiguous(dy)
    dx = dw = db = None
    if needs_x:
        dx = chosen.dx(dy, weights, g)
    if needs_w:
        dw = chosen.dw(x, dy, empty(w) if dw_into is None else dw_into, g)
    if needs_b and with_b:
        db = bias_gradient(dy, empty(w, w.shape[3:]) if db_into is None else db_into)
    return dx, dw, db


def bias_gradient(dy, into):
    """`into`, into which goes db of a convolution."""
    pixels, outputs = math.prod(dy.shape[:3]), len(into)
    return in_parts(lambda grid, parts, chunk: _DB(grid, dy, parts, chunk, pixels, outputs), dy, into, pixels,
                    -(-outputs // WARP))


def geometry(x_shape, w_shape, stride, pad, dilation, groups):
    """What the kernels' last parameters are, from `images` on. Raises ValueError or TypeError as the reference does."""
    stride = shapes.pair("conv2d", "stride", stride, 1)
    dilation = shapes.pair("conv2d", "dilation", dilation, 1)
    return _numbers(tuple(x_shape), tuple(w_shape), stride, shapes.pair("conv2d", "pad", pad, 0), dilation, groups)


@functools.lru_cache(maxsize=1024)
def _numbers(x_shape, w_shape, stride, pad, dilation, groups):
    rows, columns = shapes.windows("conv2d", x_shape[1:3], w_shape[:2], stride, pad, dilation)
    return (*x_shape, rows.places, columns.places, w_shape[3], *w_shape[:2], *stride, *pad, *dilation, groups)
