"""Batch normalisation, alone or with what follows it: two passes over x forward, two over (dy, x) backward.

`kind` says what follows: nothing, ReLU, or a sum with a shortcut and ReLU. It is a constant for the compiler.

    y = x^ gamma + beta          y = max(0, x^ gamma + beta)          y = max(0, x^ gamma + beta + shortcut)

Behind ReLU alone, y is not kept: where it is positive is computed again from x, by the instructions of the forward
pass, so to the same bits. Behind a sum y is kept, which costs nothing, since the next layer keeps it anyway; the masked
dy is then the shortcut's gradient, and the second pass reads it instead of dy and y.

One pass gives both mean and variance, because the sums are taken about the first row: the cancellation in
E[(x-k)^2] - E[x-k]^2 is then harmless however far the mean lies from zero. A short run of rows is summed in registers,
the runs of a block in x's type, the blocks in float64, all in order: the same bits for any number of threads.
"""

import functools
import math
from typing import NamedTuple

import numpy as np
from numba import carray

from fastnet.arrays import contiguous, empty, zeros
from fastnet.kernels.cpu._blocks import block_kernel, constant, run_in_order
from fastnet.kernels.cpu._channels import add, fma, load_part, multiply, positive, store_part, subtract, where_positive
from fastnet.kernels.cpu._channels import store as store_whole
from fastnet.kernels.cpu._jit import is_float
from fastnet.kernels.cpu._rows import rows as as_rows
from fastnet.kernels.cpu._vector import LANES, load, splat

PLAIN, RELU, ADD_RELU = range(3)
# Rows of what a forward pass finds and of what backward needs beside it; below them the sums, two rows a block.
MEAN, VAR, RSTD, SCALE, BETA, EPS, SUMS = range(7)
MEAN_DY, SLOPE, GRADIENT_SUMS = range(3)

RUN = 4096  # entries of x that are walked channel by channel: they stay in the first-level cache
MOST_RUN = 32  # rows of a run
LEAST_ROWS = 256  # of a block
MOST_BLOCKS = 128


class _Plan(NamedTuple):
    """The shape of x, how its rows are cut, and the entries from one row of the statistics to the next."""

    rows: int
    channels: int
    block_rows: int
    run: int
    blocks: int
    line: int


def supports(x, *parameters, shortcut=None, eps):
    """Whether x (N, ..., C) and parameters, (C,) each, are what the kernels take; the shortcut must be as x."""
    beside = () if shortcut is None else (shortcut,)
    return (x.ndim >= 2 and x.size > 0 and is_float(x, *parameters, *beside) and eps > 0
            and all(p.shape == x.shape[-1:] for p in parameters) and all(s.shape == x.shape for s in beside))


def forward(kind, x, gamma, beta, shortcut, eps):
    """y, and what `backward` needs."""
    plan = _plan(x.shape, x.dtype)
    found = empty((SUMS + 2 * plan.blocks, plan.line), x.dtype)
    found[EPS] = eps
    tile = kind, LANES[x.dtype]
    steps = (_sums, tile, plan.blocks), (_statistics, tile, 1), (_normalise, tile, plan.blocks)
    return _forward(steps, kind, x, contiguous(gamma), contiguous(beta), found, shortcut, plan)


def forward_fixed(kind, x, gamma, beta, mean, var, shortcut, eps):
    """The same with given statistics."""
    plan = _plan(x.shape, x.dtype)
    found = zeros((SUMS, plan.line), x.dtype)
    rstd = 1 / np.sqrt(var + eps)
    found[:EPS, : plan.channels] = mean, var, rstd, gamma * rstd, beta
    return _forward([(_normalise, (kind, LANES[x.dtype]), plan.blocks)], kind, x, None, None, found, shortcut, plan)


def _forward(steps, kind, x, gamma, beta, found, shortcut, plan):
    x_rows, y = as_rows(x), empty(x.shape, x.dtype)
    beside = None if shortcut is None else contiguous(shortcut)
    run_in_order(steps, 4 * x.size, (x_rows, gamma, beta, found, beside, y), (plan,))
    return y, (x_rows, found, y if kind == ADD_RELU else None, plan)


def statistics(cache):
    _, found, _, plan = cache
    return found[MEAN, : plan.channels], found[VAR, : plan.channels]


