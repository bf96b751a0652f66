"""What the elementwise kernels share.

They work on flat vectors, in a plain `prange` over the entries: an elementwise result does not depend on how the
work is split, and this form is the one that LLVM turns into vector instructions.
"""

import numpy as np

from fastnet.arrays import empty
from fastnet.kernels.cpu._jit import is_float


def supports(x):
    return is_float(x) and x.size > 0


def flat(x):
    """x as a contiguous vector: a view where it is contiguous already."""
    return np.ascontiguousarray(x).reshape(-1)


def like(x):
    """An uninitialised C-contiguous array of x's shape, and the vector that views it."""
    y = empty(x.shape, x.dtype)
    return y, y.reshape(-1)
