"""Swish, also called SiLU, elementwise on any shape; s is the logistic function.

    y  = x s(x)
    dx = dy s (1 + x (1 - s))

Sources: Ramachandran, Zoph & Le, "Searching for activation functions", 2017 (beta = 1); Elfwing, Uchibe & Doya,
"Sigmoid-weighted linear units", 2017.
"""

from fastnet.arrays import accumulator, require_float
from fastnet.ops._logistic import sigmoid


def forward(x):
    """Return x s(x), of x's shape."""
    require_float("swish", x=x)
    y = (x * sigmoid(x.astype(accumulator(x.dtype), copy=False))).astype(x.dtype, copy=False)
    return y, x  # y does not determine x; s is as large as x and cheaper to compute again


def backward(dy, cache, needs=None):
    if needs is not None and not needs[0]:
        return (None,)
    x = cache.astype(accumulator(cache.dtype), copy=False)
    s = sigmoid(x)
    return ((dy * (s * (1 + x * (1 - s)))).astype(cache.dtype, copy=False),)
