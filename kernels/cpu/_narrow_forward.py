"""Convolution of few channels whose outputs fill vectors, directly, image by image.

A vector holds outputs of one pixel; a tile of neighbouring pixels of a row stays in registers through all taps and
channels (`_simd`). So nothing has to be turned, which `_narrow` does: 64 outputs of 27 products each take two thirds of
the time, and a single image one tenth. Each sum runs in the same order there, to the same bits.
"""

from typing import NamedTuple

from numba import carray

from fastnet.kernels.cpu._blocks import block_kernel
from fastnet.kernels.cpu._border import blank, place
from fastnet.kernels.cpu._geometry import Geometry, Images
from fastnet.kernels.cpu._simd import AVX512, BYTES, tile_add_products, tile_store, tile_zeros

IMAGES = 4
# Tiles of pixels x vectors of outputs. Ten pixels are a row of LeNet-5's second layer.
TILES = ((8, 2), (7, 2), (10, 1), (8, 1)) if AVX512 else ((5, 1), (4, 1))


class _Plan(NamedTuple):
    channels: int
    kh: int
    outputs: int
    runs: int  # pieces that a row of a window falls into: with dilation its taps, otherwise one
    run: int  # entries of a piece
    rows: int  # of the padded image
    columns: int


def tile(n, outputs, itemsize, g):
    """The tile's (pixels, vectors) for a batch of n; None where `_narrow`'s way is the better one, or the only one."""
    bytes_each = outputs * itemsize
    # One vector of outputs reads every pixel for itself, and is the slower way where there are images for all lanes.
    fitting = [(pixels, vectors) for pixels, vectors in TILES
               if pixels <= g.out_w and bytes_each % (vectors * BYTES) == 0
               and (vectors > 1 or n * itemsize < BYTES)]
    # The most vectors, then the fewest pixels gone over twice.
    return min(fitting, key=lambda tile: (-tile[1], -(-g.out_w // tile[0]) * tile[0]), default=None)


def forward(x, w, b, g, tile, y):
    """Fill y; b is an array."""
    n, height, width, channels = x.shape
    kh, kw, _, outputs = w.shape
    runs, run = (kw, channels) if g.dilation_w > 1 else (1, kw * channels)
    rows = max(g.pad_h + height, (g.out_h - 1) * g.stride_h + (kh - 1) * g.dilation_h + 1)
    columns = max(g.pad_w + width, (g.out_w - 1) * g.stride_w + (kw - 1) * g.dilation_w + 1)
    plan = _Plan(channels, kh, outputs, runs, run, rows, columns)
    work = y.size * kh * kw * channels // 8  # eight multiply-adds take no longer than a simple operation
    _forward(-(-n // IMAGES), work, (x, w, b, y), (Images(n, height, width), g, plan), tile)


@block_kernel(Images, Geometry, _Plan)
def _forward(arrays, numbers, pixels, vectors, block, thread):
    x, w, b, y = carray(arrays[0], 1), carray(arrays[1], 1), carray(arrays[2], 1), carray(arrays[3], 1)
    plan = carray(numbers, 1)[0]
    lanes = BYTES // x.itemsize
    channels, outputs, kh, runs, run = plan.channels, plan.outputs, plan.kh, plan.runs, plan.run
    out_w, step, line = plan.out_w, plan.stride_w * channels, plan.columns * channels
    down, along = plan.dilation_h * line, plan.dilation_w * channels
    image = blank(plan.rows, plan.columns, channels, 0, x)
    one = blank(1, 1, 1, 0, x)
    one[0] = 1
    for n in range(block * IMAGES, min(plan.images, (block + 1) * IMAGES)):
        place(x, n, plan.height, plan.width, channels, plan.pad_h, plan.pad_w, plan.columns, image)
        for p in range(plan.out_h):
            for part in range((out_w + pixels - 1) // pixels):
                q = min(part * pixels, out_w - pixels)  # the last tile goes over some pixels twice
                corner = p * plan.stride_h * line + q * step
                for k in range(0, outputs, vectors * lanes):
                    tile = tile_add_products(tile_zeros(pixels, vectors, x), one, 0, 0, b, k, lanes)
                    weight = k
                    for i in range(kh):
                        for j in range(runs):
                            at = corner + i * down + j * along
                            for c in range(run):
                                tile = tile_add_products(tile, image, at + c, step, w, weight + c * outputs, lanes)
                            weight += run * outputs
                    tile_store(tile, y, ((n * plan.out_h + p) * out_w + q) * outputs + k, outputs, lanes)
