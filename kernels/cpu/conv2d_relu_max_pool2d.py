"""Convolution, ReLU and max pooling as in `fastnet.ops.conv2d_relu_max_pool2d`.

Few channels under windows that do not overlap go in one pass (`_narrow_pooled`), everything else in that of `conv2d`
and that of `relu_max_pool2d`.
"""

from fastnet.arrays import contiguous
from fastnet.kernels.cpu import _narrow_pooled, _pool, conv2d, max_pool2d
from fastnet.kernels.cpu._geometry import geometry

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


def algorithm(x, w, b=None, *, stride=1, pad=0, dilation=1, groups=1, conv_algorithm="auto", window, pool_stride=None,
              pool_pad=0, ceil_mode=False):
    """The name of the algorithm that this call takes."""
    g, pool = _geometries(x, w, (stride, pad, dilation, groups), (window, pool_stride, pool_pad, ceil_mode))
    name = conv2d.algorithm(x, w, b, stride=stride, pad=pad, dilation=dilation, groups=groups,
                            conv_algorithm=conv_algorithm)
    return "narrow_pooled" if name == "narrow" and _narrow_pooled.takes(len(x), w, g, pool) else name


def forward(x, w, b=None, *, stride=1, pad=0, dilation=1, groups=1, conv_algorithm="auto", window, pool_stride=None,
            pool_pad=0, ceil_mode=False):
    convolution = {"stride": stride, "pad": pad, "dilation": dilation, "groups": groups,
                   "conv_algorithm": conv_algorithm}
    g, pool = _geometries(x, w, (stride, pad, dilation, groups), (window, pool_stride, pool_pad, ceil_mode))
    if conv2d.algorithm(x, w, b, **convolution) == "narrow" and _narrow_pooled.takes(len(x), w, g, pool):
        x, w = contiguous(x), contiguous(w)
        y, winners = _narrow_pooled.forward(x, w, None if b is None else contiguous(b), g, pool)
        return y, (x, w, b is not None, g, pool, winners)
    z, below = conv2d.forward(x, w, b, **convolution)
    y, above = max_pool2d.largest(z, pool, True)
    return y, (below, above)


def backward(dy, cache, needs=None):
    return backward_into(dy, cache, needs, (None, None, None))


def backward_into(dy, cache, needs, into):
    if len(cache) == 2:
        below, above = cache
        return conv2d.backward_into(max_pool2d.backward(dy, above)[0], below, needs, into)
    x, w, has_bias, g, pool, winners = cache
    needs_x, needs_w, needs_b = needs or (True, True, True)
    dy, dw, db = contiguous(dy), None, None
    if needs_w or needs_b:
        dw, db = _narrow_pooled.dw_db(x, dy, w.shape, g, pool, winners, into[1:])
    return (_narrow_pooled.dx(dy, w, x.shape, g, pool, winners) if needs_x else None, dw if needs_w else None,
            db if needs_b and has_bias else None)


def _geometries(x, w, convolution, pooling):
    g = geometry(x, w, *convolution)
    return g, _pool.geometry(NAME, (g.out_h, g.out_w), *pooling)
