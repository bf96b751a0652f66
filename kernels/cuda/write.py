"""One array written over another as in `fastnet.functions.write`."""

from fastnet.kernels.cuda import _elementwise
from fastnet.kernels.cuda._arrays import contiguous, on_device
from fastnet.kernels.cuda._launch import Kernel

_WRITE = Kernel("write", "write_over")  # `write` is a function of the C library


def supports(to, x):
    return (_elementwise.supports(to) and to.flags.c_contiguous and on_device(x) and x.dtype == to.dtype
            and x.shape == to.shape)


def run(to, x):
    _WRITE(_WRITE.grid_for(to.size, each=_elementwise.PACK // to.dtype.itemsize), contiguous(x), to, to.size)
