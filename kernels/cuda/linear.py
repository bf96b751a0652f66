"""Linear layer as in `fastnet.ops.linear`, in plain multiply-adds; parameters are of the type sums are kept in."""

from fastnet.kernels.cuda._arrays import contiguous, empty, supported
from fastnet.kernels.cuda._launch import Kernel, blocks

TILE, COLUMNS = 64, 32  # what a block computes, in linear.cu: a square of a product, columns of db

_FORWARD, _DX, _DW, _DB = (Kernel("linear", f"linear_{name}") for name in ("forward", "dx", "dw", "db"))


def supports(x, w, b=None):
    return (supported(x, w, b) and x.ndim == w.ndim == 2 and x.shape[1] == w.shape[0] and x.size > 0 and w.size > 0
            and (b is None or b.shape == w.shape[1:]))


def forward(x, w, b=None):
    return applied(_FORWARD, x, w, b)


def applied(kernel, x, w, b):
    """What `kernel(x, w, b, y, ...)` makes of the product, and the cache of `backward`."""
    x, w, b = map(contiguous, (x, w, b))
    n, features, outputs = *x.shape, w.shape[1]
    y = empty(x, (n, outputs))
    kernel(_tiles(n, outputs), x, w, b, y, n, features, outputs)
    return y, (x, w, b is not None)


def backward(dy, cache, needs=None):
    return backward_into(dy, cache, needs, (None, None, None))


def backward_into(dy, cache, needs, into):
    x, w, with_b = cache
    _, dw_into, db_into = into
    needs_x, needs_w, needs_b = needs or (True, True, True)
    dy = contiguous(dy)
    n, features, outputs = *x.shape, w.shape[1]
    dx = dw = db = None
    if needs_x:
        dx = empty(x)
        _DX(_tiles(n, features), dy, w, dx, n, features, outputs)
    if needs_w:
        dw = empty(w) if dw_into is None else dw_into
        _DW(_tiles(features, outputs), x, dy, dw, n, features, outputs)
    if needs_b and with_b:
        db = empty(w, (outputs,)) if db_into is None else db_into
        _DB(blocks(outputs, COLUMNS), dy, db, n, outputs)
    return dx, dw, db


def _tiles(rows, columns):
    return blocks(-(-rows // TILE) * -(-columns // TILE))
