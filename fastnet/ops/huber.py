"""Huber's loss of (N, K) outputs against targets: quadratic near the target, linear far from it.

    r  = x - t                        c = r clipped to [-delta, delta]
    y  = 1/M sum |c| (|r| - |c|/2)    M = N K, or N with reduction "sample_mean"
    dx = dy c / M
    dt = -dx                          (no gradient for labels, which mean one-hot rows)

A term is r^2/2 for |r| <= delta, else delta (|r| - delta/2).

Source: Huber, "Robust estimation of a location parameter", 1964; scaled as in PyTorch's huber_loss.
"""

from fastnet.arrays import array_module
from fastnet.ops._targets import check, dense, divisor, needed, reduced


def forward(x, targets, *, delta=1.0, reduction="mean"):
    """Return the loss as a 0-d array. `targets` are (N,) labels or of x's shape."""
    check("huber", x, targets, reduction)
    if not delta > 0:
        raise ValueError(f"huber: delta must be positive but is {delta}")
    xp = array_module(x)
    logits, t = dense(x, targets)
    residual = logits - t
    size = xp.where(residual.real < 0, -residual, residual)
    clipped = xp.where(size.real > delta, xp.full_like(size, delta), size)
    return reduced(clipped * (size - clipped / 2), x, reduction), (x, targets, delta, reduction)


def backward(dy, cache, needs=None):
    x, targets, delta, reduction = cache
    needs_x, needs_targets = needed(targets, needs)
    logits, t = dense(x, targets)
    slope = (logits - t).clip(-delta, delta) * dy / divisor(x, reduction)
    return (slope.astype(x.dtype, copy=False) if needs_x else None,
            (-slope).astype(targets.dtype, copy=False) if needs_targets else None)
