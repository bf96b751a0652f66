"""Linear (fully connected) layer.

    y  = x w + b                 x (N, D_in), w (D_in, D_out), b (D_out,) or None, y (N, D_out)
    dx = dy w^T
    dw = x^T dy
    db = sum_n dy_n

Source: Rumelhart, Hinton & Williams, "Learning representations by back-propagating errors", 1986.
"""

from fastnet.arrays import accumulator, require_float


def check(op, x, w, b):
    """Raise TypeError or ValueError, in the name of `op`, for what does not fit."""
    require_float(op, x=x, w=w, b=b)
    if x.ndim != 2 or w.ndim != 2:
        raise ValueError(f"{op}: x and w must have two dimensions, but x is {x.shape} and w is {w.shape}")
    if x.shape[1] != w.shape[0]:
        raise ValueError(f"{op}: x has {x.shape[1]} features but w expects {w.shape[0]} "
                         f"(w is {w.shape}: D_in, D_out)")
    if b is not None and b.shape != (w.shape[1],):
        raise ValueError(f"{op}: b is {b.shape} but w has {w.shape[1]} outputs (w is {w.shape}: D_in, D_out)")


def forward(x, w, b=None):
    """Return `x w + b` of shape (N, D_out). Raises ValueError where the shapes do not fit."""
    check("linear", x, w, b)
    precise = accumulator(x.dtype)
    y = x.astype(precise, copy=False) @ w
    if b is not None:
        y = y + b
    return y.astype(x.dtype, copy=False), (x, w, b)


def backward(dy, cache, needs=None):
    x, w, b = cache
    needs_x, needs_w, needs_b = needs or (True, True, True)
    precise = dy.astype(accumulator(dy.dtype), copy=False)
    dx = (precise @ w.T).astype(x.dtype, copy=False) if needs_x else None
    dw = (x.T.astype(precise.dtype, copy=False) @ precise).astype(w.dtype, copy=False) if needs_w else None
    db = precise.sum(axis=0).astype(b.dtype, copy=False) if needs_b and b is not None else None
    return dx, dw, db
