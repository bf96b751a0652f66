"""The logistic function for use inside compiled kernels; `one` is 1 in x's type, which keeps the result in it."""

import math

from fastnet.kernels.cpu._jit import kernel


@kernel(inline="always")
def sigmoid(x, one):
    decay = math.exp(-abs(x))
    return (one if x >= 0 else decay) / (one + decay)
