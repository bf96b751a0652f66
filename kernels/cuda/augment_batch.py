"""Gather, augment and standardize as in `fastnet.functions.augment_batch`, but for one thing: see `standardize_batch`.

A block takes a sample: its first thread draws, and all of them gather. The order of operations is the reference's, and
so are the bits.
"""

import math

import numpy as np
from numba import cuda

from fastnet.functions.augment_batch import ATTEMPTS, FIRST_ATTEMPT, LOG_ASPECT, TERMS, last_resort, problem
from fastnet.functions.philox import AUGMENT, split_key
from fastnet.kernels.cuda import _numba, standardize_batch
from fastnet.kernels.cuda._numba import product
from fastnet.kernels.cuda._philox import philox

_HALF, _TOP_BIT = np.uint64(32), np.uint64(31)
_TO_FRACTION = 2.0**-32
# What the first thread draws: flips; top, left, height and width of what is cut out; top and left of what is hidden.
_MIRRORED, _TURNED, _TOP, _LEFT, _TALL, _WIDE, _HIDDEN_TOP, _HIDDEN_LEFT = range(8)


def supports(images, indices, samples, mean, scale, *, key, dtype="float32", **options):
    return (standardize_batch.supports(images, indices, mean, scale, dtype=dtype) and _numba.supported(samples)
            and samples.dtype.kind in "iu" and samples.shape == indices.shape
            and len(key) == 2 and 0 <= key[0] < 2**64 and 0 <= key[1] < 2**32
            and not problem(images.shape[1:3], **options))


def run(images, indices, samples, mean, scale, *, key, pad=0, horizontal_flip=False, vertical_flip=False,
        resized_crop=None, cutout=0, dtype="float32"):
    words = map(np.uint64, (key[1], *split_key(key[0])))
    kernel, cut = _crop, (pad,)
    if resized_crop:
        kernel, cut = _resize, (*map(float, resized_crop), *last_resort(*images.shape[1:3]))
    return standardize_batch.launch(kernel, images, (indices, samples), mean, scale, dtype, *words, horizontal_flip,
                                    vertical_flip, cutout, *cut)


@cuda.jit(device=True)
def _below(n, word):
    return np.int64((word * np.uint64(n)) >> _HALF)


@cuda.jit(device=True)
def _draw(drawn, height, width, sample, epoch, key0, key1, horizontal, vertical, cutout):
    """Flips and cutout into `drawn`; returns the words for the row and column of a crop."""
    row, column, mirror, turn = philox(0, sample, epoch, AUGMENT, key0, key1)
    drawn[_MIRRORED] = horizontal and mirror >> _TOP_BIT == 1
    drawn[_TURNED] = vertical and turn >> _TOP_BIT == 1
    if cutout:
        hidden_row, hidden_column, _, _ = philox(1, sample, epoch, AUGMENT, key0, key1)
        drawn[_HIDDEN_TOP] = _below(height, hidden_row) - cutout // 2
        drawn[_HIDDEN_LEFT] = _below(width, hidden_column) - cutout // 2
    return row, column


@cuda.jit(device=True)
def _hidden(i, j, drawn, cutout):
    return cutout > 0 and 0 <= i - drawn[_HIDDEN_TOP] < cutout and 0 <= j - drawn[_HIDDEN_LEFT] < cutout


@cuda.jit
def _crop(images, indices, samples, mean, scale, y, epoch, key0, key1, horizontal, vertical, cutout, pad):
    as_float = y.dtype.type
    drawn = cuda.shared.array(8, np.int64)
    batch, height, width, channels = y.shape
    for b in range(cuda.blockIdx.x, batch, cuda.gridDim.x):
        if cuda.threadIdx.x == 0 and cuda.threadIdx.y == 0:
            row, column = _draw(drawn, height, width, samples[b], epoch, key0, key1, horizontal, vertical, cutout)
            drawn[_TOP], drawn[_LEFT] = _below(2 * pad + 1, row) - pad, _below(2 * pad + 1, column) - pad
        cuda.syncthreads()
        known = 0 <= indices[b] < len(images)
        for k in range(cuda.threadIdx.x, width * channels, cuda.blockDim.x):
            j, c = k // channels, k % channels
            column_from = (width - 1 - j if drawn[_MIRRORED] else j) + drawn[_LEFT]
            for i in range(cuda.threadIdx.y, height, cuda.blockDim.y):
                row_from = (height - 1 - i if drawn[_TURNED] else i) + drawn[_TOP]
                level = as_float(0) if known else as_float(np.nan)
                if known and 0 <= row_from < height and 0 <= column_from < width:
                    level = as_float(images[indices[b], row_from, column_from, c])
                standardized = (level - mean[i, j, c]) * scale[i, j, c]
                y[b, i, j, c] = as_float(0) if _hidden(i, j, drawn, cutout) else standardized
        cuda.syncthreads()


