"""What a step has changed taken back as in `fastnet.functions.take_back`: one launch."""

from fastnet.kernels.cuda._arrays import on_device, supported
from fastnet.kernels.cuda._launch import Kernel

_KERNEL = Kernel("take_back", "take_back")


def supports(to, kept, rate):
    return (supported(to) and on_device(kept, rate) and to.dtype == kept.dtype and to.shape == kept.shape
            and to.flags.c_contiguous and kept.flags.c_contiguous and to.size > 0 and rate.dtype == "float64"
            and rate.size == 1)


def run(to, kept, rate):
    _KERNEL(_KERNEL.grid_for(to.size), to, kept, rate, to.size)