def backward(kind, dy, cache, needs_x, fixed=False):
    """dx, dgamma, dbeta, and the masked dy behind a sum, else None. Fixed statistics do not depend on x."""
    x_rows, found, y, plan = cache
    dx = empty(dy.shape, dy.dtype) if needs_x else None
    masked = empty(dy.shape, dy.dtype) if kind == ADD_RELU else None
    of_parameters = empty((2, plan.channels), dy.dtype)
    factors = empty((GRADIENT_SUMS + 2 * plan.blocks, plan.line), dy.dtype)
    arrays = (contiguous(dy), x_rows, found, factors, of_parameters, y, masked, dx)
    tile = kind, LANES[dy.dtype]
    steps = [(_gradient_sums, tile, plan.blocks), (_factors, tile, 1), (_no_factors, tile, 1), (_dx, tile, plan.blocks)]
    if not fixed:
        del steps[2]
    run_in_order(steps if needs_x else steps[:2], 4 * dy.size, arrays, (plan,))
    return dx, *of_parameters, masked


def backward_fixed(kind, dy, cache, needs_x):
    """dx, dgamma, dbeta, dmean, dvar, and the masked dy behind a sum, else None."""
    dx, dgamma, dbeta, masked = backward(kind, dy, cache, needs_x, fixed=True)
    _, found, _, plan = cache
    scale, rstd = found[SCALE, : plan.channels], found[RSTD, : plan.channels]
    return dx, dgamma, dbeta, -scale * dbeta, -scale * rstd * dgamma / 2, masked


