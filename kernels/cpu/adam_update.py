"""Adam as in `fastnet.functions.adam_update`: one pass over the vectors."""

import math

from numba import prange

from fastnet.functions.adam_update import factors
from fastnet.kernels.cpu._jit import is_float, parallel_kernel


def supports(w, g, m, v, *, t, lr, beta1=0.9, beta2=0.999, eps=1e-8, eps_mode="outside", decay=0.0, penalised=0):
    return is_float(w, g, m, v) and all(a.ndim == 1 and a.flags.c_contiguous and a.size == w.size for a in (w, g, m, v))


def run(w, g, m, v, *, t, lr, beta1=0.9, beta2=0.999, eps=1e-8, eps_mode="outside", decay=0.0, penalised=0):
    kind = w.dtype.type
    size, correction = factors(t, lr, beta1, beta2)
    # Each form is size m / (sqrt(correction v + inside) + outside).
    inside = eps if eps_mode == "inside" else 0.0
    outside = {"outside": eps, "inside": 0.0, "hat": eps * math.sqrt(correction)}[eps_mode]
    _update(w, g, m, v, kind(size), kind(beta1), kind(1 - beta1), kind(beta2), kind(1 - beta2), kind(correction),
            kind(inside), kind(outside), kind(decay), penalised)


@parallel_kernel(cost=4)
def _update(w, g, m, v, size, beta1, rest1, beta2, rest2, correction, inside, outside, decay, penalised):
    for i in prange(w.size):
        step = g[i] + decay * w[i] if i < penalised else g[i]
        m[i] = beta1 * m[i] + rest1 * step
        v[i] = beta2 * v[i] + rest2 * step * step
        w[i] -= size * m[i] / (math.sqrt(correction * v[i] + inside) + outside)
