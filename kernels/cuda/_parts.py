"""Sums over the pixels of a batch: in parts, so that all multiprocessors are busy, which are added in their order.

What the parts are depends on the shape alone, so that every card gives the same bits.
"""

from fastnet.kernels.cuda._arrays import empty
from fastnet.kernels.cuda._launch import Kernel, blocks

UNIT = 128  # a part is this many pixels, or a multiple
WANTED = 1024  # blocks that keep the largest card busy

_SUM = Kernel("conv2d_parts", "conv2d_sum")


def in_parts(launch, x, total, pixels, tiles, wanted=WANTED, unit=None):
    """`total`, into which goes what `launch(grid, parts, chunk)` computes.

    It sums `chunk` pixels (or whatever is counted, in multiples of `unit`) for each entry of parts (P, *total.shape),
    with `tiles` blocks a part, about `wanted` in all. `x` only says which type T is.
    """
    unit = unit or UNIT
    units = -(-pixels // unit)
    chunk = -(-units // max(1, min(wanted // tiles, units))) * unit
    many = -(-pixels // chunk)
    parts = total if many == 1 else empty(total, (many, *total.shape))
    launch(blocks(tiles * many), parts, chunk)
    if many > 1:
        _SUM(_SUM.grid_for(total.size), x, parts, total, many, total.size)
    return total
