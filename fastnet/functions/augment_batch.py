"""Gather, augment and standardize uint8 images in one pass.

    y_b = cutout((flips(cut(images[indices_b])) - mean) * scale)

images (N, H, W, C) uint8; indices and samples (B,) integers; mean and scale (H, W, C); y (B, H, W, C). In this order:

cut              nothing, or one of two. `pad`: H x W pixels from the image with a border of `pad` black pixels on each
                 side (level 0, before standardization), at any of (2 pad + 1)^2 places alike. `resized_crop` = (lo,
                 hi): a rectangle inside the image with lo..hi of its area and an aspect ratio w/h of 3/4..4/3, drawn
                 uniformly in area and in log(w/h), and resized to H x W
horizontal_flip  left and right change places for half of the samples
vertical_flip    top and bottom do. Not for images whose class this changes (a 6 is then a 9)
cutout           a square of `cutout` pixels a side is set to 0 after standardization, which is the mean colour. Its
                 centre is any pixel of the image, so the square may leave it

Randomness is Philox stream AUGMENT, keyed by (seed, epoch) and the sample id. Every draw has a word of its own, so none
changes when another transform is switched on; a whole number below n is (word * n) >> 32, a fraction word / 2^32.

| word | what it draws |
|---|---|
| 0, 1 | row and column of the crop, below 2 pad + 1 |
| 2, 3 | horizontal and vertical flip: the top bit |
| 4, 5 | row and column of cutout's centre, below H and W (6 and 7 are not used) |
| 8 + 4k .. 11 + 4k | attempt k = 0..9 at a resized crop: area, aspect ratio, row and column of its corner |

The first attempt that fits into the image counts. Where none of the ten does, the largest centred rectangle with an
aspect ratio in 3/4..4/3 is taken: the whole image, if that is not longer.

Resizing is bilinear with half-pixel centres, from pixels of the rectangle alone and not rounded to whole levels. A
rectangle is never larger than the image, so there is nothing to smooth. Pixels are computed in mean's type, each
operation rounded in the order written here, and rectangles in float64 without a library's exponential: so every
implementation gives the same bits.

Sources: He et al., "Deep residual learning for image recognition", 2016, section 4.2 (crop, flip; torchvision's
RandomCrop(32, padding=4)). Szegedy et al., "Going deeper with convolutions", 2015, section 6, and torchvision's
RandomResizedCrop, whose ten attempts and last resort these are. DeVries & Taylor, "Improved regularization of
convolutional neural networks with cutout", 2017, section 3.2; their code makes an odd square one pixel smaller.
"""

import math

import numpy as np

from fastnet.arrays import array_module
from fastnet.functions import philox, standardize_batch

LOG_ASPECT = math.log(4 / 3)
ATTEMPTS = 10
FIRST_ATTEMPT = 8  # its first word
TERMS = 8  # of the exponential's series: for half of LOG_ASPECT the rest is below 1e-13


def problem(shape=None, *, pad=0, horizontal_flip=False, vertical_flip=False, resized_crop=None, cutout=0):
    """What is wrong with the options, for images of `shape` (H, W) where it is given; '' for nothing."""
    for name, value in (("horizontal_flip", horizontal_flip), ("vertical_flip", vertical_flip)):
        if type(value) is not bool:
            return f"{name} must be True or False but is {value!r}"
    for name, value in (("pad", pad), ("cutout", cutout)):
        if type(value) is not int or value < 0:
            return f"{name} must be a whole number of pixels, at least 0, but is {value!r}"
        if shape is not None and 0 < value >= min(shape):
            return f"{name} {value} could hide a whole image: below {min(shape)} is needed for {shape[0]} x {shape[1]}"
    if resized_crop is None:
        return ""
    numbers = type(resized_crop) is tuple and [type(part) in (int, float) for part in resized_crop] == [True, True]
    if not (numbers and 0 < resized_crop[0] <= resized_crop[1] <= 1):
        return (f"resized_crop must be (lo, hi), parts of the image's area with 0 < lo <= hi <= 1, but is "
                f"{resized_crop!r}")
    return "pad and resized_crop both say what is cut out of the image: give one" if pad else ""


def last_resort(height, width):
    """(height, width) of the rectangle taken where no attempt fits."""
    return min(height, round(width * 4 / 3)), min(width, round(height * 4 / 3))


def check(function, images, indices, samples, mean, scale, key, **options):
    """Raise what `run` raises for arguments that do not fit, in the name of `function`."""
    standardize_batch.check(function, images, indices, mean, scale)
    if samples.dtype.kind not in "iu":
        raise TypeError(f"{function}: samples are {samples.dtype}, but integers are needed")
    if samples.shape != indices.shape:
        raise ValueError(f"{function}: samples have shape {tuple(samples.shape)} but indices {tuple(indices.shape)}; "
                         f"one id a sample is needed")
    if len(key) != 2 or not (0 <= key[0] < 2**64 and 0 <= key[1] < 2**32):
        raise ValueError(f"{function}: key must be (seed, epoch) of 64 and 32 bits but is {key}")
    if wrong := problem(images.shape[1:3], **options):
        raise ValueError(f"{function}: {wrong}")


