"""Batch normalisation with the statistics of the batch (the training form).

x is (N, ..., C); every sum and mean is over all axes but the last, M entries a channel.

    mean  = 1/M sum x          var = 1/M sum (x - mean)^2          (biased, as in the paper)
    rstd  = 1/sqrt(var + eps)  x^  = (x - mean) rstd
    y     = gamma x^ + beta
    dbeta = sum dy             dgamma = sum dy x^
    dx    = gamma rstd (dy - dbeta/M - x^ dgamma/M)

Source: Ioffe & Szegedy, "Batch normalization", 2015, algorithm 1 and section 3.
"""

import math

from fastnet.arrays import accumulator, array_module, require_float


def check(op, x, gamma, beta, eps):
    """Raise TypeError or ValueError unless `op`, which begins with a batch normalisation, can take these."""
    require_float(op, x=x, gamma=gamma, beta=beta)
    if x.ndim < 2 or math.prod(x.shape[:-1]) == 0:
        raise ValueError(f"{op}: x is {x.shape}, but (N, ..., C) with at least one sample is needed")
    for name, p in (("gamma", gamma), ("beta", beta)):
        if p.shape != x.shape[-1:]:
            raise ValueError(f"{op}: {name} is {p.shape} but x has {x.shape[-1]} channels (x is {x.shape}, "
                             "channels last)")
    if not eps > 0:
        raise ValueError(f"{op}: eps must be positive but is {eps}")


def forward(x, gamma, beta, *, eps=1e-5):
    """Return the normalised, scaled and shifted x, of x's shape. A batch of one gives y = beta."""
    check("batch_norm", x, gamma, beta, eps)
    xp = array_module(x)
    axes = tuple(range(x.ndim - 1))
    precise = x.astype(accumulator(x.dtype), copy=False)
    mean = precise.mean(axis=axes)
    centred = precise - mean
    var = (centred * centred).mean(axis=axes)  # not np.var, which drops the imaginary part
    rstd = 1 / xp.sqrt(var + eps)
    y = (centred * (gamma * rstd) + beta).astype(x.dtype, copy=False)
    # x^ is as large as x and x is alive anyway; three vectors of C are enough to rebuild it.
    return y, (x, gamma, mean, var, rstd)


def statistics(cache):
    """The batch's (mean, biased var) of a forward pass, both (C,), for running averages. No gradient flows here."""
    _, _, mean, var, _ = cache
    return mean, var


def backward(dy, cache, needs=None):
    x, gamma, mean, _, rstd = cache
    needs_x, needs_gamma, needs_beta = needs or (True, True, True)
    axes = tuple(range(x.ndim - 1))
    count = math.prod(x.shape[:-1])
    precise = dy.astype(mean.dtype, copy=False)
    x_hat = (x - mean) * rstd
    dbeta = precise.sum(axis=axes)
    dgamma = (precise * x_hat).sum(axis=axes)
    dx = None
    if needs_x:
        dx = (gamma * rstd * (precise - dbeta / count - x_hat * (dgamma / count))).astype(x.dtype, copy=False)
    return (dx, dgamma.astype(gamma.dtype, copy=False) if needs_gamma else None,
            dbeta.astype(gamma.dtype, copy=False) if needs_beta else None)
