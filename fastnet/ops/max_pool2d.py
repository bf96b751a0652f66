"""Largest entry of each window, channel by channel.

x (N, H, W, C), y (N, OH, OW, C); padding counts as minus infinity, so it never wins. Of equal entries the first in the
window, row by row, wins.

    y_npqc = max over taps (i, j) of x[n, p stride + i, q stride + j, c]
    dx     = dy at the winner, added up where windows overlap

Source: Ranzato et al., "Unsupervised learning of invariant feature hierarchies", 2007; ceil mode as in PyTorch.
"""

import math

from fastnet.arrays import array_module, require_float
from fastnet.ops._windows import added_up, padded, pool_taps


def forward(x, *, window, stride=None, pad=0, ceil_mode=False):
    """Return y (N, OH, OW, C). `stride` is the window's size unless given; a NaN wins wherever it is.

    Raises ValueError where no window fits, or for a pad above half the window (a window might see padding alone).
    """
    require_float("max_pool2d", x=x)
    rows, columns, taps = pool_taps("max_pool2d", x, window, stride, pad, ceil_mode)
    xp = array_module(x)
    border = padded(x, rows, columns, -math.inf)
    inside = padded(xp.ones((1, *x.shape[1:3], 1), dtype=bool), rows, columns, False)
    best, seen = border[taps[0][1]], xp.zeros_like(inside[taps[0][1]])
    winner = xp.zeros(best.shape, dtype=xp.uint8 if len(taps) < 256 else xp.int32)
    for number, (_, at) in enumerate(taps):
        patch = border[at]
        better = (patch.real > best.real) | (xp.isnan(patch) & ~xp.isnan(best)) | (inside[at] & ~seen)
        seen = seen | inside[at]  # the first entry beats padding even where it is minus infinity itself
        best = xp.where(better, patch, best)
        winner = xp.where(better, xp.asarray(number, dtype=winner.dtype), winner)
    return best, (winner, x.shape, window, stride, pad, ceil_mode)


def backward(dy, cache, needs=None):
    if needs is not None and not needs[0]:
        return (None,)
    winner, shape, window, stride, pad, ceil_mode = cache
    xp = array_module(dy)
    dx = xp.zeros(shape, dtype=dy.dtype)
    rows, columns, taps = pool_taps("max_pool2d", dx, window, stride, pad, ceil_mode)
    nothing = xp.zeros_like(dy)
    return (added_up(dx, rows, columns, taps, lambda number: xp.where(winner == number, dy, nothing)),)
