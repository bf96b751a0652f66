"""Batch normalisation, plus a shortcut, then ReLU: how a residual block ends, as one op.

x and shortcut are (N, ..., C), gamma and beta (C,).

    z = gamma x^ + beta + shortcut    y = max(z, 0)
    dz = dy where z > 0, else 0       dx, dgamma, dbeta from dz as in `batch_norm`       dshortcut = dz

Source: He et al., "Deep residual learning for image recognition", 2015, figure 2 and section 3.4.
"""

from fastnet.ops import batch_norm, relu
from fastnet.ops._shortcut import check_shortcut
from fastnet.ops.batch_norm import check


def forward(x, gamma, beta, shortcut, *, eps=1e-5):
    """Return max(0, batch_norm(x) + shortcut), of x's shape."""
    check("batch_norm_add_relu", x, gamma, beta, eps)
    check_shortcut("batch_norm_add_relu", x, shortcut)
    normalised, cache = batch_norm.forward(x, gamma, beta, eps=eps)
    y, mask = relu.forward(normalised + shortcut)
    return y, (cache, mask)


def statistics(cache):
    """The batch's (mean, biased var), both (C,)."""
    return batch_norm.statistics(cache[0])


def backward(dy, cache, needs=None):
    of_norm, mask = cache
    needs = needs or (True,) * 4
    dz = relu.backward(dy, mask)[0]
    return *batch_norm.backward(dz, of_norm, needs[:3]), dz if needs[3] else None
