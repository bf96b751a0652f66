"""Mean of each window, channel by channel.

x (N, H, W, C), y (N, OH, OW, C). Zeros that `pad` adds count as entries; what a window of ceil mode covers beyond them
does not (both as in PyTorch, count_include_pad=True). With n_pq the entries that count,

    y_pq = 1/n_pq sum over taps (i, j) of x[p stride + i, q stride + j]
    dx   = dy_pq / n_pq at every entry of window pq, added up where windows overlap

Source: LeCun et al., "Gradient-based learning applied to document recognition", 1998, section II.B.
"""

from fastnet.arrays import accumulator, array_module, require_float
from fastnet.ops._windows import added_up, padded, pool_taps


def _weights(x, rows, columns, taps):
    """1/n_pq as (OH, OW, 1): the reciprocal of how many entries of each window count."""
    xp = array_module(x)
    ones = xp.zeros((1, x.shape[1] + rows.before + rows.after, x.shape[2] + columns.before + columns.after, 1),
                    dtype=accumulator(x.dtype))
    ones[:, : x.shape[1] + 2 * rows.before, : x.shape[2] + 2 * columns.before] = 1
    return 1 / sum(ones[at] for _, at in taps)[0]


def forward(x, *, window, stride=None, pad=0, ceil_mode=False):
    """Return y (N, OH, OW, C). `stride` is the window's size unless given.

    Raises ValueError where no window fits, or for a pad above half the window (a window might see padding alone).
    """
    require_float("avg_pool2d", x=x)
    rows, columns, taps = pool_taps("avg_pool2d", x, window, stride, pad, ceil_mode)
    border = padded(x.astype(accumulator(x.dtype), copy=False), rows, columns)
    weights = _weights(x, rows, columns, taps)
    y = sum(border[at] for _, at in taps) * weights
    return y.astype(x.dtype, copy=False), (weights, x.shape, window, stride, pad, ceil_mode)


def backward(dy, cache, needs=None):
    if needs is not None and not needs[0]:
        return (None,)
    weights, shape, window, stride, pad, ceil_mode = cache
    xp = array_module(dy)
    dx = xp.zeros(shape, dtype=weights.dtype)
    rows, columns, taps = pool_taps("avg_pool2d", dx, window, stride, pad, ceil_mode)
    share = dy * weights
    return (added_up(dx, rows, columns, taps, lambda number: share).astype(dy.dtype, copy=False),)
