"""Adagrad as in `fastnet.functions.adagrad_update`: one launch over the vectors."""

import math

from numba import cuda

from fastnet.kernels.cuda import _update
from fastnet.kernels.cuda._update import launch, regularized, scalars


def supports(w, g, squares, **options):
    return _update.supports(w, g, squares)


def run(w, g, squares, *, lr, eps=1e-10, regularization=_update.NONE):
    kind = w.dtype.type
    launch(_step, w, g, squares, kind(lr), kind(eps), *scalars(regularization, lr, kind))


@cuda.jit
def _step(w, g, squares, lr, eps, decay, l1, shrink, penalised):
    for i in range(cuda.grid(1), w.size, cuda.gridsize(1)):
        kept, step = regularized(w[i], g[i], i, decay, l1, shrink, penalised)
        squares[i] += step * step
        w[i] = kept - lr * step / (math.sqrt(squares[i]) + eps)
