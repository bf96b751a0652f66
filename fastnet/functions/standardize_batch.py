"""Gather uint8 images and standardize them in one pass.

    y_b = (images[indices_b] - mean) * scale

images (N, H, W, C) uint8, indices (B,) integers, mean and scale (H, W, C), y (B, H, W, C). The difference and the
product are each rounded once to mean's type, so every implementation gives the same bits.
"""

import numpy as np

from fastnet.arrays import array_module, require_float


def check(function, images, indices, mean, scale):
    """Raise what `run` raises for arguments that do not fit, in the name of `function`."""
    require_float(function, mean=mean, scale=scale)
    if images.dtype != np.uint8:
        raise TypeError(f"{function}: images are {images.dtype}, but uint8 is needed")
    if indices.dtype.kind not in "iu":
        raise TypeError(f"{function}: indices are {indices.dtype}, but integers are needed")
    if mean.dtype != scale.dtype:
        raise TypeError(f"{function}: mean is {mean.dtype} but scale is {scale.dtype}")
    if images.ndim != 4 or indices.ndim != 1 or not mean.shape == scale.shape == images.shape[1:]:
        raise ValueError(f"{function}: images {tuple(images.shape)}, indices {tuple(indices.shape)}, mean "
                         f"{tuple(mean.shape)} and scale {tuple(scale.shape)} do not fit; needed are (N, H, W, C), "
                         f"(B,) and twice (H, W, C)")
    outside = (indices < 0) | (indices >= len(images))
    if bool(outside.any()):
        raise ValueError(f"{function}: index {int(indices[int(outside.argmax())])} is outside 0..{len(images) - 1}")


def run(images, indices, mean, scale, *, dtype="float32"):
    """Return y of `dtype`, computed in mean's type.

    Raises TypeError for images that are not uint8, indices that are not integers, and constants that are not floating
    or of two types; ValueError for shapes that do not fit and indices outside 0..N-1.
    """
    check("standardize_batch", images, indices, mean, scale)
    xp = array_module(images)
    y = (xp.take(images, indices, axis=0).astype(mean.dtype) - mean) * scale
    return y.astype(dtype, copy=False)
