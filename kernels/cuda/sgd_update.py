"""Stochastic gradient descent as in `fastnet.functions.sgd_update`: one launch over the vectors."""

from fastnet.kernels.cuda import _update
from fastnet.kernels.cuda._launch import Kernel
from fastnet.kernels.cuda._update import launch, number

_KERNEL = Kernel("sgd_update", "sgd_update")


def supports(w, g, velocity=None, **options):
    return _update.supports(w, g) if velocity is None else _update.supports(w, g, velocity)


def run(w, g, velocity=None, *, lr, momentum=0.0, nesterov=False, regularization=_update.NONE):
    launch(_KERNEL, w, g, velocity if momentum else None, *number(lr), momentum, int(nesterov), *regularization)
