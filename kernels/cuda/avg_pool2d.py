"""Average pooling as in `fastnet.ops.avg_pool2d`."""

from fastnet.kernels.cuda import _pool
from fastnet.kernels.cuda._arrays import contiguous, empty
from fastnet.kernels.cuda._launch import Kernel

_FORWARD, _BACKWARD = Kernel("avg_pool2d", "avg_pool2d_forward"), Kernel("avg_pool2d", "avg_pool2d_backward")


def supports(x, *, window, stride=None, pad=0, ceil_mode=False):
    return _pool.supports("avg_pool2d", x, window, stride, pad, ceil_mode)


def forward(x, *, window, stride=None, pad=0, ceil_mode=False):
    g = _pool.geometry("avg_pool2d", x.shape, window, stride, pad, ceil_mode)
    y = empty(x, g.out_shape)
    _FORWARD(_pool.grid(_FORWARD, y.shape, x.dtype), contiguous(x), y, *g)
    return y, g


def backward(dy, cache, needs=None):
    if needs is not None and not needs[0]:
        return (None,)
    dx = empty(dy, cache.shape)
    _BACKWARD(_pool.grid(_BACKWARD, dx.shape, dx.dtype), contiguous(dy), dx, *cache)
    return (dx,)
