"""Max pooling as in `fastnet.ops.max_pool2d`: forward keeps which tap won, so backward reads that and dy alone."""

from fastnet.kernels.cuda import _pool
from fastnet.kernels.cuda._arrays import contiguous, empty
from fastnet.kernels.cuda._launch import Kernel

_FORWARD, _BACKWARD = Kernel("max_pool2d", "max_pool2d_forward"), Kernel("max_pool2d", "max_pool2d_backward")


def supports(x, *, window, stride=None, pad=0, ceil_mode=False):
    return _pool.supports("max_pool2d", x, window, stride, pad, ceil_mode)


def forward(x, *, window, stride=None, pad=0, ceil_mode=False):
    return largest(x, _pool.geometry("max_pool2d", x.shape, window, stride, pad, ceil_mode), False)


def largest(x, g, relu):
    """y and what `backward` needs; with `relu` y is max(0, the largest), and where that is 0 nothing has won."""
    y = empty(x, g.out_shape)
    winners = empty(x, g.out_shape, "uint8" if g.taps < 256 else "int32")
    _FORWARD(_pool.grid(_FORWARD, y.shape, x.dtype), contiguous(x), relu, y, *_by_size(winners), *g)
    return y, (winners, g)


def backward(dy, cache, needs=None):
    if needs is not None and not needs[0]:
        return (None,)
    winners, g = cache
    dx = empty(dy, g.shape)
    _BACKWARD(_pool.grid(_BACKWARD, dx.shape, dx.dtype), contiguous(dy), *_by_size(winners), dx, *g)
    return (dx,)


def _by_size(winners):
    """The winners as the kernels take them, of one byte or of four."""
    return (winners, None) if winners.dtype.itemsize == 1 else (None, winners)
