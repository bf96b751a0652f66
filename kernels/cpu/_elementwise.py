"""What the elementwise kernels share.

They work on flat vectors, in a plain `prange` over the entries: an elementwise result does not depend on how the
work is split, and this form is the one that LLVM turns into vector instructions.
"""

import numpy as np

from fastnet.arrays import contiguous, empty
from fastnet.kernels.cpu._jit import is_float


def supports(x):
    return not isinstance(x, np.generic) and is_float(x) and x.size > 0  # NumPy's scalars are options here


def apply(kernel, *arguments):
    """Run `kernel(*arguments, y)` on vectors; return y, of the first argument's shape and type.

    Arrays go in flat, without a copy where they are contiguous; numbers as they are.
    """
    x = arguments[0]
    y = empty(x.shape, x.dtype)
    flat = (a if isinstance(a, (int, float, np.generic)) else contiguous(a).reshape(-1) for a in arguments)
    kernel(*flat, y.reshape(-1))
    return y
