"""A residual block as in `fastnet.ops.basic_block`: what stands between its two convolutions is part of them.

Where the kernels of `_conv3x3` take a convolution, it sums up its own outputs for the batch normalisation behind it.
The second one normalises and rectifies what it loads, forward and for dw, so that h is never stored; its dx is masked
and summed up as it is written, and the first one's has the shortcut's gradient added. What ends the block and batch
normalisation's own dx stay passes of `_batch_norm`. Where `_conv3x3` does not take the second convolution, the ops run
one by one.
"""

from typing import Any, NamedTuple

from fastnet.arrays import Array
from fastnet.kernels.cuda import _batch_norm, _conv3x3, add, conv2d
from fastnet.kernels.cuda._arrays import contiguous, empty
from fastnet.kernels.cuda._batch_norm import ADD_RELU, RELU, backward_of_sums, measured, normalised

__all__ = ["backward", "backward_into", "forward", "fuses", "statistics", "supports"]


class _Convolution(NamedTuple):
    """3x3 weights, as they are and as `way` wants them, and the geometry."""

    w: Array
    weights: Array
    g: tuple[int, ...]
    way: Any


class _Kept(NamedTuple):
    """What `backward` needs: h is None where it was not stored, `between` and `end` are caches of `_batch_norm`."""

    x: Array
    first: _Convolution
    h: Array | None
    between: tuple
    second: _Convolution
    end: tuple
    identity: bool


def supports(x, w1, gamma1, beta1, w2, gamma2, beta2, shortcut=None, *, stride=1, eps1=1e-5, eps2=1e-5):
    if not (conv2d.supports(x, w1, stride=stride, pad=1) and w1.shape[:2] == (3, 3)
            and w2.shape == (3, 3, w1.shape[3], w1.shape[3]) and eps1 > 0 and eps2 > 0):
        return False
    y_shape = (x.shape[0], *conv2d.geometry(x.shape, w1.shape, stride, 1, 1, 1)[4:7])
    direct = x if shortcut is None else shortcut
    return (_batch_norm.supported(x, w2, gamma1, beta1, gamma2, beta2) and direct.shape == y_shape
            and all(p.shape == y_shape[3:] for p in (gamma1, beta1, gamma2, beta2))
            and _batch_norm.on_device(direct) and direct.dtype == x.dtype)


def fuses(x, w1, gamma1, beta1, w2, gamma2, beta2, shortcut=None, *, stride=1, eps1=1e-5, eps2=1e-5):
    """Whether a call that is supported has h in no pass of its own, rather than the ops one by one."""
    y_shape = (x.shape[0], *conv2d.geometry(x.shape, w1.shape, stride, 1, 1, 1)[4:7])
    return _conv3x3.takes(x, conv2d.geometry(y_shape, w2.shape, 1, 1, 1, 1))


def forward(x, w1, gamma1, beta1, w2, gamma2, beta2, shortcut=None, *, stride=1, eps1=1e-5, eps2=1e-5):
    x, beta1 = contiguous(x), contiguous(beta1)
    first = _convolution(x, x.shape, w1, stride)
    y1, sums = _convolved(x, first)
    found = measured(y1, gamma1, eps1, sums)
    second = _convolution(x, y1.shape, w2, 1)
    if second.way is _conv3x3:
        h, between = None, (y1, found, beta1, None)
        y2, sums = _conv3x3.forward_between(y1, second.weights, found, beta1)
    else:
        h, between = normalised(RELU, y1, found, beta1)
        y2, sums = _convolved(h, second)
    direct = x if shortcut is None else shortcut
    y, end = normalised(ADD_RELU, y2, measured(y2, gamma2, eps2, sums), beta2, direct)
    return y, _Kept(x, first, h, between, second, end, shortcut is None)


def statistics(cache):
    """The batch's (mean, biased var) of y1 and of y2, all (K,)."""
    return [_batch_norm.statistics(cache.between), _batch_norm.statistics(cache.end)]


def backward(dy, cache, needs=None):
    return backward_into(dy, cache, needs, (None,) * 8)


def backward_into(dy, cache, needs, into):
    x, first, h, between, second, end, identity = cache
    needs_x, needs_w1, needs_gamma1, needs_beta1, needs_w2, needs_gamma2, needs_beta2, needs_shortcut = (
        needs or (True,) * 8)
    needs_y1 = needs_x or needs_w1
    below = needs_y1 or needs_gamma1 or needs_beta1
    _, dw1_into, *of_norm1, dw2_into, dgamma2_into, dbeta2_into, _ = into
    added = needs_x if identity else needs_shortcut
    dy2, dgamma2, dbeta2, dshortcut = _batch_norm.backward(
        dy, end, (below or needs_w2, needs_gamma2, needs_beta2, added), (None, dgamma2_into, dbeta2_into))
    dw2 = dy1 = dgamma1 = dbeta1 = dx = None
    if needs_w2:
        dw2 = (_dw(h, dy2, second, dw2_into) if h is not None else
               _dw(between[0], dy2, second, dw2_into, *between[1:3]))
    if below and h is None:
        y1, found, beta1, _ = between
        dz, sums = _conv3x3.dx_between(dy2, second.weights, y1, found, beta1)
        dy1, dgamma1, dbeta1 = backward_of_sums(dz, y1, found, sums, (needs_y1, needs_gamma1, needs_beta1), of_norm1)
    elif below:
        dh = second.way.dx(dy2, second.weights, second.g)
        dy1, dgamma1, dbeta1 = _batch_norm.backward(dh, between, (needs_y1, needs_gamma1, needs_beta1),
                                                     (None, *of_norm1))
    del dy2
    dw1 = _dw(x, dy1, first, dw1_into) if needs_w1 else None
    if needs_x and identity and first.way is _conv3x3:
        dx = _conv3x3.dx(dy1, first.weights, first.g, dshortcut)
    elif needs_x:
        dx = first.way.dx(dy1, first.weights, first.g)
        dx = add.run(dx, dshortcut) if identity else dx
    return dx, dw1, dgamma1, dbeta1, dw2, dgamma2, dbeta2, None if identity else dshortcut


def _convolution(x, shape, w, stride):
    g = conv2d.geometry(shape, w.shape, stride, 1, 1, 1)
    way, w = conv2d.way(x, g), contiguous(w)
    return _Convolution(w, way.weights(x, w), g, way)


def _convolved(x, by):
    """The convolution, and its sums where they come with it."""
    if by.way is _conv3x3:
        return _conv3x3.forward_between(x, by.weights)
    return by.way.forward(x, by.weights, None, by.g), None


def _dw(x, dy, by, into, *norm):
    return by.way.dw(x, dy, empty(by.w) if into is None else into, by.g, *norm)
