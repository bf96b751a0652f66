"""A gradient divided by the scale of its loss as in `fastnet.functions.unscale`: one launch."""

from fastnet.kernels.cuda import _update
from fastnet.kernels.cuda._arrays import on_device
from fastnet.kernels.cuda._launch import Kernel

_KERNEL = Kernel("unscale", "unscale")


def supports(g, scale, overflow):
    return (_update.supports(g) and on_device(scale, overflow) and scale.dtype == g.dtype
            and overflow.dtype == "uint32" and scale.size == overflow.size == 1)


def run(g, scale, overflow):
    _update.launch(_KERNEL, g, scale, overflow)
