"""What the updates share; `fastnet.functions._update` has the meaning of the regularization."""

from numba import cuda

from fastnet.functions._update import NONE as NONE  # no regularization, the default of every update
from fastnet.functions._update import scalars as scalars
from fastnet.kernels.cuda import _numba
from fastnet.kernels.cuda._launch import blocks


def supports(w, *others):
    """Whether all are contiguous vectors on the device, of w's length and type."""
    return _numba.supported(w, *others) and w.dtype in _numba.FLOATS and w.size > 0 and all(
        v.dtype == w.dtype and v.ndim == 1 and v.flags.c_contiguous and v.size == w.size for v in (w, *others))


def launch(kernel, w, *arguments):
    """Run `kernel(w, *arguments)` once over the vectors."""
    _numba.launch(kernel, blocks(w.size, _numba.THREADS), _numba.THREADS, w, *arguments)


@cuda.jit(device=True)
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
