"""What the updates share; `fastnet.functions._update` has the meaning of the regularization.

A rate, the number of an update and the like may be `Deferred`: in the device's memory, where a recorded launch finds
the one of each step.
"""

import math

from fastnet.arrays import accumulator
from fastnet.functions._update import NONE as NONE  # no regularization, the default of every update
from fastnet.kernels.cuda._arrays import number as number
from fastnet.kernels.cuda._arrays import supported


def supports(w, *others):
    """Whether all are contiguous vectors on the device, of w's length and type."""
    return supported(w, *others) and w.dtype == accumulator(w.dtype) and w.size > 0 and all(
        v.ndim == 1 and v.flags.c_contiguous and v.size == w.size for v in (w, *others))


def launch(kernel, *arguments):
    """Run `kernel(*arguments, size)` once over the vectors, the first of which is w."""
    kernel(kernel.grid_for(arguments[0].size), *arguments, arguments[0].size)


def logarithm(beta):
    """log(beta), also of 0."""
    return math.log(beta) if beta else -math.inf
