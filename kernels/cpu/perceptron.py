"""The layers behind a perceptron's first product as in `fastnet.ops.perceptron`: one compiled function each way.

All on one thread, for layers so small that the way into a function costs as much as what it computes.
"""

import functools

import numpy as np

from fastnet.arrays import contiguous, empty, rehearsing
from fastnet.kernels.cpu._gemm import NORMAL, SCALARS, TRANSPOSED, address, gemm
from fastnet.kernels.cpu._jit import is_float, kernel
from fastnet.kernels.cpu._small_norm import denormalise, normalise
from fastnet.shapes import fits

FEATURES, OUTPUTS, W, B, GAMMA, BETA, COLUMN = range(7)  # columns of the table; the last one: of y among all y


def supports(x, vector, *, layers):
    return (x.ndim == 2 and vector.ndim == 1 and is_float(x, vector) and len(x) > 0 and len(layers) > 0
            and layers[0].features == x.shape[1] and fits(layers, vector.size))


def forward(x, vector, *, layers):
    x, vector = contiguous(x), contiguous(vector)
    table, eps, columns = table_of(layers)
    n, last = len(x), layers[-1].outputs
    y, inner, found = (empty(size, x.dtype) for size in (n * columns, n * columns, 3 * columns))
    result = empty((n, last), x.dtype)
    if not rehearsing():
        forward_layers(x, vector, table, eps, y, inner, found, result, SCALARS[x.dtype])
    return result, (x, vector, layers, y, inner, found)


def statistics(cache):
    _, _, layers, _, _, found = cache
    return statistics_of(layers, found)


def statistics_of(layers, found):
    table, _, _ = table_of(layers)
    for layer, row in zip(layers, table, strict=True):
        if layer.gamma >= 0:
            at, d = 3 * int(row[COLUMN]), layer.features
            yield found[at : at + d], found[at + d : at + 2 * d]


def backward(dy, cache, needs=None):
    return backward_into(dy, cache, needs, (None, None))


def backward_into(dy, cache, needs, into):
    """Writes to the layers' own places in the vector of gradients alone."""
    x, vector, layers, y, inner, found = cache
    needs_x, needs_vector = needs or (True, True)
    table, _, columns = table_of(layers)
    gradient = into[1] if needs_vector and into[1] is not None else np.zeros_like(vector)
    dx, scratch = empty(x.shape, x.dtype), empty((2, len(x) * columns), x.dtype)
    if not rehearsing():
        backward_layers(contiguous(dy), x, vector, table, y, inner, found, scratch, dx, gradient, SCALARS[x.dtype])
    return dx if needs_x else None, gradient if needs_vector else None


@functools.lru_cache(maxsize=256)
def table_of(layers):
    """The layers as numbers, their eps, and the features of all together."""
    columns = np.cumsum([0, *(layer.features for layer in layers)])
    table = np.array([(*layer[:6], column) for layer, column in zip(layers, columns, strict=False)], np.int64)
    return table, np.array([layer.eps for layer in layers]), int(columns[-1])


@kernel()
def _rows(a, n, column, width):
    """The (n, width) array of one layer in an array of all."""
    return a[n * column : n * (column + width)].reshape((n, width))


@kernel()
def forward_layers(z, vector, table, eps, y, inner, found, result, scalars):
    n = len(z)
    zero = z.dtype.type(0)
    for i in range(len(table)):
        d, k, w, b, gamma, beta, column = table[i]
        ours, active = z if i == 0 else _rows(inner, n, column, d), _rows(y, n, column, d)
        if gamma >= 0:
            normalise(ours, vector[gamma : gamma + d], vector[beta : beta + d], eps[i],
                      found[3 * column : 3 * (column + d)].reshape((3, d)), active)
        else:
            for r in range(n):
                for c in range(d):
                    active[r, c] = zero if ours[r, c] <= zero else ours[r, c]  # in this order a NaN stays one
        below = result if i == len(table) - 1 else _rows(inner, n, column + d, k)
        for r in range(n):
            for c in range(k):
                below[r, c] = vector[b + c] if b >= 0 else zero
        gemm(NORMAL, NORMAL, n, k, d, address(active, 0), d, address(vector, w), k, True, address(below, 0), k, scalars)


@kernel()
def backward_layers(dy, z, vector, table, y, inner, found, scratch, dz, gradient, scalars):
    n = len(z)
    zero = z.dtype.type(0)
    given = dy
    for i in range(len(table) - 1, -1, -1):
        d, k, w, b, gamma, beta, column = table[i]
        ours, active = z if i == 0 else _rows(inner, n, column, d), _rows(y, n, column, d)
        gemm(TRANSPOSED, NORMAL, d, k, n, address(active, 0), d, address(given, 0), k, False, address(gradient, w), k,
             scalars)
        if b >= 0:
            total = np.zeros(k, np.float64)
            for r in range(n):
                for c in range(k):
                    total[c] += given[r, c]
            for c in range(k):
                gradient[b + c] = total[c]
        below = _rows(scratch[0], n, column, d)
        gemm(NORMAL, TRANSPOSED, n, d, k, address(given, 0), k, address(vector, w), k, False, address(below, 0), d,
             scalars)
        result = dz if i == 0 else _rows(scratch[1], n, column, d)
        if gamma >= 0:
            of_parameters = np.empty((2, d), z.dtype)
            denormalise(below, active, ours, found[3 * column : 3 * (column + d)].reshape((3, d)),
                        vector[gamma : gamma + d], result, of_parameters)
            gradient[gamma : gamma + d] = of_parameters[0]
            gradient[beta : beta + d] = of_parameters[1]
        else:
            for r in range(n):
                for c in range(d):
                    result[r, c] = below[r, c] if active[r, c] > zero else zero
        given = result
