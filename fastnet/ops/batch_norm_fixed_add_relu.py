"""Batch normalisation with given statistics, plus a shortcut, then ReLU: how a residual block ends in inference.

x and shortcut are (N, ..., C), everything else (C,).

    z = gamma x^ + beta + shortcut    y = max(z, 0)
    dz = dy where z > 0, else 0       the others from dz as in `batch_norm_fixed`       dshortcut = dz

Source: He et al., "Deep residual learning for image recognition", 2015, figure 2 and section 3.4.
"""

from fastnet.ops import batch_norm_fixed, relu
from fastnet.ops._shortcut import check_shortcut
from fastnet.ops.batch_norm_fixed import check


def forward(x, gamma, beta, mean, var, shortcut, *, eps=1e-5):
    """Return max(0, batch_norm_fixed(x) + shortcut), of x's shape."""
    check("batch_norm_fixed_add_relu", x, gamma, beta, mean, var, eps)
    check_shortcut("batch_norm_fixed_add_relu", x, shortcut)
    normalised, cache = batch_norm_fixed.forward(x, gamma, beta, mean, var, eps=eps)
    y, mask = relu.forward(normalised + shortcut)
    return y, (cache, mask)


def backward(dy, cache, needs=None):
    of_norm, mask = cache
    needs = needs or (True,) * 6
    dz = relu.backward(dy, mask)[0]
    return *batch_norm_fixed.backward(dz, of_norm, needs[:5]), dz if needs[5] else None
