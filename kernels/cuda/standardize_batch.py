"""Gather and standardize as in `fastnet.functions.standardize_batch`, but for one thing.

To look for an index that is no image would make the host wait for the device, so such a sample becomes NaN.
"""

import numpy as np
from numba import cuda

from fastnet.kernels.cuda import _numba
from fastnet.kernels.cuda._arrays import contiguous, empty
from fastnet.kernels.cuda._launch import blocks

THREADS = (32, 8)  # of a block, which takes a sample: neighbours along a row of the image, and rows


def supports(images, indices, mean, scale, *, dtype="float32"):
    return (_numba.supported(images, indices, mean, scale) and images.ndim == 4 and images.dtype == np.uint8
            and images.size > 0 and indices.ndim == 1 and indices.size > 0 and indices.dtype.kind in "iu"
            and mean.dtype in _numba.FLOATS and mean.dtype == scale.dtype
            and mean.shape == scale.shape == images.shape[1:])


def run(images, indices, mean, scale, *, dtype="float32"):
    images, mean, scale = map(contiguous, (images, mean, scale))
    indices = contiguous(indices.astype("int64", copy=False))
    y = empty(mean, (len(indices), *mean.shape))
    _numba.launch(_run, blocks(len(y)), THREADS, images, indices, mean, scale, y)
    return y.astype(dtype, copy=False)


@cuda.jit
def _run(images, indices, mean, scale, y):
    as_float = y.dtype.type
    batch, height, width, channels = y.shape
    for b in range(cuda.blockIdx.x, batch, cuda.gridDim.x):
        known = 0 <= indices[b] < len(images)
        for k in range(cuda.threadIdx.x, width * channels, cuda.blockDim.x):
            j, c = k // channels, k % channels
            for i in range(cuda.threadIdx.y, height, cuda.blockDim.y):
                level = as_float(images[indices[b], i, j, c]) if known else as_float(np.nan)
                y[b, i, j, c] = (level - mean[i, j, c]) * scale[i, j, c]
