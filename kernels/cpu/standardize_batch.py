"""Gather and standardize as in `fastnet.functions.standardize_batch`, one pass over the bytes."""

import numpy as np
from numba import prange

from fastnet.arrays import empty
from fastnet.kernels.cpu._jit import is_float, parallel_kernel


def supports(images, indices, mean, scale, *, dtype="float32"):
    return (images.ndim == 4 and images.dtype == np.uint8 and images.flags.c_contiguous
            and indices.ndim == 1 and indices.dtype.kind in "iu"
            and is_float(mean, scale) and mean.dtype == np.dtype(dtype)
            and mean.shape == scale.shape == images.shape[1:]
            and mean.flags.c_contiguous and scale.flags.c_contiguous
            and (len(indices) == 0 or (indices.min() >= 0 and indices.max() < len(images))))


def run(images, indices, mean, scale, *, dtype="float32"):
    y = empty((len(indices), *images.shape[1:]), mean.dtype)
    _run.sized(y.size)(images.reshape(len(images), mean.size), np.ascontiguousarray(indices, np.int64),
                       mean.reshape(-1), scale.reshape(-1), y.reshape(len(y), mean.size))
    return y


@parallel_kernel()
def _run(images, indices, mean, scale, y):
    as_float = y.dtype.type
    for b in prange(indices.size):
        image, row = images[indices[b]], y[b]
        for j in range(mean.size):
            row[j] = (as_float(image[j]) - mean[j]) * scale[j]
