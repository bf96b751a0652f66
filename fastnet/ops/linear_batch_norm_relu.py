"""A hidden layer of a perceptron as one op: the products of `linear`, then `batch_norm_relu`.

x is (N, D_in), w (D_in, D_out), gamma and beta (D_out,), y (N, D_out).

    z = x w              y = max(0, batch_norm(z))
    dz, dgamma, dbeta from dy as in `batch_norm_relu`
    dx = dz w^T          dw = x^T dz

There is no bias: it would move z and its mean alike, so y does not depend on it, and its gradient is 0.

Source: Ioffe & Szegedy, "Batch normalization", 2015, section 3.2.
"""

from fastnet.ops import batch_norm_relu, linear
from fastnet.ops.batch_norm import check


def forward(x, w, gamma, beta, *, eps=1e-5):
    """Return max(0, batch_norm(x w)) of shape (N, D_out)."""
    linear.check("linear_batch_norm_relu", x, w, None)
    z, of_linear = linear.forward(x, w)
    check("linear_batch_norm_relu", z, gamma, beta, eps)
    y, of_norm = batch_norm_relu.forward(z, gamma, beta, eps=eps)
    return y, (of_linear, of_norm)


def statistics(cache):
    """The batch's (mean, biased var) of z, both (D_out,)."""
    return batch_norm_relu.statistics(cache[1])


def backward(dy, cache, needs=None):
    of_linear, of_norm = cache
    needs_x, needs_w, needs_gamma, needs_beta = needs or (True,) * 4
    dz, dgamma, dbeta = batch_norm_relu.backward(dy, of_norm, (True, needs_gamma, needs_beta))
    return *linear.backward(dz, of_linear, (needs_x, needs_w, False))[:2], dgamma, dbeta
