"""Adadelta as in `fastnet.functions.adadelta_update`: one launch over the vectors."""

import math

from numba import cuda

from fastnet.kernels.cuda import _update
from fastnet.kernels.cuda._update import launch, regularized, scalars


def supports(w, g, v, u, **options):
    return _update.supports(w, g, v, u)


def run(w, g, v, u, *, lr, rho=0.95, eps=1e-6, regularization=_update.NONE):
    kind = w.dtype.type
    launch(_step, w, g, v, u, kind(lr), kind(rho), kind(1 - rho), kind(eps), *scalars(regularization, lr, kind))


@cuda.jit
def _step(w, g, v, u, lr, rho, rest, eps, decay, l1, shrink, penalised):
    for i in range(cuda.grid(1), w.size, cuda.gridsize(1)):
        kept, step = regularized(w[i], g[i], i, decay, l1, shrink, penalised)
        v[i] = rho * v[i] + rest * step * step
        step *= math.sqrt(u[i] + eps) / math.sqrt(v[i] + eps)
        u[i] = rho * u[i] + rest * step * step
        w[i] = kept - lr * step
