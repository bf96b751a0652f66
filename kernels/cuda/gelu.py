"""Gaussian error linear unit as in `fastnet.ops.gelu`: one pass forward, one backward."""

from fastnet.kernels.cuda import _elementwise
from fastnet.kernels.cuda._elementwise import apply
from fastnet.kernels.cuda._launch import Kernel

_FORWARD = {"none": Kernel("gelu", "gelu_forward"), "tanh": Kernel("gelu", "gelu_tanh_forward")}
_BACKWARD = {"none": Kernel("gelu", "gelu_backward"), "tanh": Kernel("gelu", "gelu_tanh_backward")}


def supports(x, *, approximate="none"):
    return _elementwise.supports(x) and approximate in _FORWARD


def forward(x, *, approximate="none"):
    return apply(_FORWARD[approximate], x), (x, approximate)


def backward(dy, cache, needs=None):
    x, approximate = cache
    return (apply(_BACKWARD[approximate], dy, x) if needs is None or needs[0] else None,)
