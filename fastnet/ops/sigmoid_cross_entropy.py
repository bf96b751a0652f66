"""Cross-entropy of K independent binary decisions, from (N, K) logits; s is the logistic function.

    y  = -1/M sum t log s(x) + (1 - t) log(1 - s(x))      M = N K, or N with reduction "sample_mean"
       =  1/M sum max(x, 0) - t x + log(1 + exp(-|x|))    (the form computed: finite for any finite x)
    dx = dy (s(x) - t) / M
    dt = -dy x / M                                        (no gradient for labels, which mean one-hot rows)

Source: Bishop, "Pattern recognition and machine learning", 2006, equations 5.21 and 5.22; the mean as in PyTorch's
binary_cross_entropy_with_logits.
"""

from fastnet.ops._logistic import positive, sigmoid, softplus_tail
from fastnet.ops._targets import check, dense, divisor, needed, reduced


def forward(x, targets, *, reduction="mean"):
    """Return the loss as a 0-d array. `targets` are (N,) labels, or probabilities of x's shape."""
    check("sigmoid_cross_entropy", x, targets, reduction)
    logits, t = dense(x, targets)
    # The difference first: where the two are nearly equal the logarithm is all of the loss.
    losses = (positive(logits) - t * logits) + softplus_tail(logits)
    return reduced(losses, x, reduction), (x, targets, reduction)


def backward(dy, cache, needs=None):
    x, targets, reduction = cache
    needs_x, needs_targets = needed(targets, needs)
    logits, t = dense(x, targets)
    count = divisor(x, reduction)
    return (((sigmoid(logits) - t) * dy / count).astype(x.dtype, copy=False) if needs_x else None,
            (-logits * dy / count).astype(targets.dtype, copy=False) if needs_targets else None)
