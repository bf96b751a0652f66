"""The logistic function and its integral, without overflow: the exponential only sees numbers that are not positive.

They hold for complex x as well, whose branches look at the real part.
"""

from fastnet.arrays import array_module


def sigmoid(x):
    """1 / (1 + exp(-x)), accurate on both sides."""
    xp = array_module(x)
    decay = _decay(x)
    return xp.where(x.real < 0, decay, xp.ones_like(decay)) / (1 + decay)


def positive(x):
    """max(x, 0)."""
    xp = array_module(x)
    return xp.where(x.real < 0, xp.zeros_like(x), x)


def softplus_tail(x):
    """log(1 + exp(-|x|)): log(1 + exp(x)) is `positive(x) + softplus_tail(x)`."""
    return array_module(x).log1p(_decay(x))


def _decay(x):
    xp = array_module(x)
    return xp.exp(xp.where(x.real < 0, x, -x))
