"""Averaging of the weights as in `fastnet.functions.average_update`: one launch over the vectors."""

from fastnet.kernels.cuda import _update
from fastnet.kernels.cuda._launch import Kernel
from fastnet.kernels.cuda._update import launch, number

_KERNEL = Kernel("average_update", "average_update")


def supports(average, w, *, decay):
    return _update.supports(average, w)


def run(average, w, *, decay):
    launch(_KERNEL, average, w, *number(decay))
