"""One step of Adam or AdamW on the flat vector, in place. t counts updates from 1.

    g' = g + the gradients of the penalties; w shrinks        (see `fastnet.functions._update`)
    m  = beta1 m + (1 - beta1) g'          v = beta2 v + (1 - beta2) g'^2
    m^ = m / (1 - beta1^t)                 v^ = v / (1 - beta2^t)
    w  = w - lr m^ / (sqrt(v^) + eps)      eps_mode "outside": the paper's algorithm 1, PyTorch's form
    w  = w - lr m^ / sqrt(v^ + eps)        eps_mode "inside": as report R3 writes it
    w  = w - lr sqrt(1 - beta2^t) m^ / (sqrt(v) + eps)
                                           eps_mode "hat": the paper's section 2, TensorFlow's and Keras' form

AdamW is this with `shrink` above 0. PyTorch and Keras shrink by lr wd (0.01 and 0.004) each step; the paper by its
schedule's multiplier times wd, whatever lr is.

Sources: Kingma & Ba, "Adam: a method for stochastic optimization", 2015: lr 1e-3, beta1 0.9, beta2 0.999, eps 1e-8, as
in PyTorch; Keras has eps 1e-7. Loshchilov & Hutter, "Decoupled weight decay regularization", 2019.
"""

import math

from fastnet.arrays import array_module
from fastnet.functions._update import NONE, regularized

EPS_MODES = ("outside", "inside", "hat")


def factors(t, lr, beta1, beta2):
    """(size of the step, factor that makes v into v^), the two corrections for the start at zero."""
    return lr / one_minus_power(beta1, t), 1 / one_minus_power(beta2, t)


def one_minus_power(beta, t):
    """1 - beta^t to the last digit; the plain difference loses three of them for beta = 0.999 and a small t."""
    return -math.expm1(t * math.log(beta)) if beta else 1.0


def run(w, g, m, v, *, t, lr, beta1=0.9, beta2=0.999, eps=1e-8, eps_mode="outside", regularization=NONE):
    """Update w, m and v, vectors of one length. Returns nothing."""
    xp = array_module(w)
    step = regularized(w, g, lr, regularization)
    m *= beta1
    m += (1 - beta1) * step
    v *= beta2
    v += (1 - beta2) * step * step
    size, correction = factors(t, lr, beta1, beta2)
    if eps_mode == "outside":
        root = xp.sqrt(correction * v) + eps
    elif eps_mode == "inside":
        root = xp.sqrt(correction * v + eps)
    else:
        root = (xp.sqrt(v) + eps) * correction**0.5
    w -= size * m / root
