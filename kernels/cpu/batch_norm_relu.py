"""Batch normalisation and ReLU, as in `fastnet.ops.batch_norm_relu`."""

from fastnet.kernels.cpu import _batch_norm
from fastnet.kernels.cpu._batch_norm import RELU, statistics

__all__ = ["backward", "forward", "statistics", "supports"]


def supports(x, gamma, beta, *, eps=1e-5):
    return _batch_norm.supports(x, gamma, beta, eps=eps)


def forward(x, gamma, beta, *, eps=1e-5):
    return _batch_norm.forward(RELU, x, gamma, beta, None, eps)


def backward(dy, cache, needs=None):
    needs = needs or (True,) * 3
    gradients = _batch_norm.backward(RELU, dy, cache, needs[0])
    return tuple(d if needed else None for d, needed in zip(gradients, needs, strict=False))
