"""Gaussian error linear unit, elementwise on any shape; exact by default, or Hendrycks' tanh form.

    approximate="none":  P = 1/2 (1 + erf(x / sqrt 2))         P' = exp(-x^2 / 2) / sqrt(2 pi)
    approximate="tanh":  P = 1/2 (1 + tanh(u))                 P' = 2 P (1 - P) u'
                         u = sqrt(2/pi) (x + 0.044715 x^3)     u' = sqrt(2/pi) (1 + 3 * 0.044715 x^2)
    y  = x P
    dx = dy (P + x P')

Source: Hendrycks & Gimpel, "Gaussian error linear units", 2016, section 2. The option is spelled as in PyTorch.
"""

import math

from fastnet.arrays import accumulator, array_module, erf, require_float

CUBIC = 0.044715
SCALE = math.sqrt(2 / math.pi)
LIMIT = 40  # from here on P is 0 or 1 and P' is 0, in float64 too; powers of what lies beyond could overflow


def _bounded(x):
    xp = array_module(x)
    precise = x.astype(accumulator(x.dtype), copy=False)
    limit = xp.full_like(precise, LIMIT)
    return xp.where(precise.real > LIMIT, limit, xp.where(precise.real < -LIMIT, -limit, precise))


def _probability(x, approximate):
    if approximate == "tanh":
        return (1 + array_module(x).tanh(SCALE * (x + CUBIC * x * x * x))) / 2
    return (1 + erf(x * math.sqrt(0.5))) / 2


def forward(x, *, approximate="none"):
    """Return x P(x), of x's shape; `approximate` is "none" or "tanh"."""
    require_float("gelu", x=x)
    if approximate not in ("none", "tanh"):
        raise ValueError(f"gelu: approximate must be 'none' or 'tanh' but is {approximate!r}")
    y = (x * _probability(_bounded(x), approximate)).astype(x.dtype, copy=False)
    return y, (x, approximate)  # y does not determine x; P is as large as x and cheaper to compute again


def backward(dy, cache, needs=None):
    if needs is not None and not needs[0]:
        return (None,)
    x, approximate = cache
    bounded = _bounded(x)
    p = _probability(bounded, approximate)
    if approximate == "tanh":
        slope = 2 * p * (1 - p) * (SCALE * (1 + 3 * CUBIC * bounded * bounded))
    else:
        slope = array_module(x).exp(-bounded * bounded / 2) / math.sqrt(2 * math.pi)
    return ((dy * (p + bounded * slope)).astype(x.dtype, copy=False),)
