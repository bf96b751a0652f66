"""ReLU, then the largest entry of each window: `relu` and `max_pool2d` as one op.

x (N, H, W, C), y (N, OH, OW, C), windows as in `max_pool2d`.

    y_npqc = max(0, max over taps (i, j) of x[n, p stride + i, q stride + j, c])
    dx     = dy at the winner, added up where windows overlap; nothing where y is 0

Source: the two ops; the largest entry is the same before ReLU and after it.
"""

from fastnet.arrays import require_float
from fastnet.ops import max_pool2d, relu
from fastnet.ops._windows import pool_taps


def forward(x, *, window, stride=None, pad=0, ceil_mode=False):
    """Return y (N, OH, OW, C); a NaN wins and stays one. Raises ValueError as `max_pool2d` does."""
    require_float("relu_max_pool2d", x=x)
    pool_taps("relu_max_pool2d", x, window, stride, pad, ceil_mode)  # which checks
    pooled, cache = max_pool2d.forward(x, window=window, stride=stride, pad=pad, ceil_mode=ceil_mode)
    y, mask = relu.forward(pooled)
    return y, (cache, mask)


def backward(dy, cache, needs=None):
    of_pool, mask = cache
    return max_pool2d.backward(relu.backward(dy, mask)[0], of_pool, needs)
