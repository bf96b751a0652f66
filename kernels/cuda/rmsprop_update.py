"""RMSprop as in `fastnet.functions.rmsprop_update`: one launch over the vectors."""

import math

from numba import cuda

from fastnet.kernels.cuda import _update
from fastnet.kernels.cuda._update import launch, regularized, scalars


def supports(w, g, v, **options):
    return _update.supports(w, g, v)


def run(w, g, v, *, lr, alpha=0.99, eps=1e-8, eps_mode="outside", regularization=_update.NONE):
    kind = w.dtype.type
    # Both forms are lr g / (sqrt(v + inside) + outside).
    inside, outside = (0.0, eps) if eps_mode == "outside" else (eps, 0.0)
    launch(_step, w, g, v, kind(lr), kind(alpha), kind(1 - alpha), kind(inside), kind(outside),
           *scalars(regularization, lr, kind))


@cuda.jit
def _step(w, g, v, lr, alpha, rest, inside, outside, decay, l1, shrink, penalised):
    for i in range(cuda.grid(1), w.size, cuda.gridsize(1)):
        kept, step = regularized(w[i], g[i], i, decay, l1, shrink, penalised)
        v[i] = alpha * v[i] + rest * step * step
        w[i] = kept - lr * step / (math.sqrt(v[i] + inside) + outside)