@functools.lru_cache(maxsize=1024)
def _plan(shape, dtype):
    channels, lanes = shape[-1], LANES[dtype]
    rows = math.prod(shape[:-1])
    block_rows = max(LEAST_ROWS, math.ceil(rows / MOST_BLOCKS))
    run = max(4, min(MOST_RUN, RUN // channels))
    return _Plan(rows, channels, block_rows, run, math.ceil(rows / block_rows), math.ceil(channels / lanes) * lanes)


@block_kernel(_Plan)
def _sums(arrays, numbers, kind, lanes, block, thread):
    """The sums of x - k and of its square over a block of rows, where k is the first row of all."""
    p = carray(numbers, 1)[0]
    x, sums = carray(arrays[0], 1), carray(arrays[3], 1)
    lanes, at, zero = constant(lanes), (SUMS + 2 * block) * p.line, splat(x.dtype.type(0))
    first, stop = block * p.block_rows, min(p.rows, (block + 1) * p.block_rows)
    for start in range(first, stop, p.run):
        stop_run = min(start + p.run, stop)
        for c in range(0, p.channels, lanes):
            count = min(lanes, p.channels - c)
            origin, total, squares = load_part(x, c, count), zero, zero
            for i in range(start, stop_run):
                d = subtract(load_part(x, i * p.channels + c, count), origin)
                total, squares = add(total, d), fma(d, d, squares)
            if start > first:
                total, squares = add(load(sums, at + c), total), add(load(sums, at + p.line + c), squares)
            store_whole(sums, at + c, total)
            store_whole(sums, at + p.line + c, squares)


@block_kernel(_Plan)
def _statistics(arrays, numbers, kind, lanes, block, thread):
    p = carray(numbers, 1)[0]
    x, gamma, beta = carray(arrays[0], 1), carray(arrays[1], 1), carray(arrays[2], 1)
    found = carray(arrays[3], (SUMS + 2 * p.blocks, p.line))
    for c in range(p.channels):
        total, squares = 0.0, 0.0
        for i in range(p.blocks):
            total += found[SUMS + 2 * i, c]
            squares += found[SUMS + 2 * i + 1, c]
        shift = total / p.rows
        var = max(squares / p.rows - shift * shift, 0.0)
        rstd = 1 / math.sqrt(var + found[EPS, c])
        found[MEAN, c] = x[c] + shift
        found[VAR, c] = var
        found[RSTD, c] = rstd
        found[SCALE, c] = gamma[c] * rstd
        found[BETA, c] = beta[c]
    found[:EPS, p.channels :] = 0  # the rest of the last vector: whatever lies there could be slow to compute with


@block_kernel(_Plan)
def _normalise(arrays, numbers, kind, lanes, block, thread):
    p = carray(numbers, 1)[0]
    x, found, shortcut, y = carray(arrays[0], 1), carray(arrays[3], 1), carray(arrays[4], 1), carray(arrays[5], 1)
    kind, lanes = constant(kind), constant(lanes)
    for i in range(block * p.block_rows, min(p.rows, (block + 1) * p.block_rows)):
        for c in range(0, p.channels, lanes):
            place, count = i * p.channels + c, min(lanes, p.channels - c)
            d = subtract(load_part(x, place, count), load(found, MEAN * p.line + c))
            result = fma(d, load(found, SCALE * p.line + c), load(found, BETA * p.line + c))
            if kind == ADD_RELU:
                result = add(result, load_part(shortcut, place, count))
            if kind != PLAIN:
                result = positive(result)
            store_part(y, place, result, count)


@block_kernel(_Plan)
def _gradient_sums(arrays, numbers, kind, lanes, block, thread):
    """The sums of dy, masked, and of dy (x - mean) over a block of rows."""
    p = carray(numbers, 1)[0]
    dy, x, found = carray(arrays[0], 1), carray(arrays[1], 1), carray(arrays[2], 1)
    sums, y, masked = carray(arrays[3], 1), carray(arrays[5], 1), carray(arrays[6], 1)
    kind, lanes, at = constant(kind), constant(lanes), (GRADIENT_SUMS + 2 * block) * p.line
    zero = splat(x.dtype.type(0))
    first, stop = block * p.block_rows, min(p.rows, (block + 1) * p.block_rows)
    for start in range(first, stop, p.run):
        stop_run = min(start + p.run, stop)
        for c in range(0, p.channels, lanes):
            count, total, products = min(lanes, p.channels - c), zero, zero
            mean, scale = load(found, MEAN * p.line + c), load(found, SCALE * p.line + c)
            beta = load(found, BETA * p.line + c)
            for i in range(start, stop_run):
                place = i * p.channels + c
                g, d = load_part(dy, place, count), subtract(load_part(x, place, count), mean)
                if kind == RELU:
                    g = where_positive(fma(d, scale, beta), g)
                if kind == ADD_RELU:
                    g = where_positive(load_part(y, place, count), g)
                    store_part(masked, place, g, count)
                total, products = add(total, g), fma(g, d, products)
            if start > first:
                total, products = add(load(sums, at + c), total), add(load(sums, at + p.line + c), products)
            store_whole(sums, at + c, total)
            store_whole(sums, at + p.line + c, products)


@block_kernel(_Plan)
def _factors(arrays, numbers, kind, lanes, block, thread):
    p = carray(numbers, 1)[0]
    found, of_parameters = carray(arrays[2], (SUMS, p.line)), carray(arrays[4], (2, p.channels))
    factors = carray(arrays[3], (GRADIENT_SUMS + 2 * p.blocks, p.line))
    for c in range(p.channels):
        total, products = 0.0, 0.0
        for i in range(p.blocks):
            total += factors[GRADIENT_SUMS + 2 * i, c]
            products += factors[GRADIENT_SUMS + 2 * i + 1, c]
        products *= found[RSTD, c]
        of_parameters[0, c] = products
        of_parameters[1, c] = total
        factors[MEAN_DY, c] = total / p.rows
        factors[SLOPE, c] = products / p.rows * found[RSTD, c]
    factors[:GRADIENT_SUMS, p.channels :] = 0


@block_kernel(_Plan)
def _no_factors(arrays, numbers, kind, lanes, block, thread):
    carray(arrays[3], (GRADIENT_SUMS, carray(numbers, 1)[0].line))[:] = 0


@block_kernel(_Plan)
def _dx(arrays, numbers, kind, lanes, block, thread):
    p = carray(numbers, 1)[0]
    dy, x, found = carray(arrays[0], 1), carray(arrays[1], 1), carray(arrays[2], 1)
    factors, masked, dx = carray(arrays[3], 1), carray(arrays[6], 1), carray(arrays[7], 1)
    kind, lanes = constant(kind), constant(lanes)
    given = masked if kind == ADD_RELU else dy
    for i in range(block * p.block_rows, min(p.rows, (block + 1) * p.block_rows)):
        for c in range(0, p.channels, lanes):
            place, count = i * p.channels + c, min(lanes, p.channels - c)
            g = load_part(given, place, count)
            d = subtract(load_part(x, place, count), load(found, MEAN * p.line + c))
            scale = load(found, SCALE * p.line + c)
            if kind == RELU:
                g = where_positive(fma(d, scale, load(found, BETA * p.line + c)), g)
            g = subtract(subtract(g, load(factors, MEAN_DY * p.line + c)),
                         multiply(d, load(factors, SLOPE * p.line + c)))
            store_part(dx, place, multiply(scale, g), count)
