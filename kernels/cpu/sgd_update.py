"""Stochastic gradient descent as in `fastnet.functions.sgd_update`: one pass over the vectors."""

from numba import prange

from fastnet.kernels.cpu._jit import is_float, parallel_kernel


def supports(w, g, velocity=None, *, lr, momentum=0.0, nesterov=False, decay=0.0, penalised=0):
    vectors = (w, g) if velocity is None else (w, g, velocity)
    return is_float(*vectors) and all(v.ndim == 1 and v.flags.c_contiguous and v.size == w.size for v in vectors)


def run(w, g, velocity=None, *, lr, momentum=0.0, nesterov=False, decay=0.0, penalised=0):
    kind = w.dtype.type
    if momentum:
        _momentum(w, g, velocity, kind(lr), kind(momentum), nesterov, kind(decay), penalised)
    else:
        _plain(w, g, kind(lr), kind(decay), penalised)


@parallel_kernel()
def _plain(w, g, lr, decay, penalised):
    for i in prange(w.size):
        step = g[i] + decay * w[i] if i < penalised else g[i]
        w[i] -= lr * step


@parallel_kernel()
def _momentum(w, g, velocity, lr, momentum, nesterov, decay, penalised):
    for i in prange(w.size):
        step = g[i] + decay * w[i] if i < penalised else g[i]
        velocity[i] = momentum * velocity[i] + step
        w[i] -= lr * (step + momentum * velocity[i] if nesterov else velocity[i])
