"""What all updates share: the regularization, applied the same way in each.

    g' = g + decay w + l1 sign(w)          on the first `penalised` entries, g elsewhere; sign(0) = 0
    w  = w - lr shrink w                   on the same entries, after g' is taken and before the update

`decay` is the gradient of decay/2 sum w^2 and `l1` that of l1 sum |w|: both pass through the optimizer like the rest of
the gradient. `shrink` does not (decoupled decay: Loshchilov & Hutter, "Decoupled weight decay regularization", 2019,
in PyTorch's form, where the rate, not the schedule's multiplier alone, scales it).
"""

from typing import NamedTuple

from fastnet.arrays import array_module


class Regularization(NamedTuple):
    """Strengths of coupled decay, L1 and decoupled decay, and how many entries from the start they apply to."""

    decay: float = 0.0
    l1: float = 0.0
    shrink: float = 0.0
    penalised: int = 0


NONE = Regularization()


def regularized(w, g, lr, regularization):
    """g' as a new vector; w shrinks in place."""
    decay, l1, shrink, penalised = regularization
    step, part = g.copy(), w[:penalised]
    if decay:
        step[:penalised] += decay * part
    if l1:
        step[:penalised] += l1 * array_module(w).sign(part)
    if shrink:
        part -= lr * shrink * part
    return step


def scalars(regularization, lr, kind):
    """(decay, l1, lr shrink, penalised) for kernels; the first three in the vectors' type, which keeps sums in it."""
    decay, l1, shrink, penalised = regularization
    return kind(decay), kind(l1), kind(lr * shrink), penalised
