"""What the update kernels share; `fastnet.functions._update` has the meaning of the regularization."""

from fastnet.functions._update import NONE as NONE  # no regularization, the default of every update
from fastnet.functions._update import scalars as scalars
from fastnet.kernels.cpu._jit import is_float, kernel


def supports(w, *others):
    """Whether all are contiguous vectors of w's length and type."""
    return is_float(w, *others) and all(v.ndim == 1 and v.flags.c_contiguous and v.size == w.size for v in (w, *others))


@kernel(inline="always")
def regularized(w, g, i, decay, l1, shrink, penalised):
    """(w, g) of entry i: w after decoupled decay, g with the gradients of the penalties at the w before it."""
    if i < penalised:
        step = g + decay * w
        if w > 0:
            step += l1
        elif w < 0:
            step -= l1
        return w - shrink * w, step
    return w, g
