"""Gather and standardize as in `fastnet.functions.standardize_batch`, but for one thing.

To look for an index that is no image would make the host wait for the device, so such a sample becomes NaN.
"""

import math

import numpy as np

from fastnet.arrays import accumulator, floating
from fastnet.kernels.cuda._arrays import contiguous, empty, on_device
from fastnet.kernels.cuda._launch import Kernel, storage

MOST_PIXELS = 1 << 30  # of an image; they are counted in 32 bits

_RUN = Kernel("standardize_batch", "standardize_batch_run")


def supports(images, indices, mean, scale, *, dtype="float32"):
    dtype = floating(dtype)
    return (on_device(images, indices, mean, scale) and images.ndim == 4 and images.dtype == np.uint8
            and images.size > 0 and math.prod(images.shape[1:]) < MOST_PIXELS and indices.ndim == 1
            and indices.size > 0 and indices.dtype.kind in "iu" and storage(dtype) is not None
            and mean.dtype == scale.dtype == accumulator(dtype) and mean.shape == scale.shape == images.shape[1:])


def run(images, indices, mean, scale, *, dtype="float32"):
    images, mean, scale = map(contiguous, (images, mean, scale))
    indices = contiguous(indices.astype("int64", copy=False))
    y = empty(images, (len(indices), *images.shape[1:]), dtype)
    _RUN(_RUN.grid_for(y.size), images, indices, mean, scale, y, len(y), *images.shape)
    return y
