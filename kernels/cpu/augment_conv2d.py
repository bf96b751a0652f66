"""The first convolution on augmented images as in `fastnet.ops.augment_conv2d`: `augment_batch`, then `conv2d`.

In main memory a batch that lies in the cache costs nothing to read again, so that there is nothing to fuse.
"""

import numpy as np

from fastnet.arrays import contiguous
from fastnet.kernels.cpu import augment_batch, conv2d

TRANSFORMS = {"pad", "horizontal_flip", "vertical_flip"}


def supports(images, indices, samples, epoch, mean, scale, w, b=None, *, seed, augmentation=None, stride=1, pad=0,
             dilation=1, groups=1, conv_algorithm="auto", dtype=None):
    augmentation = dict(augmentation or {})
    if not (epoch.dtype.kind in "iu" and epoch.shape == (1,) and set(augmentation) <= TRANSFORMS and len(indices)
            and mean.dtype == w.dtype
            and augment_batch.supports(images, indices, samples, mean, scale, key=(seed, int(epoch[0])),
                                       dtype=w.dtype if dtype is None else dtype, **augmentation)):
        return False
    x = np.broadcast_to(np.zeros((), w.dtype), (len(indices), *images.shape[1:]))  # whose shape is looked at
    return conv2d.supports(x, w, b, stride=stride, pad=pad, dilation=dilation, groups=groups,
                           conv_algorithm=conv_algorithm)


def forward(images, indices, samples, epoch, mean, scale, w, b=None, *, seed, augmentation=None, stride=1, pad=0,
            dilation=1, groups=1, conv_algorithm="auto", dtype=None):
    images, mean, scale = map(contiguous, (images, mean, scale))

    def standardized(scale):
        return augment_batch.run(images, indices, samples, mean, scale, key=(seed, int(epoch[0])), dtype=mean.dtype,
                                 **(augmentation or {}))

    y, cache = conv2d.forward(standardized(scale), w, b, stride=stride, pad=pad, dilation=dilation, groups=groups,
                              conv_algorithm=conv_algorithm)
    return y, (cache, scale, standardized)


def backward(dy, cache, needs=None):
    convolution, scale, standardized = cache
    *_, needs_mean, needs_scale, needs_w, needs_b = needs or (True,) * 8
    dx, dw, db = conv2d.backward(dy, convolution, (needs_mean or needs_scale, needs_w, needs_b))
    dmean = -(dx * scale).sum(axis=0) if needs_mean else None
    dscale = (dx * standardized(np.ones_like(scale))).sum(axis=0) if needs_scale else None
    return None, None, None, None, dmean, dscale, dw, db
