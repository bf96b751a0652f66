"""Convolutions of any kind in plain multiply-adds: by tiles, or directly where groups have few channels."""

import math

from fastnet.kernels.cuda._arrays import empty
from fastnet.kernels.cuda._launch import WARP, Kernel, blocks
from fastnet.kernels.cuda._parts import in_parts

TILE = 64  # rows and columns of a product that a block computes, in conv2d.cu
FEW = 16  # channels of a group that would leave three quarters of a tile empty
POOLED = 4  # outputs of a window that a thread has the sums of
MOST_ENTRIES = 1 << 31  # of an image that `pooled` counts in 32 bits

_TILES, _DIRECT = ({name: Kernel(stem, f"{stem}_{name}") for name in ("forward", "dx", "dw")}
                   for stem in ("conv2d", "conv2d_direct"))
_POOLED_TILES, _POOLED_DIRECT = (Kernel("conv2d_pooled", f"conv2d_pooled_{name}") for name in ("tiles", "direct"))


def takes(x, g):
    return True


def weights(x, w):
    """w as forward and dx want it."""
    return w


def forward(x, w, b, g):
    y, breadth = empty(x, (g[0], *g[4:7])), w.shape[3] // g[-1]
    kernel, grid = _chosen("forward", y, breadth, g[-1])
    kernel(grid, x, w, b, y, *g)
    return y


def pools(g, pool):
    """Whether `pooled` takes these windows: no output is computed twice, and no part of a tile is for nothing."""
    apart = pool.stride_h >= pool.window_h and pool.stride_w >= pool.window_w
    if g[6] // g[-1] < FEW:
        return apart and pool.taps <= POOLED and math.prod(g[1:4]) < MOST_ENTRIES
    return apart and pool.taps == POOLED


def pooled(x, w, b, g, pool):
    """(y, winners) of the convolution with ReLU and the pooling behind it, as `max_pool2d.largest` gives them."""
    y, breadth = empty(x, pool.out_shape), g[6] // g[-1]
    winners = empty(x, y.shape, "uint8")
    if breadth < FEW:
        kernel, grid = _POOLED_DIRECT, _POOLED_DIRECT.grid_for(y.size)
    else:
        kernel, grid = _POOLED_TILES, blocks(_tiles(POOLED * math.prod(y.shape[:3]), breadth, g[-1]))
    kernel(grid, x, w, b, y, winners, *g, *pool[4:])
    return y, winners


def dx(dy, w, g):
    out = empty(dy, g[:4])
    kernel, grid = _chosen("dx", out, w.shape[2], g[-1])
    kernel(grid, dy, w, out, *g)
    return out


def dw(x, dy, into, g):
    groups, breadth, pixels = g[-1], into.shape[3] // g[-1], math.prod(dy.shape[:3])
    kernel = (_DIRECT if breadth < FEW else _TILES)["dw"]
    count = -(-into.size // WARP) if breadth < FEW else _tiles(math.prod(into.shape[:3]), breadth, groups)
    return in_parts(lambda grid, parts, chunk: kernel(grid, x, dy, parts, chunk, *g), x, into, pixels, count)


def _chosen(name, out, columns, groups):
    """The kernel, and how many blocks, for images `out` with so many channels in each group."""
    if columns < FEW:
        return _DIRECT[name], _DIRECT[name].grid_for(out.size)
    return _TILES[name], blocks(_tiles(math.prod(out.shape[:3]), columns, groups))


def _tiles(rows, columns, groups):
    return -(-rows // TILE) * -(-columns // TILE) * groups
