"""Convolution, ReLU and max pooling as in `fastnet.ops.conv2d_relu_max_pool2d`.

Small windows that do not overlap go in one pass where the convolution can do that (`pools`), and what it alone would
give is never stored; everything else goes in the passes of `conv2d` and `relu_max_pool2d`.
"""

from fastnet.kernels.cuda import _pool, conv2d, max_pool2d
from fastnet.kernels.cuda._arrays import contiguous

NAME = "conv2d_relu_max_pool2d"


def supports(x, w, b=None, *, stride=1, pad=0, dilation=1, groups=1, conv_algorithm="auto", window, pool_stride=None,
             pool_pad=0, ceil_mode=False):
    if not conv2d.supports(x, w, b, stride=stride, pad=pad, dilation=dilation, groups=groups,
                           conv_algorithm=conv_algorithm):
        return False
    try:
        _geometries(x, w, (stride, pad, dilation, groups), (window, pool_stride, pool_pad, ceil_mode))
    except (TypeError, ValueError):
        return False
    return True


def forward(x, w, b=None, *, stride=1, pad=0, dilation=1, groups=1, conv_algorithm="auto", window, pool_stride=None,
            pool_pad=0, ceil_mode=False):
    g, pool = _geometries(x, w, (stride, pad, dilation, groups), (window, pool_stride, pool_pad, ceil_mode))
    chosen = conv2d.way(x, g)
    if chosen.pools(g, pool):
        x, w, b = map(contiguous, (x, w, b))
        weights = chosen.weights(x, w)
        y, winners = chosen.pooled(x, weights, b, g, pool)
        return y, ((x, w, weights, b is not None, g, chosen), (winners, pool))
    z, below = conv2d.forward(x, w, b, stride=stride, pad=pad, dilation=dilation, groups=groups,
                              conv_algorithm=conv_algorithm)
    y, above = max_pool2d.largest(z, pool, True)
    return y, (below, above)


def backward(dy, cache, needs=None):
    return backward_into(dy, cache, needs, (None, None, None))


def backward_into(dy, cache, needs, into):
    below, above = cache
    if needs is not None and not any(needs):
        return None, None, None
    return conv2d.backward_into(max_pool2d.backward(dy, above)[0], below, needs, into)


def _geometries(x, w, convolution, pooling):
    g = conv2d.geometry(x.shape, w.shape, *convolution)
    return g, _pool.geometry(NAME, (g[0], *g[4:7]), *pooling)
