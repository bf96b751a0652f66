"""Gather, augment and standardize as in `fastnet.functions.augment_batch`, a sample at a time while it is in the cache.

The order of operations is the reference's, and so are the bits.
"""

import numpy as np
from numba import prange

from fastnet.arrays import empty
from fastnet.functions.augment_batch import ATTEMPTS, FIRST_ATTEMPT, LOG_ASPECT, TERMS, last_resort, problem
from fastnet.functions.philox import AUGMENT, split_key
from fastnet.kernels.cpu import standardize_batch
from fastnet.kernels.cpu._jit import kernel, parallel_kernel
from fastnet.kernels.cpu._mirror import mirror_pixels
from fastnet.kernels.cpu._philox import philox
from fastnet.kernels.cpu._simd import copy_entries, zero_entries

IMAGES = 4  # a block
_HALF, _TOP_BIT = np.uint64(32), np.uint64(31)
_TO_FRACTION = 2.0**-32


def supports(images, indices, samples, mean, scale, *, key, dtype="float32", **options):
    return (standardize_batch.supports(images, indices, mean, scale, dtype=dtype)
            and samples.dtype.kind in "iu" and samples.shape == indices.shape
            and len(key) == 2 and 0 <= key[0] < 2**64 and 0 <= key[1] < 2**32
            and not problem(images.shape[1:3], **options))


def run(images, indices, samples, mean, scale, *, key, pad=0, horizontal_flip=False, vertical_flip=False,
        resized_crop=None, cutout=0, dtype="float32"):
    y = empty((len(indices), *images.shape[1:]), mean.dtype)
    indices, samples = (np.ascontiguousarray(a, np.int64) for a in (indices, samples))
    words = (key[1], *split_key(key[0]))
    mean, scale = mean.reshape(-1), scale.reshape(-1)
    given = (images, indices, samples, words, horizontal_flip, vertical_flip)
    if resized_crop:
        lo, hi = map(float, resized_crop)
        _resize.sized(8 * y.size)(*given, lo, hi, *last_resort(*y.shape[1:3]), mean, scale, cutout, y)
    else:
        _crop.sized(y.size)(*given, pad, mean, scale, cutout, y)
    return y


@kernel()
def _below(n, word):
    return np.int64((word * np.uint64(n)) >> _HALF)


@kernel()
def _flipped(wanted, word):
    return wanted and word >> _TOP_BIT == 1


@parallel_kernel()
def _crop(images, indices, samples, words, horizontal, vertical, pad, mean, scale, cutout, y):
    batch, height, width, channels = y.shape
    flat, row_size = images.reshape(-1), width * channels
    for block in prange((batch + IMAGES - 1) // IMAGES):
        levels = np.empty(height * row_size, np.uint8)
        for b in range(block * IMAGES, min(batch, (block + 1) * IMAGES)):
            row, column, side, turn = philox(0, samples[b], words[0], AUGMENT, words[1], words[2])
            mirrored, turned = _flipped(horizontal, side), _flipped(vertical, turn)
            down, along = _below(2 * pad + 1, row) - pad, _below(2 * pad + 1, column) - pad
            # Rows and columns of what is cut out that lie inside the image; the others stay black.
            top, bottom = max(0, -down), min(height, height - down)
            left, right = max(0, -along), min(width, width - along)
            if down or along:
                zero_entries(levels, 0, levels.size)
            place = (width - right if mirrored else left) * channels
            for i in range(top, bottom):
                start = ((indices[b] * height + i + down) * width + left + along) * channels
                to = (height - 1 - i if turned else i) * row_size + place
                if mirrored:
                    mirror_pixels(flat, start, right - left, channels, levels, to)
                else:
                    copy_entries(flat, start, levels, to, (right - left) * channels)
            _finish(levels, mean, scale, y[b], cutout, samples[b], words)


@parallel_kernel()
def _resize(images, indices, samples, words, horizontal, vertical, lo, hi, tall, wide, mean, scale, cutout, y):
    batch, height, width, channels = y.shape
    as_float = y.dtype.type
    for b in prange(batch):
        _, _, mirror, turn = philox(0, samples[b], words[0], AUGMENT, words[1], words[2])
        mirrored, turned = _flipped(horizontal, mirror), _flipped(vertical, turn)
        top, left, h, w = _rectangle(height, width, samples[b], words, lo, hi, tall, wide)
        blended = np.empty(w * channels, y.dtype)  # two rows of the rectangle
        columns, fractions = np.empty((width, 2), np.int64), np.empty(width, y.dtype)
        for j in range(width):
            first, second, fraction = _between(width - 1 - j if mirrored else j, w, width)
            columns[j, 0], columns[j, 1], fractions[j] = first * channels, second * channels, fraction
        for i in range(height):
            first, second, fraction = _between(height - 1 - i if turned else i, h, height)
            down = as_float(fraction)
            upper = images[indices[b], top + first, left : left + w].reshape(-1)
            lower = images[indices[b], top + second, left : left + w].reshape(-1)
            for k in range(blended.size):
                level = as_float(upper[k])
                blended[k] = level + (as_float(lower[k]) - level) * down
            for j in range(width):
                for c in range(channels):
                    level = blended[columns[j, 0] + c]
                    y[b, i, j, c] = level + (blended[columns[j, 1] + c] - level) * fractions[j]
        _finish(y[b].reshape(-1), mean, scale, y[b], cutout, samples[b], words)


@kernel()
def _finish(levels, mean, scale, y, cutout, sample, words):
    """Standardize one image's levels (H W C,) into y (H, W, C), and hide cutout's square. Both may be one memory."""
    as_float = y.dtype.type
    to = y.reshape(-1)
    for k in range(to.size):
        to[k] = (as_float(levels[k]) - mean[k]) * scale[k]
    if cutout:
        height, width, _ = y.shape
        row, column, _, _ = philox(1, sample, words[0], AUGMENT, words[1], words[2])
        top, left = _below(height, row) - cutout // 2, _below(width, column) - cutout // 2
        y[max(0, top) : max(0, top + cutout), max(0, left) : max(0, left + cutout)] = 0


@kernel()
def _rectangle(height, width, sample, words, lo, hi, tall, wide):
    """Top, left, height and width; (tall, wide) where no attempt fits."""
    for k in range(ATTEMPTS):
        area, ratio, row, column = philox(FIRST_ATTEMPT // 4 + k, sample, words[0], AUGMENT, words[1], words[2])
        side = np.sqrt(height * width * (lo + (hi - lo) * (np.float64(area) * _TO_FRACTION)))
        half = LOG_ASPECT * (np.float64(ratio) * _TO_FRACTION - 0.5)
        root = 1.0
        for term in range(TERMS, 0, -1):
            root = 1 + half * root / term
        h, w = np.int64(np.rint(side / root)), np.int64(np.rint(side * root))
        if 1 <= h <= height and 1 <= w <= width:
            return _below(height - h + 1, row), _below(width - w + 1, column), h, w
    return (height - tall) // 2, (width - wide) // 2, tall, wide


@kernel()
def _between(place, length, size):
    at = max((place + 0.5) * (length / size) - 0.5, 0.0)
    first = np.int64(at)
    return first, min(first + 1, length - 1), at - first
