"""Gather, augment and standardize as in `fastnet.functions.augment_batch`, with the bits of the reference, but for one
thing: see `standardize_batch`. Sample ids are taken as the 32-bit words that the counter holds."""

import math

import numpy as np

from fastnet.arrays import accumulator, floating
from fastnet.functions.augment_batch import last_resort, problem
from fastnet.functions.philox import split_key
from fastnet.kernels.cuda._arrays import contiguous, empty, on_device
from fastnet.kernels.cuda._launch import Kernel, blocks, storage

MOST_PIXELS = 1 << 30  # of an image; they are counted in 32 bits

_CROP, _RESIZE = Kernel("augment_batch", "augment_batch_crop"), Kernel("augment_batch", "augment_batch_resize")


def supports(images, indices, samples, mean, scale, *, key, dtype="float32", **options):
    dtype = floating(dtype)
    return (on_device(images, indices, samples, mean, scale) and images.ndim == 4 and images.dtype == np.uint8
            and images.size > 0 and math.prod(images.shape[1:]) < MOST_PIXELS
            and indices.ndim == 1 and indices.size > 0 and samples.shape == indices.shape
            and indices.dtype.kind in "iu" and samples.dtype.kind in "iu"
            and storage(dtype) is not None and mean.dtype == scale.dtype == accumulator(dtype)
            and mean.shape == scale.shape == images.shape[1:]
            and len(key) == 2 and 0 <= key[0] < 2**64 and 0 <= key[1] < 2**32
            and not problem(images.shape[1:3], **options))


def run(images, indices, samples, mean, scale, *, key, pad=0, horizontal_flip=False, vertical_flip=False,
        resized_crop=None, cutout=0, dtype="float32"):
    images, mean, scale = map(contiguous, (images, mean, scale))
    indices, samples = (contiguous(a.astype("int64", copy=False)) for a in (indices, samples))
    y = empty(images, (len(indices), *images.shape[1:]), dtype)
    kernel, cut = _CROP, (pad,)
    if resized_crop:
        kernel, cut = _RESIZE, (*resized_crop, *last_resort(*images.shape[1:3]))
    kernel(blocks(len(y)), images, indices, samples, mean, scale, y, len(y), *images.shape, key[1], *split_key(key[0]),
           horizontal_flip, vertical_flip, cutout, *cut)
    return y
