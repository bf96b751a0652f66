"""Adam as in `fastnet.functions.adam_update`: one launch over the vectors."""

from fastnet.kernels.cuda import _update
from fastnet.kernels.cuda._launch import Kernel
from fastnet.kernels.cuda._update import launch, logarithm, number

_KERNEL = Kernel("adam_update", "adam_update")


def supports(w, g, m, v, **options):
    return _update.supports(w, g, m, v)


def run(w, g, m, v, *, t, lr, beta1=0.9, beta2=0.999, eps=1e-8, eps_mode="outside", regularization=_update.NONE):
    inside, outside = (eps, 0.0) if eps_mode == "inside" else (0.0, eps)
    launch(_KERNEL, w, g, m, v, *number(lr), *number(t), logarithm(beta1), logarithm(beta2), beta1, 1 - beta1, beta2,
           1 - beta2, inside, outside, int(eps_mode == "hat"), *regularization)
