"""Adagrad as in `fastnet.functions.adagrad_update`: one launch over the vectors."""

from fastnet.kernels.cuda import _update
from fastnet.kernels.cuda._launch import Kernel
from fastnet.kernels.cuda._update import launch, number

_KERNEL = Kernel("adagrad_update", "adagrad_update")


def supports(w, g, squares, **options):
    return _update.supports(w, g, squares)


def run(w, g, squares, *, lr, eps=1e-10, regularization=_update.NONE):
    launch(_KERNEL, w, g, squares, *number(lr), eps, *regularization)
