"""The end of a classifier as in `fastnet.ops.pooled_softmax_cross_entropy`, one launch each way.

The op itself takes another for its loss. `step`, which training calls, has the loss from the way back.
"""

from fastnet.kernels.cuda import _losses, softmax_cross_entropy
from fastnet.kernels.cuda._arrays import contiguous, empty, supported
from fastnet.kernels.cuda._channels import units
from fastnet.kernels.cuda._launch import WARP, Kernel, blocks

_ROWS, _GRADIENTS = (Kernel("pooled_softmax_cross_entropy", f"pooled_softmax_cross_entropy_{name}")
                     for name in ("rows", "gradients"))


def supports(x, w, labels, b=None, *, label_smoothing=0.0):
    return (supported(x, w, b) and x.ndim == 4 and w.ndim == 2 and x.shape[3] == w.shape[0] and x.size > 0
            and w.size > 0 and (b is None or b.shape == w.shape[1:])
            and softmax_cross_entropy.supports(x[:, 0, 0], labels, label_smoothing=label_smoothing))


def forward(x, w, labels, b=None, *, label_smoothing=0.0):
    cache = _rows(x, w, labels, b, label_smoothing)
    return _losses.mean(cache[-1], x, len(x)), cache


def backward(dy, cache, needs=None):
    return backward_into(dy, cache, needs, (None,) * 4)


def backward_into(dy, cache, needs, into):
    if hasattr(dy, "shape"):  # of x's type
        dy = dy.astype(cache[1].dtype, copy=False)
    return _gradients(dy, cache, needs or (True,) * 4, into, None)


def step(x, w, labels, b, dy, into, *, label_smoothing=0.0):
    """(loss, logits, dx, dw, db) of a training step, where the gradients are dy times the loss's.

    dy is a number, or an array () of the type that sums are kept in, as are loss and logits. dw and db go to the places
    `into`, if these are not None.
    """
    cache = _rows(x, w, labels, b, label_smoothing)
    *_, logits, _, losses = cache
    loss = empty(losses, ())
    dx, dw, _, db = _gradients(dy, cache, (True, True, False, True), (None, into[0], None, into[1]), loss)
    return loss, logits, dx, dw, db


def _rows(x, w, labels, b, label_smoothing):
    """What is known of each image after the way there, in the last places the logits, softmax and the losses."""
    x, w, b, labels = *map(contiguous, (x, w, b)), contiguous(labels.astype("int64", copy=False))
    n, height, width, channels = x.shape
    means, losses = empty(w, (n, channels)), empty(w, (n,))
    logits, p = empty(w, (n, w.shape[1])), empty(w, (n, w.shape[1]))
    _ROWS(blocks(n), x, w, b, labels, label_smoothing, means, logits, p, losses, n, height * width, *w.shape)
    return x, w, labels, b is not None, label_smoothing, means, logits, p, losses


def _gradients(dy, cache, needs, into, loss):
    x, w, labels, with_b, label_smoothing, means, _, p, losses = cache
    needs_x, needs_w, _, needs_b = needs
    n, height, width, channels = x.shape
    dx = empty(x) if needs_x else None
    dw = (empty(w) if into[1] is None else into[1]) if needs_w else None
    db = (empty(w, w.shape[1:]) if into[3] is None else into[3]) if needs_b and with_b else None
    if dx is None and dw is None and db is None:
        return (None,) * 4
    images = n * -(-units(channels, x.dtype) // WARP) if needs_x else 0
    grid = blocks(images + -(-(w.size + w.shape[1] + 1) // WARP))
    _GRADIENTS(grid, x, w, labels, label_smoothing, means, p, losses, *_losses.upstream(dy), dx, dw, db, loss, n,
               height * width, *w.shape)
    return dx, dw, None, db
