"""One step of Adagrad on the flat vector, in place.

    g' = g + the gradients of the penalties; w shrinks        (see `fastnet.functions._update`)
    s  = s + g'^2                          starts at `initial`
    w  = w - lr g' / (sqrt(s) + eps)

Source: Duchi, Hazan & Singer, "Adaptive subgradient methods for online learning and stochastic optimization", 2011,
section 1.1 (diagonal form; delta there is eps here, and no value is given).

| | lr | initial | eps |
|---|---|---|---|
| PyTorch, and here | 0.01 | 0 | 1e-10 |
| Keras | 0.001 | 0.1 | 1e-7, inside the root |
"""

from fastnet.arrays import array_module
from fastnet.functions._update import NONE, regularized


def run(w, g, squares, *, lr, eps=1e-10, regularization=NONE):
    """Update w and squares (s above), vectors of one length. Returns nothing."""
    step = regularized(w, g, lr, regularization)
    squares += step * step
    w -= lr * step / (array_module(w).sqrt(squares) + eps)
