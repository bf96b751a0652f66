"""Exponential linear unit, elementwise on any shape; a is `alpha`, positive.

    y  = x where x > 0, else a (exp(x) - 1)
    dx = dy where x > 0, else dy a exp(x) = dy (y + a)

Source: Clevert, Unterthiner & Hochreiter, "Fast and accurate deep network learning by exponential linear units",
2016, equations 15 and 16.
"""

from fastnet.arrays import accumulator, array_module, require_float


def forward(x, *, alpha=1.0):
    """Return x where it is positive and `alpha * expm1(x)` elsewhere, of x's shape."""
    require_float("elu", x=x)
    if not alpha > 0:
        raise ValueError(f"elu: alpha must be positive but is {alpha}")
    xp = array_module(x)
    precise = x.astype(accumulator(x.dtype), copy=False)
    positive = precise.real > 0
    # The exponential sees no positive number, so it cannot overflow on the branch that is thrown away.
    negative_part = xp.where(positive, xp.zeros_like(precise), precise)
    y = xp.where(positive, precise, alpha * xp.expm1(negative_part)).astype(x.dtype, copy=False)
    # y > 0 exactly where x > 0, y + a is the other branch's slope, and the next layer keeps y alive anyway.
    return y, (y, alpha)


def backward(dy, cache, needs=None):
    if needs is not None and not needs[0]:
        return (None,)
    y, alpha = cache
    precise = dy.astype(accumulator(dy.dtype), copy=False)
    dx = array_module(dy).where(y > 0, precise, precise * (y + alpha))
    return (dx.astype(y.dtype, copy=False),)
