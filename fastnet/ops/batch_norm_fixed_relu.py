"""Batch normalisation with given statistics, then ReLU: `batch_norm_fixed` and `relu` as one op.

x is (N, ..., C), everything else (C,).

    z = gamma x^ + beta               y = max(z, 0)
    dz = dy where z > 0, else 0       the gradients from dz as in `batch_norm_fixed`

Source: Ioffe & Szegedy, "Batch normalization", 2015, section 3.2 and algorithm 2.
"""

from fastnet.ops import batch_norm_fixed, relu
from fastnet.ops.batch_norm_fixed import check


def forward(x, gamma, beta, mean, var, *, eps=1e-5):
    """Return max(0, batch_norm_fixed(x)), of x's shape."""
    check("batch_norm_fixed_relu", x, gamma, beta, mean, var, eps)
    z, cache = batch_norm_fixed.forward(x, gamma, beta, mean, var, eps=eps)
    y, mask = relu.forward(z)
    return y, (cache, mask)


def backward(dy, cache, needs=None):
    of_norm, mask = cache
    return batch_norm_fixed.backward(relu.backward(dy, mask)[0], of_norm, needs)
