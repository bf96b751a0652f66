"""Logistic function as in `fastnet.ops.sigmoid`: one pass forward, one backward."""

from fastnet.kernels.cuda._elementwise import apply, supports
from fastnet.kernels.cuda._launch import Kernel

__all__ = ["backward", "forward", "supports"]

_FORWARD, _BACKWARD = Kernel("sigmoid", "sigmoid_forward"), Kernel("sigmoid", "sigmoid_backward")


def forward(x):
    y = apply(_FORWARD, x)
    return y, y


def backward(dy, cache, needs=None):
    return (apply(_BACKWARD, dy, cache) if needs is None or needs[0] else None,)
