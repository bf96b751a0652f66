"""Convolutions of 16-bit numbers on tensor cores, of any kernel, stride, padding and dilation."""

import math

from fastnet.kernels.cuda._arrays import aligned, empty
from fastnet.kernels.cuda._launch import Kernel, blocks, storage
from fastnet.kernels.cuda._parts import UNIT, in_parts

DEEP, PIXELS, STAGES = 64, UNIT, 3  # channels and pixels of a tile; tiles in shared memory at a time
MOST_TAPS = 64
SHARED = STAGES * (PIXELS + DEEP) * DEEP * 2  # bytes: pixels and weights
DW_SHARED = 2 * 2 * PIXELS * DEEP * 2  # x and dy, of this tile and the next
DW_BLOCKS = 512  # about; a multiprocessor has three

_FORWARD, _DX, _NARROWED = (Kernel("conv_taps", f"conv_taps_{name}") for name in ("forward", "dx", "narrowed"))
_DW = Kernel("conv_taps_dw", "conv_taps_dw")


def takes(x, g):
    """Whether these kernels convolve x; g are the numbers from `images` on, as in conv2d.cu."""
    channels, outputs, taps, groups = g[3], g[6], g[7] * g[8], g[-1]
    return (storage(x.dtype) in ("half", "bf16") and groups == 1 and taps <= MOST_TAPS and channels % DEEP == 0
            and outputs % DEEP == 0)


def weights(x, w):
    """w as forward and dx want it: in the type of x."""
    out = empty(x, w.shape)
    _NARROWED(_NARROWED.grid_for(w.size), w, out, w.size)
    return out


def forward(x, w, b, g):
    y = empty(x, (g[0], *g[4:7]))
    _FORWARD(blocks(-(-y.size // (PIXELS * DEEP))), aligned(x), w, b, y, *g, shared=SHARED)
    return y


def pools(g, pool):
    """Whether the convolution can pool its outputs before it stores them."""
    return False


def dx(dy, w, g):
    out = empty(dy, g[:4])
    _DX(blocks(-(-out.size // (PIXELS * DEEP))), aligned(dy), w, out, *g, shared=SHARED)
    return out


def dw(x, dy, into, g):
    x, dy, taps, tiles = aligned(x), aligned(dy), g[7] * g[8], into.shape[2] // DEEP * (into.shape[3] // DEEP)
    return in_parts(lambda grid, parts, chunk: _DW(grid, x, dy, parts, chunk, *g, shared=DW_SHARED),
                    x, into, math.prod(dy.shape[:3]), taps * tiles, DW_BLOCKS)
