"""Batch normalisation with the statistics of the batch, then ReLU: `batch_norm` and `relu` as one op.

x is (N, ..., C), gamma and beta (C,).

    z = gamma x^ + beta               y = max(z, 0)
    dz = dy where z > 0, else 0       dx, dgamma, dbeta from dz as in `batch_norm`

Source: Ioffe & Szegedy, "Batch normalization", 2015, section 3.2, where it stands before the nonlinearity.
"""

from fastnet.ops import batch_norm, relu
from fastnet.ops.batch_norm import check


def forward(x, gamma, beta, *, eps=1e-5):
    """Return max(0, batch_norm(x)), of x's shape."""
    check("batch_norm_relu", x, gamma, beta, eps)
    z, cache = batch_norm.forward(x, gamma, beta, eps=eps)
    y, mask = relu.forward(z)
    return y, (cache, mask)


def statistics(cache):
    """The batch's (mean, biased var), both (C,)."""
    return batch_norm.statistics(cache[0])


def backward(dy, cache, needs=None):
    of_norm, mask = cache
    return batch_norm.backward(relu.backward(dy, mask)[0], of_norm, needs)
