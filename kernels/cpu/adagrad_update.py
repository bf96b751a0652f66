"""Adagrad as in `fastnet.functions.adagrad_update`: one pass over the vectors."""

import math

from numba import prange

from fastnet.kernels.cpu import _update
from fastnet.kernels.cpu._jit import parallel_kernel
from fastnet.kernels.cpu._update import regularized, scalars


def supports(w, g, squares, **options):
    return _update.supports(w, g, squares)


def run(w, g, squares, *, lr, eps=1e-10, regularization=_update.NONE):
    kind = w.dtype.type
    _step(w, g, squares, kind(lr), kind(eps), *scalars(regularization, lr, kind))


@parallel_kernel(cost=3)
def _step(w, g, squares, lr, eps, decay, l1, shrink, penalised):
    for i in prange(w.size):
        kept, step = regularized(w[i], g[i], i, decay, l1, shrink, penalised)
        squares[i] += step * step
        w[i] = kept - lr * step / (math.sqrt(squares[i]) + eps)
