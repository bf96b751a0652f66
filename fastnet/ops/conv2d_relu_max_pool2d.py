"""Convolution, ReLU, then the largest entry of each window: `conv2d`, `relu` and `max_pool2d` as one op.

x (N, H, W, C), w (KH, KW, C/groups, K), b (K,) or None, y (N, PH, PW, K). The convolution's options are those of
`conv2d`; `window`, `pool_stride`, `pool_pad` and `ceil_mode` are those of `max_pool2d`.

    z  = x * w + b
    y_npqk = max(0, max over taps (i, j) of z[n, p pool_stride + i, q pool_stride + j, k])
    dz = dy at the winner, added up where windows overlap; nothing where y is 0
    dx, dw, db = those of `conv2d` for dz

Source: the three ops.
"""

from fastnet.ops import conv2d, relu_max_pool2d
from fastnet.ops._windows import pool_taps

NAME = "conv2d_relu_max_pool2d"


def forward(x, w, b=None, *, stride=1, pad=0, dilation=1, groups=1, conv_algorithm="auto", window, pool_stride=None,
            pool_pad=0, ceil_mode=False):
    """Return y (N, PH, PW, K). Raises ValueError and TypeError as `conv2d` and `max_pool2d` do."""
    conv2d.check(NAME, x, w, b, stride, pad, dilation, groups, conv_algorithm)
    z, below = conv2d.forward(x, w, b, stride=stride, pad=pad, dilation=dilation, groups=groups,
                              conv_algorithm=conv_algorithm)
    pool_taps(NAME, z, window, pool_stride, pool_pad, ceil_mode)  # which checks
    y, above = relu_max_pool2d.forward(z, window=window, stride=pool_stride, pad=pool_pad, ceil_mode=ceil_mode)
    return y, (below, above)


def backward(dy, cache, needs=None):
    below, above = cache
    return conv2d.backward(relu_max_pool2d.backward(dy, above)[0], below, needs)
