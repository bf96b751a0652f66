"""RMSprop as in `fastnet.functions.rmsprop_update`: one launch over the vectors."""

from fastnet.kernels.cuda import _update
from fastnet.kernels.cuda._launch import Kernel
from fastnet.kernels.cuda._update import launch, number

_KERNEL = Kernel("rmsprop_update", "rmsprop_update")


def supports(w, g, v, **options):
    return _update.supports(w, g, v)


def run(w, g, v, *, lr, alpha=0.99, eps=1e-8, eps_mode="outside", regularization=_update.NONE):
    inside, outside = (eps, 0.0) if eps_mode == "inside" else (0.0, eps)
    launch(_KERNEL, w, g, v, *number(lr), alpha, 1 - alpha, inside, outside, *regularization)
