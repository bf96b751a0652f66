"""Linear layer with a rectified linear unit behind it.

    y  = max(x w + b, 0)         x (N, D_in), w (D_in, D_out), b (D_out,) or None, y (N, D_out)
    dz = dy where y > 0, else 0
    dx = dz w^T
    dw = x^T dz
    db = sum_n dz_n

Source: as `fastnet.ops.linear` and `fastnet.ops.relu`.
"""

from fastnet.ops import linear, relu


def forward(x, w, b=None):
    """Return max(x w + b, 0) of shape (N, D_out). Raises ValueError where the shapes do not fit."""
    linear.check("linear_relu", x, w, b)
    z, below = linear.forward(x, w, b)
    y, above = relu.forward(z)
    return y, (below, above)


def backward(dy, cache, needs=None):
    below, above = cache
    return linear.backward(relu.backward(dy, above)[0], below, needs)
