"""Logistic function, elementwise on any shape.

    y  = 1 / (1 + exp(-x))
    dx = dy y (1 - y)

Source: Rumelhart, Hinton & Williams, "Learning representations by back-propagating errors", 1986.
"""

from fastnet.arrays import accumulator, require_float
from fastnet.ops import _logistic


def forward(x):
    """Return the logistic function of x, of x's shape, in [0, 1] for any x."""
    require_float("sigmoid", x=x)
    y = _logistic.sigmoid(x.astype(accumulator(x.dtype), copy=False)).astype(x.dtype, copy=False)
    return y, y  # y alone gives the slope, and the next layer keeps it alive anyway


def backward(dy, cache, needs=None):
    if needs is not None and not needs[0]:
        return (None,)
    y = cache.astype(accumulator(cache.dtype), copy=False)
    return ((dy * (y * (1 - y))).astype(cache.dtype, copy=False),)
