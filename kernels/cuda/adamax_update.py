"""Adamax as in `fastnet.functions.adamax_update`: one launch over the vectors."""

from numba import cuda

from fastnet.functions.adamax_update import one_minus_power
from fastnet.kernels.cuda import _update
from fastnet.kernels.cuda._update import launch, regularized, scalars


def supports(w, g, m, u, **options):
    return _update.supports(w, g, m, u)


def run(w, g, m, u, *, t, lr, beta1=0.9, beta2=0.999, eps=1e-8, regularization=_update.NONE):
    kind = w.dtype.type
    launch(_step, w, g, m, u, kind(lr / one_minus_power(beta1, t)), kind(beta1), kind(1 - beta1), kind(beta2),
           kind(eps), *scalars(regularization, lr, kind))


@cuda.jit
def _step(w, g, m, u, size, beta1, rest1, beta2, eps, decay, l1, shrink, penalised):
    for i in range(cuda.grid(1), w.size, cuda.gridsize(1)):
        kept, step = regularized(w[i], g[i], i, decay, l1, shrink, penalised)
        m[i] = beta1 * m[i] + rest1 * step
        bound, size_of_g = beta2 * u[i], abs(step) + eps
        # Written so that a NaN gradient is kept, as the reference's maximum does.
        u[i] = bound if bound > size_of_g else size_of_g
        w[i] = kept - size * m[i] / u[i]
