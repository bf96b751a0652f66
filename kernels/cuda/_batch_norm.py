"""Batch normalisation, alone or with what follows it: two passes over x forward, two over (dy, x) backward.

Behind ReLU alone, y is not kept: backward computes again from x where it is positive. Behind a sum y is kept, which
costs nothing, since the next layer keeps it anyway; what passes the ReLU is then the shortcut's gradient, and the
second pass reads it instead of dy and y.
"""

import math
from typing import NamedTuple

from fastnet.arrays import Array, accumulator
from fastnet.kernels.cuda._arrays import contiguous, empty, on_device, supported
from fastnet.kernels.cuda._channels import tiles
from fastnet.kernels.cuda._elementwise import apply
from fastnet.kernels.cuda._launch import Kernel, blocks

PLAIN, RELU, ADD_RELU = range(3)
# A chunk of rows gives a block enough to do and leaves few sums to add, two for each thread of a channel's block.
LEAST_ROWS, MOST_CHUNKS = 32, 512

_SUMS, _STATISTICS, _GIVEN, _NORMALISE, _GRADIENT_SUMS, _GRADIENTS, _DX = (
    Kernel("batch_norm", f"batch_norm_{name}")
    for name in ("sums", "statistics", "given", "normalise", "gradient_sums", "gradients", "dx"))
_RELU_BACKWARD = Kernel("relu", "relu_backward")


class Sums(NamedTuple):
    """Sums over chunks of `each` rows, (2, channels, chunks), that another kernel than those here has made."""

    part: Array
    each: int


class _Rows(NamedTuple):
    """x as (rows, channels), and how many rows a chunk has: the kernels' last three arguments."""

    rows: int
    channels: int
    each: int

    @property
    def chunks(self):
        return -(-self.rows // self.each)

    def grid(self, x):
        return tiles(self.chunks, self.channels, x.dtype)

    def part(self, x):
        return empty(x, (2, self.channels, self.chunks), accumulator(x.dtype))


def supports(x, *parameters, shortcut=None, eps):
    """Whether x (N, ..., C) and parameters, (C,) each, are what the kernels take; the shortcut must be as x."""
    return (supported(x, *parameters) and x.ndim >= 2 and x.size > 0 and eps > 0
            and all(p.shape == x.shape[-1:] for p in parameters)
            and (shortcut is None or (on_device(shortcut) and shortcut.dtype == x.dtype and shortcut.shape == x.shape)))


def forward(kind, x, gamma, beta, shortcut, eps):
    """y, and what `backward` needs."""
    x = contiguous(x)
    return normalised(kind, x, measured(x, gamma, eps), beta, shortcut)


def measured(x, gamma, eps, sums=None):
    """`found` of batch_norm.cu, (4, C), for the statistics of x, whose sums are made here unless they are given."""
    gamma, r = contiguous(gamma), _rows(x.shape)
    found = empty(gamma, (4, r.channels))
    if sums is None:
        part = r.part(x)
        _SUMS(r.grid(x), x, part, *r)
    else:
        part, r = sums.part, r._replace(each=sums.each)
    _STATISTICS(blocks(r.channels), x, part, gamma, eps, found, *r)
    return found


def forward_fixed(kind, x, gamma, beta, mean, var, shortcut, eps):
    """The same with given statistics."""
    x, gamma, mean, var = map(contiguous, (x, gamma, mean, var))
    r = _rows(x.shape)
    found = empty(gamma, (4, r.channels))
    _GIVEN(_GIVEN.grid_for(r.channels), x, mean, var, gamma, eps, found, r.channels)
    return normalised(kind, x, found, beta, shortcut)


def normalised(kind, x, found, beta, shortcut=None):
    """y where `found` is there already, and what `backward` needs."""
    beta, y, r = contiguous(beta), empty(x), _rows(x.shape)
    _NORMALISE(r.grid(x), x, found, beta, contiguous(shortcut), kind != PLAIN, y, *r)
    return y, (x, found, beta if kind == RELU else None, y if kind == ADD_RELU else None)


def statistics(cache):
    """The batch's (mean, biased var) of a forward pass, both (C,)."""
    _, found, *_ = cache
    return found[0], found[1]


def backward(dy, cache, needs, into=(None,) * 3, given=False):
    """The gradients of all arguments, None where not needed; `given` says that the statistics were arguments.

    Those of gamma and beta go into what `into` has in their places, if anything.
    """
    x, found, beta, y = cache
    dy, r = contiguous(dy), _rows(x.shape)
    needs_x, *needs_rest = needs
    needs_parameters, needs_shortcut = needs_rest[: 4 if given else 2], y is not None and needs[-1]
    dx = passed = others = None
    dgamma, dbeta = (_place(found, place) if needed else None
                     for needed, place in zip(needs_rest[:2], into[1:3], strict=True))
    if any(needs_parameters) or (needs_x and not given):
        part, others = r.part(x), empty(found, (2, r.channels))
        passed = empty(x) if needs_shortcut else None
        _GRADIENT_SUMS(r.grid(x), dy, x, found, beta, y, passed, part, *r)
        _GRADIENTS(blocks(r.channels), x, part, found, given, dgamma, dbeta, others, *r)
    elif needs_shortcut:
        passed = apply(_RELU_BACKWARD, dy, y)
    if needs_x:
        dx = empty(x)
        dz, gate = (dy, y) if passed is None else (passed, None)
        seen = None if given and beta is None else x
        _DX(r.grid(x), dz, seen, found, beta, gate, None if given else others, dx, *r)
    of_statistics = (others[i] if needed else None for i, needed in enumerate(needs_parameters[2:]))
    return dx, dgamma, dbeta, *of_statistics, *(() if y is None else (passed,))


def _place(found, place):
    """Where a gradient of the channels goes: to its place, or if that is None to new memory."""
    return empty(found, found.shape[1:]) if place is None else place


def backward_of_sums(dy, x, found, sums, needs, into):
    """The same for plain batch normalisation whose sums over dy and dy (x - mean) are given."""
    r, others, dx = _rows(x.shape), empty(found, (2, *found.shape[1:])), None
    dgamma, dbeta = (_place(found, place) if needed else None for needed, place in zip(needs[1:], into, strict=True))
    _GRADIENTS(blocks(r.channels), x, sums.part, found, False, dgamma, dbeta, others, *r._replace(each=sums.each))
    if needs[0]:
        dx = empty(x)
        _DX(r.grid(x), dy, x, found, None, None, others, dx, *r)
    return dx, dgamma, dbeta


def _rows(shape):
    rows = math.prod(shape[:-1])
    return _Rows(rows, shape[-1], max(LEAST_ROWS, -(-rows // MOST_CHUNKS)))
