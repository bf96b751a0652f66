"""Soft-margin (two-class logistic) loss of (N, K) logits against targets that are -1 or +1; s is the logistic function.

    y  = 1/M sum log(1 + exp(-t x))   M = N K, or N with reduction "sample_mean"
    dx = -dy t s(-t x) / M
    dt = -dy x s(-t x) / M            (no gradient for labels: +1 in the label's column, -1 in the others)

Source: Hastie, Tibshirani & Friedman, "The elements of statistical learning", 2009, section 10.5 (binomial deviance);
the mean as in PyTorch's soft_margin_loss.
"""

from fastnet.ops._logistic import positive, sigmoid, softplus_tail
from fastnet.ops._targets import check, dense, divisor, needed, reduced


def forward(x, targets, *, reduction="mean"):
    """Return the loss as a 0-d array, finite for any finite logits. `targets` are (N,) labels or of x's shape."""
    check("soft_margin", x, targets, reduction)
    logits, t = dense(x, targets, off=-1)
    margin = t * logits
    return reduced(positive(-margin) + softplus_tail(margin), x, reduction), (x, targets, reduction)


def backward(dy, cache, needs=None):
    x, targets, reduction = cache
    needs_x, needs_targets = needed(targets, needs)
    logits, t = dense(x, targets, off=-1)
    slope = -sigmoid(-t * logits) * dy / divisor(x, reduction)
    return ((t * slope).astype(x.dtype, copy=False) if needs_x else None,
            (logits * slope).astype(targets.dtype, copy=False) if needs_targets else None)
