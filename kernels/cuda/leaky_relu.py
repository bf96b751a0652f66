"""Leaky rectified linear unit as in `fastnet.ops.leaky_relu`: one pass forward, one backward."""

from fastnet.kernels.cuda import _elementwise
from fastnet.kernels.cuda._elementwise import apply
from fastnet.kernels.cuda._launch import Kernel

_FORWARD, _BACKWARD = Kernel("leaky_relu", "leaky_relu_forward"), Kernel("leaky_relu", "leaky_relu_backward")


def supports(x, *, negative_slope=0.01):
    return _elementwise.supports(x) and negative_slope >= 0


def forward(x, *, negative_slope=0.01):
    y = apply(_FORWARD, x, options=(negative_slope,))
    return y, (y, negative_slope)


def backward(dy, cache, needs=None):
    y, negative_slope = cache
    return (apply(_BACKWARD, dy, y, options=(negative_slope,)) if needs is None or needs[0] else None,)