@cuda.jit
def _resize(images, indices, samples, mean, scale, y, epoch, key0, key1, horizontal, vertical, cutout, lo, hi, tall,
            wide):
    as_float = y.dtype.type
    drawn = cuda.shared.array(8, np.int64)
    batch, height, width, channels = y.shape
    for b in range(cuda.blockIdx.x, batch, cuda.gridDim.x):
        if cuda.threadIdx.x == 0 and cuda.threadIdx.y == 0:
            _draw(drawn, height, width, samples[b], epoch, key0, key1, horizontal, vertical, cutout)
            _rectangle(drawn, height, width, samples[b], epoch, key0, key1, lo, hi, tall, wide)
        cuda.syncthreads()
        known = 0 <= indices[b] < len(images)
        top, left = drawn[_TOP], drawn[_LEFT]
        for k in range(cuda.threadIdx.x, width * channels, cuda.blockDim.x):
            j, c = k // channels, k % channels
            near, right, fraction = _between(width - 1 - j if drawn[_MIRRORED] else j, drawn[_WIDE], width)
            along = as_float(fraction)
            for i in range(cuda.threadIdx.y, height, cuda.blockDim.y):
                above, below, fraction = _between(height - 1 - i if drawn[_TURNED] else i, drawn[_TALL], height)
                level = as_float(np.nan)
                if known:
                    image = images[indices[b]]
                    down = as_float(fraction)
                    first = _blend(as_float(image[top + above, left + near, c]),
                                   as_float(image[top + below, left + near, c]), down)
                    last = _blend(as_float(image[top + above, left + right, c]),
                                  as_float(image[top + below, left + right, c]), down)
                    level = _blend(first, last, along)
                standardized = (level - mean[i, j, c]) * scale[i, j, c]
                y[b, i, j, c] = as_float(0) if _hidden(i, j, drawn, cutout) else standardized
        cuda.syncthreads()


@cuda.jit(device=True)
def _blend(a, b, part):
    return a + product(b - a, part)


@cuda.jit(device=True)
def _rectangle(drawn, height, width, sample, epoch, key0, key1, lo, hi, tall, wide):
    """Top, left, height and width into `drawn`; (tall, wide) in the middle where no attempt fits."""
    drawn[_TOP], drawn[_LEFT] = (height - tall) // 2, (width - wide) // 2
    drawn[_TALL], drawn[_WIDE] = tall, wide
    for k in range(ATTEMPTS):
        area, ratio, row, column = philox(FIRST_ATTEMPT // 4 + k, sample, epoch, AUGMENT, key0, key1)
        part = lo + product(hi - lo, np.float64(area) * _TO_FRACTION)
        side = math.sqrt(height * width * part)
        half = LOG_ASPECT * (product(np.float64(ratio), _TO_FRACTION) - 0.5)
        root = 1.0
        for term in range(TERMS, 0, -1):
            root = 1 + product(half, root) / term
        h, w = round(side / root), round(side * root)
        if 1 <= h <= height and 1 <= w <= width:
            drawn[_TOP], drawn[_LEFT] = _below(height - h + 1, row), _below(width - w + 1, column)
            drawn[_TALL], drawn[_WIDE] = h, w
            break


@cuda.jit(device=True)
def _between(place, length, size):
    """The two pixels of `length` between which this place of the result lies, and how far on."""
    at = max(product(place + 0.5, length / size) - 0.5, 0.0)
    first = np.int64(at)
    return first, min(first + 1, length - 1), at - first
