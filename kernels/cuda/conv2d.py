"""Convolution as in `fastnet.ops.conv2d`, by the kernels that suit the shape.

| kernels | where | source |
|---|---|---|
| tensor cores | 3x3, stride 1, padding 1, 16-bit numbers, channels in multiples of 64 | `_conv3x3` |
| direct | groups of few channels (depthwise) | conv2d_direct.cu |
| tiles | everything else | conv2d.cu |

The last two are plain multiply-adds. There is no Winograd's convolution: every `conv_algorithm` is direct.
"""

import functools
import math

from fastnet import shapes
from fastnet.kernels.cuda import _conv3x3
from fastnet.kernels.cuda._arrays import contiguous, empty, supported
from fastnet.kernels.cuda._launch import WARP, Kernel, blocks
from fastnet.kernels.cuda._parts import in_parts

__all__ = ["backward", "forward", "supports"]

TILE = 64  # rows and columns of a product that a block computes, in conv2d.cu
FEW = 16  # channels of a group that would leave three quarters of a tile empty
MOST_PIXELS = 1 << 30  # they are counted in 32 bits

_TILES, _DIRECT = ({name: Kernel(stem, f"{stem}_{name}") for name in ("forward", "dx", "dw")}
                   for stem in ("conv2d", "conv2d_direct"))
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
    if _conv3x3.takes(x, g):
        narrowed = _conv3x3.narrowed(x, w)
        return _conv3x3.forward(x, narrowed, b), (x, w, narrowed, b is not None, g)
    pixels, outputs = math.prod((len(x), *g[4:6])), w.shape[3]
    y = empty(x, (len(x), *g[4:7]))
    if outputs // groups < FEW:
        _DIRECT["forward"](_DIRECT["forward"].grid_for(y.size), x, w, b, y, *g)
    else:
        _TILES["forward"](blocks(_tiles(pixels, outputs // groups, groups)), x, w, b, y, *g)
    return y, (x, w, None, b is not None, g)


def backward(dy, cache, needs=None):
    x, w, narrowed, with_b, g = cache
    needs_x, needs_w, needs_b = needs or (True, True, True)
    dy = contiguous(dy)
    dx = dw = None
    if needs_x:
        dx = _dx(dy, w, x.shape, g) if narrowed is None else _conv3x3.dx(dy, narrowed)
    if needs_w:
        dw = _dw(x, dy, w, g) if narrowed is None else _conv3x3.dw(x, dy, w)
    return dx, dw, _db(dy, w) if needs_b and with_b else None


def _dx(dy, w, shape, g):
    dx = empty(dy, shape)
    if w.shape[2] < FEW:
        _DIRECT["dx"](_DIRECT["dx"].grid_for(dx.size), dy, w, dx, *g)
    else:
        _TILES["dx"](blocks(_tiles(math.prod(shape[:3]), w.shape[2], g[-1])), dy, w, dx, *g)
    return dx


def _dw(x, dy, w, g):
    groups, pixels = g[-1], math.prod(dy.shape[:3])
    few = w.shape[3] // groups < FEW
    kernel = (_DIRECT if few else _TILES)["dw"]
    count = -(-w.size // WARP) if few else _tiles(math.prod(w.shape[:3]), w.shape[3] // groups, groups)
    return in_parts(lambda grid, parts, chunk: kernel(grid, x, dy, parts, chunk, *g), x, w, w.shape, pixels, count)


def _db(dy, w):
    pixels, outputs = math.prod(dy.shape[:3]), w.shape[3]
    return in_parts(lambda grid, parts, chunk: _DB(grid, dy, parts, chunk, pixels, outputs), dy, w, (outputs,), pixels,
                    -(-outputs // WARP))


def _tiles(rows, columns, groups):
    return -(-rows // TILE) * -(-columns // TILE) * groups


def geometry(x_shape, w_shape, stride, pad, dilation, groups):
    """What the kernels' last parameters are, from `images` on. Raises ValueError or TypeError as the reference does."""
    stride = shapes.pair("conv2d", "stride", stride, 1)
    dilation = shapes.pair("conv2d", "dilation", dilation, 1)
    return _numbers(tuple(x_shape), tuple(w_shape), stride, shapes.pair("conv2d", "pad", pad, 0), dilation, groups)


@functools.lru_cache(maxsize=1024)
def _numbers(x_shape, w_shape, stride, pad, dilation, groups):
    rows, columns = shapes.windows("conv2d", x_shape[1:3], w_shape[:2], stride, pad, dilation)
    return (*x_shape, rows.places, columns.places, w_shape[3], *w_shape[:2], *stride, *pad, *dilation, groups)
