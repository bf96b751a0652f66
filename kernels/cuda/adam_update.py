"""Adam as in `fastnet.functions.adam_update`: one launch over the vectors."""

import math

from numba import cuda

from fastnet.functions.adam_update import factors
from fastnet.kernels.cuda import _update
from fastnet.kernels.cuda._update import launch, regularized, scalars


def supports(w, g, m, v, **options):
    return _update.supports(w, g, m, v)


def run(w, g, m, v, *, t, lr, beta1=0.9, beta2=0.999, eps=1e-8, eps_mode="outside", regularization=_update.NONE):
    kind = w.dtype.type
    size, correction = factors(t, lr, beta1, beta2)
    # Each form is size m / (sqrt(correction v + inside) + outside).
    inside = eps if eps_mode == "inside" else 0.0
    outside = {"outside": eps, "inside": 0.0, "hat": eps * math.sqrt(correction)}[eps_mode]
    launch(_step, w, g, m, v, kind(size), kind(beta1), kind(1 - beta1), kind(beta2), kind(1 - beta2), kind(correction),
           kind(inside), kind(outside), *scalars(regularization, lr, kind))


@cuda.jit
def _step(w, g, m, v, size, beta1, rest1, beta2, rest2, correction, inside, outside, decay, l1, shrink, penalised):
    for i in range(cuda.grid(1), w.size, cuda.gridsize(1)):
        kept, step = regularized(w[i], g[i], i, decay, l1, shrink, penalised)
        m[i] = beta1 * m[i] + rest1 * step
        v[i] = beta2 * v[i] + rest2 * step * step
        w[i] = kept - size * m[i] / (math.sqrt(correction * v[i] + inside) + outside)
