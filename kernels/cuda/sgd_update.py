"""Stochastic gradient descent as in `fastnet.functions.sgd_update`: one launch over the vectors."""

from numba import cuda

from fastnet.kernels.cuda import _update
from fastnet.kernels.cuda._update import launch, regularized, scalars


def supports(w, g, velocity=None, **options):
    return _update.supports(w, g) if velocity is None else _update.supports(w, g, velocity)


def run(w, g, velocity=None, *, lr, momentum=0.0, nesterov=False, regularization=_update.NONE):
    kind = w.dtype.type
    if momentum:
        launch(_momentum, w, g, velocity, kind(lr), kind(momentum), nesterov, *scalars(regularization, lr, kind))
    else:
        launch(_plain, w, g, kind(lr), *scalars(regularization, lr, kind))


@cuda.jit
def _plain(w, g, lr, decay, l1, shrink, penalised):
    for i in range(cuda.grid(1), w.size, cuda.gridsize(1)):
        kept, step = regularized(w[i], g[i], i, decay, l1, shrink, penalised)
        w[i] = kept - lr * step


@cuda.jit
def _momentum(w, g, velocity, lr, momentum, nesterov, decay, l1, shrink, penalised):
    for i in range(cuda.grid(1), w.size, cuda.gridsize(1)):
        kept, step = regularized(w[i], g[i], i, decay, l1, shrink, penalised)
        velocity[i] = momentum * velocity[i] + step
        w[i] = kept - lr * (step + momentum * velocity[i] if nesterov else velocity[i])
