"""One step of Adadelta on the flat vector, in place.

    g' = g + the gradients of the penalties; w shrinks        (see `fastnet.functions._update`)
    v  = rho v + (1 - rho) g'^2
    d  = sqrt(u + eps) / sqrt(v + eps) g'
    u  = rho u + (1 - rho) d^2             the average of squared steps, before lr
    w  = w - lr d

Source: Zeiler, "ADADELTA: an adaptive learning rate method", 2012, algorithm 1. The units of w come out right without
a rate, so the paper has none (lr = 1); with a small one the steps are that much smaller, for u does not see it.

| | lr | rho | eps |
|---|---|---|---|
| paper (section 4.1), and here | 1 | 0.95 | 1e-6 |
| PyTorch | 1 | 0.9 | 1e-6 |
| Keras | 0.001 | 0.95 | 1e-7 |
"""

from fastnet.arrays import array_module
from fastnet.functions._update import NONE, regularized


def run(w, g, v, u, *, lr, rho=0.95, eps=1e-6, regularization=NONE):
    """Update w, v and u, vectors of one length. Returns nothing."""
    xp = array_module(w)
    step = regularized(w, g, lr, regularization)
    v *= rho
    v += (1 - rho) * step * step
    step *= xp.sqrt(u + eps) / xp.sqrt(v + eps)
    u *= rho
    u += (1 - rho) * step * step
    w -= lr * step
