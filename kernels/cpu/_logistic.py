"""The logistic function for use inside compiled kernels; `one` is 1 in x's type, which keeps the result in it."""

from fastnet.kernels.cpu._jit import kernel
from fastnet.kernels.cpu._transcendental import exp


@kernel(inline="always")
def sigmoid(x, one):
    decay = exp(-abs(x))
    return (one if x >= 0 else decay) / (one + decay)
