"""Blocks of images turned until the images lie innermost, one to a lane of the vectors, and back."""

from fastnet.kernels.cpu._jit import kernel
from fastnet.kernels.cpu._simd import BYTES, transpose_block, zero_entries


@kernel(inline="always")
def turn(x, first, count, height, width, before, columns, channels, turned):
    """`count` images of x (N, H, W, C) as (H, columns, C, lanes), from column `before` on; zeros elsewhere."""
    lanes = BYTES // x.itemsize
    if columns > width or count < lanes:
        zero_entries(turned, 0, turned.size)
    image = height * width * channels
    rows, length = (height, width * channels) if columns > width else (1, image)
    for row in range(rows):
        start, to = first * image + row * length, (row * columns + before) * channels * lanes
        if count == lanes and length >= lanes:
            for block in range((length + lanes - 1) // lanes):
                entry = min(block * lanes, length - lanes)  # the last block goes over some entries twice
                transpose_block(x, start + entry, image, turned, to + entry * lanes, lanes)
        else:
            for entry in range(length):
                for n in range(count):
                    turned[to + entry * lanes + n] = x[start + n * image + entry]


@kernel(inline="always")
def turn_back(line, before, channels, y, first, count, height, width, kept, p):
    """Row p of `count` images of y (N, H, W, kept) from `line` (columns, channels, lanes), from column `before` on."""
    lanes = BYTES // y.itemsize
    image = height * width * kept
    pieces, length = (1, width * kept) if channels == kept else (width, kept)
    for piece in range(pieces):
        start, at = first * image + (p * width + piece) * kept, (before + piece) * channels * lanes
        if count == lanes and length >= lanes:
            for block in range((length + lanes - 1) // lanes):
                entry = min(block * lanes, length - lanes)
                transpose_block(line, at + entry * lanes, lanes, y, start + entry, image)
        else:
            for entry in range(length):
                for n in range(count):
                    y[start + n * image + entry] = line[at + entry * lanes + n]
