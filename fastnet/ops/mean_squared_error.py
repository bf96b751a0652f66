"""Mean squared error of (N, K) outputs against targets, without the factor 1/2 that some texts use.

    y  = 1/M sum (x - t)^2            M = N K, or N with reduction "sample_mean"
    dx = 2 dy (x - t) / M
    dt = -dx                          (no gradient for labels, which mean one-hot rows)

Source: Bishop, "Pattern recognition and machine learning", 2006, section 5.2; the mean as in PyTorch.
"""

from fastnet.ops._targets import check, dense, divisor, needed, reduced


def forward(x, targets, *, reduction="mean"):
    """Return the loss as a 0-d array. `targets` are (N,) labels or of x's shape."""
    check("mean_squared_error", x, targets, reduction)
    logits, t = dense(x, targets)
    residual = logits - t
    return reduced(residual * residual, x, reduction), (x, targets, reduction)


def backward(dy, cache, needs=None):
    x, targets, reduction = cache
    needs_x, needs_targets = needed(targets, needs)
    logits, t = dense(x, targets)
    slope = 2 * (logits - t) * dy / divisor(x, reduction)
    return (slope.astype(x.dtype, copy=False) if needs_x else None,
            (-slope).astype(targets.dtype, copy=False) if needs_targets else None)
