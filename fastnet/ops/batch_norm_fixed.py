"""Batch normalisation with given statistics (the form used after training, and for frozen layers).

x is (N, ..., C), everything else (C,); every sum is over all axes but the last. The statistics are arguments like
any other and get their gradients.

    rstd  = 1/sqrt(var + eps)     x^ = (x - mean) rstd
    y     = gamma x^ + beta
    dx    = gamma rstd dy
    dbeta = sum dy                dgamma = sum dy x^
    dmean = -gamma rstd dbeta     dvar   = -1/2 gamma rstd^2 dgamma

Source: Ioffe & Szegedy, "Batch normalization", 2015, algorithm 2, step 11.
"""

from fastnet.arrays import accumulator, array_module, require_float


def check(op, x, gamma, beta, mean, var, eps):
    """Raise TypeError or ValueError unless `op`, which begins with this normalisation, can take these."""
    require_float(op, x=x, gamma=gamma, beta=beta, mean=mean, var=var)
    if x.ndim < 2:
        raise ValueError(f"{op}: x is {x.shape}, but (N, ..., C) is needed")
    for name, p in (("gamma", gamma), ("beta", beta), ("mean", mean), ("var", var)):
        if p.shape != x.shape[-1:]:
            raise ValueError(f"{op}: {name} is {p.shape} but x has {x.shape[-1]} channels (x is "
                             f"{x.shape}, channels last)")
    if not eps > 0:
        raise ValueError(f"{op}: eps must be positive but is {eps}")


def _rstd(var, eps):
    return 1 / array_module(var).sqrt(var.astype(accumulator(var.dtype), copy=False) + eps)


def forward(x, gamma, beta, mean, var, *, eps=1e-5):
    """Return x normalised by `mean` and `var` (biased, not negative), scaled and shifted, of x's shape."""
    check("batch_norm_fixed", x, gamma, beta, mean, var, eps)
    precise = x.astype(accumulator(x.dtype), copy=False)
    y = ((precise - mean) * (gamma * _rstd(var, eps)) + beta).astype(x.dtype, copy=False)
    return y, (x, gamma, beta, mean, var, eps)  # the arguments only: x^ is as large as x, rstd a moment's work


def backward(dy, cache, needs=None):
    x, gamma, beta, mean, var, eps = cache
    needs_x, *needs_rest = needs or (True,) * 5
    axes = tuple(range(x.ndim - 1))
    precise = dy.astype(accumulator(x.dtype), copy=False)
    rstd = _rstd(var, eps)
    scale = gamma * rstd
    dx = (scale * precise).astype(x.dtype, copy=False) if needs_x else None
    if not any(needs_rest):
        return dx, None, None, None, None
    dbeta = precise.sum(axis=axes)
    dgamma = (precise * ((x - mean) * rstd)).sum(axis=axes)
    gradients = (dgamma, dbeta, -scale * dbeta, -scale * rstd * dgamma / 2)
    return dx, *(d.astype(p.dtype, copy=False) if needed else None
                 for d, p, needed in zip(gradients, (gamma, beta, mean, var), needs_rest, strict=True))
