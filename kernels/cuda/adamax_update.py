"""Adamax as in `fastnet.functions.adamax_update`: one launch over the vectors."""

from fastnet.kernels.cuda import _update
from fastnet.kernels.cuda._launch import Kernel
from fastnet.kernels.cuda._update import launch, logarithm, number

_KERNEL = Kernel("adamax_update", "adamax_update")


def supports(w, g, m, u, **options):
    return _update.supports(w, g, m, u)


def run(w, g, m, u, *, t, lr, beta1=0.9, beta2=0.999, eps=1e-8, regularization=_update.NONE):
    launch(_KERNEL, w, g, m, u, *number(lr), *number(t), logarithm(beta1), beta1, 1 - beta1, beta2, eps,
           *regularization)
