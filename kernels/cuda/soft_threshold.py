"""Soft thresholding as in `fastnet.functions.soft_threshold`: one launch over the vectors."""

from fastnet.kernels.cuda import _update
from fastnet.kernels.cuda._launch import Kernel
from fastnet.kernels.cuda._update import launch, number

_KERNEL = Kernel("soft_threshold", "soft_threshold")


def supports(w, *, threshold):
    return _update.supports(w)


def run(w, *, threshold):
    launch(_KERNEL, w, *number(threshold))
