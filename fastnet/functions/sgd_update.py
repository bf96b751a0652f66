"""One step of stochastic gradient descent on the flat vector, in place.

    g' = g + the gradients of the penalties; w shrinks        (see `fastnet.functions._update`)
    v  = momentum v + g'
    w  = w - lr v                          or, with Nesterov's momentum, w - lr (g' + momentum v)

Sources: Polyak, "Some methods of speeding up the convergence of iteration methods", 1964; Nesterov's form as in
Sutskever et al., 2013, rewritten (as PyTorch does) so that w is where the gradient was taken.
"""

from fastnet.functions._update import NONE, regularized


def run(w, g, velocity=None, *, lr, momentum=0.0, nesterov=False, regularization=NONE):
    """Update w (and velocity, needed only with momentum), vectors of one length. Returns nothing."""
    step = regularized(w, g, lr, regularization)
    if momentum:
        velocity *= momentum
        velocity += step
        step = step + momentum * velocity if nesterov else velocity
    w -= lr * step
