"""Leaky rectified linear unit, elementwise on any shape; a is `negative_slope`, at least 0.

    y  = x where x > 0, else a x
    dx = dy where x > 0, else a dy          (at 0 the left derivative)

Source: Maas, Hannun & Ng, "Rectifier nonlinearities improve neural network acoustic models", 2013, equation 2.
"""

from fastnet.arrays import accumulator, array_module, require_float


def forward(x, *, negative_slope=0.01):
    """Return x where it is positive and `negative_slope * x` elsewhere, of x's shape."""
    require_float("leaky_relu", x=x)
    if not negative_slope >= 0:
        raise ValueError(f"leaky_relu: negative_slope must be at least 0 but is {negative_slope}")
    precise = x.astype(accumulator(x.dtype), copy=False)
    y = array_module(x).where(precise.real > 0, precise, negative_slope * precise).astype(x.dtype, copy=False)
    # y > 0 exactly where x > 0, because the slope is not negative, and the next layer keeps y alive anyway.
    return y, (y, negative_slope)


def backward(dy, cache, needs=None):
    if needs is not None and not needs[0]:
        return (None,)
    y, negative_slope = cache
    precise = dy.astype(accumulator(dy.dtype), copy=False)
    dx = array_module(dy).where(y > 0, precise, negative_slope * precise)
    return (dx.astype(y.dtype, copy=False),)
