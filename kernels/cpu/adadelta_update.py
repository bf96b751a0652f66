"""Adadelta as in `fastnet.functions.adadelta_update`: one pass over the vectors."""

import math

from numba import prange

from fastnet.kernels.cpu import _update
from fastnet.kernels.cpu._jit import parallel_kernel
from fastnet.kernels.cpu._update import regularized, scalars


def supports(w, g, v, u, **options):
    return _update.supports(w, g, v, u)


def run(w, g, v, u, *, lr, rho=0.95, eps=1e-6, regularization=_update.NONE):
    kind = w.dtype.type
    _step(w, g, v, u, kind(lr), kind(rho), kind(1 - rho), kind(eps), *scalars(regularization, lr, kind))


@parallel_kernel(cost=5)
def _step(w, g, v, u, lr, rho, rest, eps, decay, l1, shrink, penalised):
    for i in prange(w.size):
        kept, step = regularized(w[i], g[i], i, decay, l1, shrink, penalised)
        v[i] = rho * v[i] + rest * step * step
        step *= math.sqrt(u[i] + eps) / math.sqrt(v[i] + eps)
        u[i] = rho * u[i] + rest * step * step
        w[i] = kept - lr * step
