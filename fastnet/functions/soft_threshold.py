"""Soft thresholding of a vector, in place: the proximal step of an L1 penalty.

    w = sign(w) max(|w| - threshold, 0)    = argmin_z 1/2 (z - w)^2 + threshold |z|

With threshold = lr strength, after a step of gradient descent, this is ISTA on the penalty strength sum |w|. It gives
exact zeros, which the subgradient does not: a weight that crosses zero is pushed back across it for ever.

Source: Beck & Teboulle, "A fast iterative shrinkage-thresholding algorithm for linear inverse problems", 2009.
"""

from fastnet.arrays import array_module


def run(w, *, threshold):
    """Move every entry towards zero, at most to it (a NaN stays one). Returns nothing."""
    xp = array_module(w)
    w[...] = xp.where(abs(w) <= threshold, 0.0, w - threshold * xp.sign(w))
