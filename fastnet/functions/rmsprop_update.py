"""One step of RMSprop on the flat vector, in place.

    g' = g + the gradients of the penalties; w shrinks        (see `fastnet.functions._update`)
    v  = alpha v + (1 - alpha) g'^2
    w  = w - lr g' / (sqrt(v) + eps)       eps_mode "outside": PyTorch's form
    w  = w - lr g' / sqrt(v + eps)         eps_mode "inside": TensorFlow's and Keras' form

v starts at 0 and is not corrected for it, so the first steps are up to 1 / sqrt(1 - alpha) times lr: 10 lr with
PyTorch's alpha, 3 lr with Hinton's.

Source: Tieleman & Hinton, "Lecture 6.5: rmsprop", Neural networks for machine learning, Coursera, 2012.

| | lr | alpha | eps |
|---|---|---|---|
| lecture | none given | 0.9 | none |
| PyTorch, and here | 0.01 | 0.99 | 1e-8, outside |
| Keras | 0.001 | 0.9 | 1e-7, inside |
"""

from fastnet.arrays import array_module
from fastnet.functions._update import NONE, regularized

EPS_MODES = ("outside", "inside")


def run(w, g, v, *, lr, alpha=0.99, eps=1e-8, eps_mode="outside", regularization=NONE):
    """Update w and v, vectors of one length. Returns nothing."""
    xp = array_module(w)
    step = regularized(w, g, lr, regularization)
    v *= alpha
    v += (1 - alpha) * step * step
    w -= lr * step / (xp.sqrt(v) + eps if eps_mode == "outside" else xp.sqrt(v + eps))
