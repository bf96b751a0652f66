"""Batch normalisation with given statistics, sum and ReLU, as in `fastnet.ops.batch_norm_fixed_add_relu`."""

from fastnet.kernels.cpu import _batch_norm
from fastnet.kernels.cpu._batch_norm import ADD_RELU

__all__ = ["backward", "forward", "supports"]


def supports(x, gamma, beta, mean, var, shortcut, *, eps=1e-5):
    return _batch_norm.supports(x, gamma, beta, mean, var, shortcut=shortcut, eps=eps)


def forward(x, gamma, beta, mean, var, shortcut, *, eps=1e-5):
    return _batch_norm.forward_fixed(ADD_RELU, x, gamma, beta, mean, var, shortcut, eps)


def backward(dy, cache, needs=None):
    needs = needs or (True,) * 6
    gradients = _batch_norm.backward_fixed(ADD_RELU, dy, cache, needs[0])
    return tuple(d if needed else None for d, needed in zip(gradients, needs, strict=True))
