"""ReLU and max pooling as in `fastnet.ops.relu_max_pool2d`: the pass of max pooling, which ends with ReLU.

Where the largest entry is not above zero no tap is the winner: so backward is that of max pooling.
"""

from fastnet.kernels.cuda import _pool
from fastnet.kernels.cuda.max_pool2d import backward, largest

__all__ = ["backward", "forward", "supports"]


def supports(x, *, window, stride=None, pad=0, ceil_mode=False):
    return _pool.supports("relu_max_pool2d", x, window, stride, pad, ceil_mode)


def forward(x, *, window, stride=None, pad=0, ceil_mode=False):
    return largest(x, _pool.geometry("relu_max_pool2d", x.shape, window, stride, pad, ceil_mode), True)
