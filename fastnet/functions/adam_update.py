"""One step of Adam on the flat vector, in place. t counts updates from 1.

    g' = g + decay w                       on the first `penalised` entries, g elsewhere
    m  = beta1 m + (1 - beta1) g'          v = beta2 v + (1 - beta2) g'^2
    m^ = m / (1 - beta1^t)                 v^ = v / (1 - beta2^t)
    w  = w - lr m^ / (sqrt(v^) + eps)      eps_mode "outside": the paper's algorithm 1
    w  = w - lr m^ / sqrt(v^ + eps)        eps_mode "inside": as report R3 writes it
    w  = w - lr sqrt(1 - beta2^t) m^ / (sqrt(v) + eps)
                                           eps_mode "hat": the paper's section 2, TensorFlow's and Keras' form

Source: Kingma & Ba, "Adam: a method for stochastic optimization", 2015.
"""

from fastnet.arrays import array_module

EPS_MODES = ("outside", "inside", "hat")


def factors(t, lr, beta1, beta2):
    """(size of the step, factor that makes v into v^), the two corrections for the start at zero."""
    return lr / (1 - beta1**t), 1 / (1 - beta2**t)


def run(w, g, m, v, *, t, lr, beta1=0.9, beta2=0.999, eps=1e-8, eps_mode="outside", decay=0.0, penalised=0):
    """Update w, m and v, vectors of one length. Returns nothing."""
    xp = array_module(w)
    step = g.copy()
    if decay:
        step[:penalised] += decay * w[:penalised]
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
