"""One image at a time in a private array between its padding, for loops that then need no look at the edges."""

import numpy as np

from fastnet.kernels.cpu._jit import kernel
from fastnet.kernels.cpu._simd import copy_entries, zero_entries


@kernel(inline="always")
def blank(rows, columns, channels, beyond, like):
    """(rows, columns, channels) zeros, flat, and as many after them as a tile may read `beyond` the end."""
    image = np.empty(rows * columns * channels + beyond, like.dtype)
    zero_entries(image, 0, image.size)
    return image


@kernel(inline="always")
def place(x, n, height, width, channels, pad_h, pad_w, columns, image):
    """Put image n of x (N, H, W, C) into its place in `image`."""
    length = width * channels
    for h in range(height):
        copy_entries(x, (n * height + h) * length, image, ((pad_h + h) * columns + pad_w) * channels, length)
