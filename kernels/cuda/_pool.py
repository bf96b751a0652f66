"""What the pooling launchers share: where the windows stand, as the kernels' last arguments have it."""

import functools
from typing import NamedTuple

from fastnet import shapes
from fastnet.kernels.cuda._arrays import supported
from fastnet.kernels.cuda._channels import units


class Geometry(NamedTuple):
    """The images, the window and its steps, the padding before the image, and the places of windows."""

    images: int
    height: int
    width: int
    channels: int
    window_h: int
    window_w: int
    stride_h: int
    stride_w: int
    pad_h: int
    pad_w: int
    out_h: int
    out_w: int

    @property
    def taps(self):
        return self.window_h * self.window_w

    @property
    def shape(self):
        """Of what goes in."""
        return self[:4]

    @property
    def out_shape(self):
        return self.images, self.out_h, self.out_w, self.channels


def geometry(op, shape, window, stride, pad, ceil_mode):
    """The geometry of pooling images of `shape` (N, H, W, C).

    Raises ValueError or TypeError for options that the reference refuses.
    """
    window, stride, pad = shapes.pool_options(op, window, stride, pad)
    return _geometry(op, tuple(shape), window, stride, pad, ceil_mode)


@functools.lru_cache(maxsize=1024)
def _geometry(op, shape, window, stride, pad, ceil_mode):
    rows, columns = shapes.windows(op, shape[1:3], window, stride, pad, ceil_mode=ceil_mode)
    return Geometry(*shape, *window, *stride, *pad, rows.places, columns.places)


def supports(op, x, window, stride, pad, ceil_mode):
    if not supported(x) or x.ndim != 4 or x.size == 0:
        return False
    try:
        geometry(op, x.shape, window, stride, pad, ceil_mode)
    except (TypeError, ValueError):
        return False
    return True


def grid(kernel, shape, dtype):
    """How many blocks for the places and channels of `shape`."""
    images, height, width, channels = shape
    return kernel.grid_for(images * height * width * units(channels, dtype))
