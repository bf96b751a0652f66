"""One step of Adamax, Adam with the maximum norm, on the flat vector, in place. t counts updates from 1.

    g' = g + the gradients of the penalties; w shrinks        (see `fastnet.functions._update`)
    m  = beta1 m + (1 - beta1) g'
    u  = max(beta2 u, |g'| + eps)
    w  = w - lr / (1 - beta1^t) m / u

Source: Kingma & Ba, "Adam: a method for stochastic optimization", 2015, algorithm 2 (section 7.1), which has no eps and
so divides by zero where a gradient has always been zero.

| | lr | beta1 | beta2 | eps |
|---|---|---|---|---|
| paper | 0.002 | 0.9 | 0.999 | none |
| PyTorch, and here | 0.002 | 0.9 | 0.999 | 1e-8, added to the absolute gradient |
| Keras | 0.001 | 0.9 | 0.999 | 1e-7, added to u where it divides |
"""

from fastnet.arrays import array_module
from fastnet.functions._update import NONE, regularized
from fastnet.functions.adam_update import one_minus_power


def run(w, g, m, u, *, t, lr, beta1=0.9, beta2=0.999, eps=1e-8, regularization=NONE):
    """Update w, m and u, vectors of one length. Returns nothing."""
    step = regularized(w, g, lr, regularization)
    m *= beta1
    m += (1 - beta1) * step
    u[...] = array_module(w).maximum(beta2 * u, abs(step) + eps)
    w -= lr / one_minus_power(beta1, t) * m / u
