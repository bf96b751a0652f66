"""The first convolution of a network, on images that are augmented and standardized on the way in.

images (M, H, W, C) uint8, indices (N,) and samples (N,) integers, epoch (1,) integers, mean and scale (H, W, C), w (KH,
KW, C/groups, K), b (K,) or None, y (N, OH, OW, K):

    x_n = (cut_n - mean) * scale          cut_n: what `augment_batch` cuts out of images[indices_n], and how it flips it
    y   = conv2d(x, w, b)

dw and db are the convolution's. With dx as it would be,

    dmean  = -sum_n dx_n * scale
    dscale = sum_n dx_n * (cut_n - mean)

x is rounded to the type of y before the convolution sees it, and no implementation but this one has to store it. The
epoch, which keys the random numbers together with `seed`, comes as an array, so that a recorded step can be replayed in
every epoch. Sources: `fastnet.functions.augment_batch` and `fastnet.ops.conv2d`.
"""

from fastnet.arrays import array_module, floating
from fastnet.functions import augment_batch
from fastnet.ops import conv2d

TRANSFORMS = ("pad", "horizontal_flip", "vertical_flip")  # what `augmentation` may have of augment_batch's options


def check(images, indices, samples, epoch, mean, scale, seed, augmentation):
    """Raise ValueError or TypeError for arguments of the augmentation that do not fit."""
    if unknown := [name for name in augmentation if name not in TRANSFORMS]:
        raise ValueError(f"augment_conv2d: augmentation may have {', '.join(TRANSFORMS)}, but not "
                         f"{', '.join(map(repr, unknown))}")
    array_module(epoch)
    if epoch.dtype.kind not in "iu" or epoch.shape != (1,):
        raise ValueError(f"augment_conv2d: epoch is {epoch.dtype}{tuple(epoch.shape)}, but one integer (1,) is needed")
    augment_batch.check("augment_conv2d", images, indices, samples, mean, scale, key=(seed, int(epoch[0])),
                        **augmentation)


def forward(images, indices, samples, epoch, mean, scale, w, b=None, *, seed, augmentation=None, stride=1, pad=0,
            dilation=1, groups=1, conv_algorithm="auto", dtype=None):
    """Return y of type `dtype`, or of w's where that is None.

    `augmentation` has what is wanted of augment_batch's options pad, horizontal_flip and vertical_flip; `pad` itself
    and what follows it are conv2d's. Raises what those two raise.
    """
    augmentation = dict(augmentation or {})
    check(images, indices, samples, epoch, mean, scale, seed, augmentation)
    options = {"stride": stride, "pad": pad, "dilation": dilation, "groups": groups, "conv_algorithm": conv_algorithm}

    def standardized(scale, dtype):
        return augment_batch.run(images, indices, samples, mean, scale, key=(seed, int(epoch[0])), dtype=dtype,
                                 **augmentation)

    x = standardized(scale, w.dtype if dtype is None else floating(dtype))
    conv2d.check("augment_conv2d", x, w, b, *options.values())
    y, cache = conv2d.forward(x, w, b, **options)
    return y, (cache, scale, standardized)


def backward(dy, cache, needs=None):
    convolution, scale, standardized = cache
    *_, needs_mean, needs_scale, needs_w, needs_b = needs or (True,) * 8
    dx, dw, db = conv2d.backward(dy, convolution, (needs_mean or needs_scale, needs_w, needs_b))
    if dx is not None:
        dx = dx.astype(scale.dtype, copy=False)
    dmean = -(dx * scale).sum(axis=0) if needs_mean else None
    ones = array_module(scale).ones_like(scale)
    dscale = (dx * standardized(ones, scale.dtype)).sum(axis=0) if needs_scale else None
    return None, None, None, None, dmean, dscale, dw, db
