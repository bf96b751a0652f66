"""Linear layer and ReLU as in `fastnet.ops.linear_relu`: one kernel forward; backward ReLU's, then the layer's."""

from fastnet.kernels.cuda import linear, relu
from fastnet.kernels.cuda._launch import Kernel
from fastnet.kernels.cuda.linear import supports

__all__ = ["backward", "backward_into", "forward", "supports"]

_FORWARD = Kernel("linear_relu", "linear_relu_forward")


def forward(x, w, b=None):
    y, below = linear.applied(_FORWARD, x, w, b)
    return y, (below, y)


def backward(dy, cache, needs=None):
    return backward_into(dy, cache, needs, (None, None, None))


def backward_into(dy, cache, needs, into):
    below, y = cache
    dz, = relu.backward(dy, y)
    return linear.backward_into(dz, below, needs, into)
