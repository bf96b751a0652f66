"""Adadelta as in `fastnet.functions.adadelta_update`: one launch over the vectors."""

from fastnet.kernels.cuda import _update
from fastnet.kernels.cuda._launch import Kernel
from fastnet.kernels.cuda._update import launch, number

_KERNEL = Kernel("adadelta_update", "adadelta_update")


def supports(w, g, v, u, **options):
    return _update.supports(w, g, v, u)


def run(w, g, v, u, *, lr, rho=0.95, eps=1e-6, regularization=_update.NONE):
    launch(_KERNEL, w, g, v, u, *number(lr), rho, 1 - rho, eps, *regularization)