def run(images, indices, samples, mean, scale, *, key, pad=0, horizontal_flip=False, vertical_flip=False,
        resized_crop=None, cutout=0, dtype="float32"):
    """Return y of `dtype`. `samples` are sample ids, `key` is (seed, epoch).

    Raises what `standardize_batch` raises; TypeError for samples that are not integers; ValueError where they are not
    one for each index, for a key that is not two numbers of 64 and 32 bits, and for options that do not fit.
    """
    check("augment_batch", images, indices, samples, mean, scale, key, pad=pad, horizontal_flip=horizontal_flip,
          vertical_flip=vertical_flip, resized_crop=resized_crop, cutout=cutout)
    height, width = images.shape[1:3]
    xp = array_module(images)
    count = FIRST_ATTEMPT + 4 * ATTEMPTS if resized_crop else FIRST_ATTEMPT
    words = philox.run(samples, seed=key[0], stream=philox.AUGMENT, epoch=key[1], count=count)
    # Which row and column of what is cut out comes to row i and column j of the result.
    rows = _places(xp, height, words[:, 3] if vertical_flip else None, len(words))
    columns = _places(xp, width, words[:, 2] if horizontal_flip else None, len(words))
    if resized_crop:
        x = _resized(xp, images, indices, rows, columns, words[:, FIRST_ATTEMPT:], resized_crop, mean.dtype)
    else:
        rows = rows + (_below(2 * pad + 1, words[:, 0]) - pad)[:, None]
        columns = columns + (_below(2 * pad + 1, words[:, 1]) - pad)[:, None]
        inside = ((rows >= 0) & (rows < height))[:, :, None] & ((columns >= 0) & (columns < width))[:, None, :]
        x = _pixels(images, indices, xp.clip(rows, 0, height - 1), xp.clip(columns, 0, width - 1))
        x = xp.where(inside[..., None], x, xp.zeros_like(x)).astype(mean.dtype)
    y = (x - mean) * scale
    if cutout:
        hidden = (_hidden(xp, height, words[:, 4], cutout)[:, :, None]
                  & _hidden(xp, width, words[:, 5], cutout)[:, None, :])
        y = xp.where(hidden[..., None], xp.zeros_like(y), y)
    return y.astype(dtype, copy=False)


def _below(n, words):
    """A whole number in 0..n-1 for each word; `n` a number or a uint64 array."""
    return ((words.astype(np.uint64) * n) >> np.uint64(32)).astype(np.int64)


def _places(xp, size, words, batch):
    """(B, size): 0..size-1 upwards, or downwards where the word's top bit is set."""
    upwards = xp.broadcast_to(xp.arange(size)[None, :], (batch, size))
    return upwards if words is None else xp.where(words[:, None] >> 31 == 1, size - 1 - upwards, upwards)


def _pixels(images, indices, rows, columns):
    return images[indices[:, None, None], rows[:, :, None], columns[:, None, :]]


def _hidden(xp, size, words, side):
    """(B, size): whether cutout's square covers this row or column."""
    from_start = xp.arange(size)[None, :] - (_below(size, words) - side // 2)[:, None]
    return (from_start >= 0) & (from_start < side)


def _resized(xp, images, indices, rows, columns, words, scale, dtype):
    height, width = images.shape[1:3]
    top, left, tall, wide = _rectangles(xp, height, width, words, scale)
    row, below, down = _between(xp, rows, tall, height, dtype)
    column, right, along = _between(xp, columns, wide, width, dtype)
    row, below = row + top[:, None], below + top[:, None]
    column, right = column + left[:, None], right + left[:, None]
    down, along = down[:, :, None, None], along[:, None, :, None]
    a, b, c, d = (_pixels(images, indices, r, k).astype(dtype)
                  for r, k in ((row, column), (row, right), (below, column), (below, right)))
    first, last = a + (c - a) * down, b + (d - b) * down
    return first + (last - first) * along


def _rectangles(xp, height, width, words, scale):
    """Top, left, height and width (B,) of the rectangles; words (B, 4 ATTEMPTS)."""
    words = words.reshape(len(words), ATTEMPTS, 4)
    u = philox.uniform(words)
    side = xp.sqrt(height * width * (scale[0] + (scale[1] - scale[0]) * u[:, :, 0]))
    half = LOG_ASPECT * (u[:, :, 1] - 0.5)  # half the logarithm of the aspect ratio
    root = xp.ones_like(half)  # and the ratio's root: the exponential of that, by its series
    for k in range(TERMS, 0, -1):
        root = 1 + half * root / k
    tall, wide = (xp.rint(a).astype(np.int64) for a in (side / root, side * root))
    fits = (tall >= 1) & (tall <= height) & (wide >= 1) & (wide <= width)
    first = fits.argmax(axis=1)[:, None]
    found = fits.any(axis=1)
    tall, wide = (xp.take_along_axis(a, first, axis=1)[:, 0] for a in (tall, wide))
    row, column = (xp.take_along_axis(words[:, :, k], first, axis=1)[:, 0] for k in (2, 3))
    middle_tall, middle_wide = last_resort(height, width)
    tall, wide = xp.where(found, tall, middle_tall), xp.where(found, wide, middle_wide)
    top = xp.where(found, _below((height - tall + 1).astype(np.uint64), row), (height - middle_tall) // 2)
    left = xp.where(found, _below((width - wide + 1).astype(np.uint64), column), (width - middle_wide) // 2)
    return top, left, tall, wide


def _between(xp, places, length, size, dtype):
    """For places (B, size) of the result: the two pixels of `length` (B,) between which each lies, and how far on."""
    at = xp.maximum((places + 0.5) * (length / size)[:, None] - 0.5, 0)
    first = xp.floor(at).astype(np.int64)
    return first, xp.minimum(first + 1, (length - 1)[:, None]), (at - first).astype(dtype)
