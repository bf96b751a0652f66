"""Convolution as in `fastnet.ops.conv2d`, in plain multiply-adds: by tiles, or directly where groups have few channels.

There is no Winograd's convolution here: every `conv_algorithm` is direct.
"""

import functools
import math

from fastnet import shapes
from fastnet.kernels.cuda._arrays import contiguous, empty, supported
from fastnet.kernels.cuda._launch import WARP, Kernel, blocks

__all__ = ["backward", "forward", "supports"]

TILE = 64  # rows and columns of a product that a block computes, in conv2d.cu
FEW = 16  # channels of a group that would leave three quarters of a tile empty
MOST_PIXELS = 1 << 30  # they are counted in 32 bits
WANTED = 1024  # blocks that keep the largest card busy; sums over pixels are cut into parts for them
LEAST_CHUNK = 128  # pixels in such a part

_TILES, _DIRECT = ({name: Kernel(stem, f"{stem}_{name}") for name in ("forward", "dx", "dw")}
                   for stem in ("conv2d", "conv2d_direct"))
_DB, _SUM = Kernel("conv2d_parts", "conv2d_db"), Kernel("conv2d_parts", "conv2d_sum")


def supports(x, w, b=None, *, stride=1, pad=0, dilation=1, groups=1, conv_algorithm="auto"):
    if not (supported(x, w, b) and x.ndim == w.ndim == 4 and x.size and w.size):
        return False
    if not (isinstance(groups, int) and groups > 0 and x.shape[3] == w.shape[2] * groups and w.shape[3] % groups == 0
            and (b is None or b.shape == w.shape[3:]) and conv_algorithm in ("auto", "winograd", "direct")):
        return False
    try:
        g = _geometry(x.shape, w.shape, stride, pad, dilation, groups)
    except (TypeError, ValueError):
        return False
    return max(math.prod(x.shape[:3]), math.prod((x.shape[0], *g[4:6])), w.size) < MOST_PIXELS


def forward(x, w, b=None, *, stride=1, pad=0, dilation=1, groups=1, conv_algorithm="auto"):
    x, w, b = map(contiguous, (x, w, b))
    g = _geometry(x.shape, w.shape, stride, pad, dilation, groups)
    pixels, outputs = math.prod((len(x), *g[4:6])), w.shape[3]
    y = empty(x, (len(x), *g[4:7]))
    if outputs // groups < FEW:
        _DIRECT["forward"](_DIRECT["forward"].grid_for(y.size), x, w, b, y, *g)
    else:
        _TILES["forward"](_tiles(pixels, outputs // groups, groups), x, w, b, y, *g)
    return y, (x, w, b is not None, g)


def backward(dy, cache, needs=None):
    x, w, with_b, g = cache
    needs_x, needs_w, needs_b = needs or (True, True, True)
    dy = contiguous(dy)
    return (_dx(dy, w, x.shape, g) if needs_x else None, _dw(x, dy, w, g) if needs_w else None,
            _db(dy, w) if needs_b and with_b else None)


def _dx(dy, w, shape, g):
    dx = empty(dy, shape)
    if w.shape[2] < FEW:
        _DIRECT["dx"](_DIRECT["dx"].grid_for(dx.size), dy, w, dx, *g)
    else:
        _TILES["dx"](_tiles(math.prod(shape[:3]), w.shape[2], g[-1]), dy, w, dx, *g)
    return dx


def _dw(x, dy, w, g):
    groups, pixels = g[-1], math.prod(dy.shape[:3])
    few = w.shape[3] // groups < FEW
    kernel = (_DIRECT if few else _TILES)["dw"]
    count = -(-w.size // WARP) if few else _tiles(math.prod(w.shape[:3]), w.shape[3] // groups, groups)
    return _in_parts(x, w, w.shape, pixels, count, lambda grid, parts, chunk: kernel(grid, x, dy, parts, chunk, *g))


def _db(dy, w):
    rows, outputs = math.prod(dy.shape[:3]), w.shape[3]
    return _in_parts(dy, w, (outputs,), rows, -(-outputs // WARP),
                     lambda grid, parts, chunk: _DB(grid, dy, parts, chunk, rows, outputs))


def _in_parts(x, like, shape, pixels, tiles, launch):
    """The array that `launch(grid, parts, chunk)` computes by sums over parts of `chunk` pixels each."""
    chunk = -(-pixels // max(1, min(WANTED // tiles, pixels // LEAST_CHUNK)))
    many = -(-pixels // chunk)
    parts = empty(like, (many, *shape))
    launch(blocks(tiles * many), parts, chunk)
    if many == 1:
        return parts.reshape(shape)
    total = empty(like, shape)
    _SUM(_SUM.grid_for(total.size), x, parts, total, many, total.size)
    return total


def _tiles(rows, columns, groups):
    return -(-rows // TILE) * -(-columns // TILE) * groups


def _geometry(x_shape, w_shape, stride, pad, dilation, groups):
    """What the kernels' last parameters are, from `images` on. Raises ValueError or TypeError as the reference does."""
    stride = shapes.pair("conv2d", "stride", stride, 1)
    dilation = shapes.pair("conv2d", "dilation", dilation, 1)
    return _numbers(tuple(x_shape), tuple(w_shape), stride, shapes.pair("conv2d", "pad", pad, 0), dilation, groups)


@functools.lru_cache(maxsize=1024)
def _numbers(x_shape, w_shape, stride, pad, dilation, groups):
    rows, columns = shapes.windows("conv2d", x_shape[1:3], w_shape[:2], stride, pad, dilation)
    return (*x_shape, rows.places, columns.places, w_shape[3], *w_shape[:2], *stride, *pad, *dilation, groups)
