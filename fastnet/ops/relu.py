"""Rectified linear unit, elementwise on any shape.

    y  = max(x, 0)
    dx = dy where x > 0, else 0          (the subgradient at 0 is 0)

Source: Nair & Hinton, "Rectified linear units improve restricted Boltzmann machines", 2010.
"""

from fastnet.arrays import array_module, require_float


def forward(x):
    """Return max(x, 0), of x's shape; a NaN stays one."""
    require_float("relu", x=x)
    xp = array_module(x)
    y = xp.where(x.real <= 0, xp.zeros_like(x), x)
    return y, y  # y > 0 exactly where x > 0, and the next layer keeps y alive anyway


def backward(dy, cache, needs=None):
    if needs is not None and not needs[0]:
        return (None,)
    xp = array_module(dy)
    return (xp.where(cache > 0, dy, xp.zeros_like(dy)),)
