"""Mean softmax cross-entropy as in `fastnet.ops.softmax_cross_entropy`; `_losses` says what a wrong label does."""

from fastnet.arrays import accumulator
from fastnet.kernels.cuda import _losses
from fastnet.kernels.cuda._arrays import contiguous, empty, on_device, supported
from fastnet.kernels.cuda._launch import WARP, Kernel

_ROWS, _BACKWARD = (Kernel("softmax_cross_entropy", f"softmax_cross_entropy_{name}") for name in ("rows", "backward"))


def supports(x, labels, *, label_smoothing=0.0):
    return (supported(x) and on_device(labels) and x.ndim == 2 and x.size > 0 and labels.dtype.kind in "iu"
            and labels.shape == x.shape[:1] and 0 <= label_smoothing < 1)


def forward(x, labels, *, label_smoothing=0.0):
    x, labels = contiguous(x), contiguous(labels.astype("int64", copy=False))
    precise = accumulator(x.dtype)
    p, losses = empty(x, dtype=precise), empty(x, x.shape[:1], precise)
    _ROWS(_ROWS.grid_for(len(x) * WARP), x, labels, label_smoothing, p, losses, *x.shape)
    return _losses.mean(losses, x, len(x)), (p, labels, label_smoothing, x.dtype)


def backward(dy, cache, needs=None):
    if needs is not None and not needs[0]:
        return None, None
    p, labels, label_smoothing, dtype = cache
    dx = empty(p, dtype=dtype)
    _BACKWARD(_BACKWARD.grid_for(p.size), p, labels, *_losses.upstream(dy), label_smoothing, dx, *p.shape)
    return dx, None
