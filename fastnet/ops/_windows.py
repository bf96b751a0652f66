"""What convolution and pooling share: padding an image, and taking the padding off again."""

from fastnet import shapes
from fastnet.arrays import array_module


def padded(x, rows, columns, fill=0):
    """x (N, H, W, C) as the windows see it: with a border of `fill`, or cut where no window reaches."""
    xp = array_module(x)
    n, height, width, channels = x.shape
    shape = (n, height + rows.before + rows.after, width + columns.before + columns.after, channels)
    out = xp.full(shape, fill, dtype=x.dtype)
    inner = out[:, rows.before :, columns.before :]
    inner[:, :height, :width] = x[:, : inner.shape[1], : inner.shape[2]]
    return out


def unpadded(dx, shape, rows, columns):
    """The inverse for gradients: what falls on the border is dropped, what no window reached is zero."""
    xp = array_module(dx)
    out = xp.zeros(shape, dtype=dx.dtype)
    inner = dx[:, rows.before : rows.before + shape[1], columns.before : columns.before + shape[2]]
    out[:, : inner.shape[1], : inner.shape[2]] = inner
    return out


def added_up(dx, rows, columns, taps, part):
    """dx, zero so far, with part(number of the tap) added at every entry that the tap sees."""
    border = padded(dx, rows, columns)
    for number, (_, at) in enumerate(taps):
        border[at] += part(number)
    return unpadded(border, dx.shape, rows, columns)


def require_images(op, x):
    """Raise ValueError unless x is (N, H, W, C), N images (maybe none) of at least one pixel and channel."""
    if x.ndim != 4 or 0 in x.shape[1:]:
        raise ValueError(f"{op}: x is {tuple(x.shape)}, but images (N, H, W, C) are needed")


def pool_taps(op, x, window, stride, pad, ceil_mode):
    """(rows, columns, taps) of a pooling window: each tap is its (i, j) and the index of what it sees."""
    require_images(op, x)
    window, stride, pad = shapes.pool_options(op, window, stride, pad)
    rows, columns = shapes.windows(op, x.shape[1:3], window, stride, pad, ceil_mode=ceil_mode)
    taps = [((i, j), (slice(None), rows.slice(i, stride[0]), columns.slice(j, stride[1])))
            for i in range(window[0]) for j in range(window[1])]
    return rows, columns, taps
