"""The first convolution on augmented images as in `fastnet.ops.augment_conv2d`; the uint8 data set is read on load.

| kernels | where |
|---|---|
| tensor cores | 16-bit numbers, windows of at most 32 entries (3x3 of 3 channels), outputs in multiples of 8 |
| plain multiply-adds | everything else: sums in the order of `conv2d`'s, and so its bits |

A block has a band of an image in shared memory, each pixel standardized once and rounded to the type of y. An index
that is no image makes its sample NaN; sample ids and the epoch are taken as the 32-bit words that Philox counts in.
"""

import math
from typing import Any, NamedTuple

import numpy as np

from fastnet.arrays import accumulator, array_module, floating
from fastnet.functions.philox import split_key
from fastnet.kernels.cuda import _conv_plain, augment_batch, conv2d
from fastnet.kernels.cuda._arrays import aligned, contiguous, empty, on_device
from fastnet.kernels.cuda._launch import Kernel, blocks, storage
from fastnet.kernels.cuda._parts import in_parts

CUT = 4  # numbers of a sample that bands.cuh reads
DEPTH, WIDE, OUTPUTS = 32, 64, 8  # of the tensor cores: entries of a window; outputs of a tile, and what divides them
SLABS = 16 << 10  # bytes of shared memory for outputs on their way; twice that for dy
FORWARD_PIXELS, DW_PIXELS = 256, 1024  # of y that a band has, about
MOST_SHARED = 96 << 10  # bytes that a block may have on every card that has the instructions
DW_BLOCKS = 256  # about
TRANSFORMS = ("pad", "horizontal_flip", "vertical_flip")

_CUTS = Kernel("augment_conv2d", "augment_conv2d_cuts")
_PLAIN, _TENSOR = ({name: Kernel(stem, f"{stem}_{name}") for name in ("forward", "dw")}
                   for stem in ("augment_conv2d", "augment_conv2d_tensor"))


class _Cache(NamedTuple):
    source: tuple  # images, cuts, mean, scale
    w: Any
    with_b: bool
    g: tuple  # the kernels' last parameters, from the number of images on
    batch: Any  # () -> x where mean is 0 and scale 1, for the gradients of those two


def supports(images, indices, samples, epoch, mean, scale, w, b=None, *, seed, augmentation=None, stride=1, pad=0,
             dilation=1, groups=1, conv_algorithm="auto", dtype=None):
    augmentation, dtype = dict(augmentation or {}), w.dtype if dtype is None else floating(dtype)
    if not (set(augmentation) <= set(TRANSFORMS) and augment_batch.supports(images, indices, samples, mean, scale,
                                                                            key=(seed, 0), dtype=dtype, **augmentation)
            and on_device(epoch, w, b) and epoch.dtype.kind in "iu" and epoch.shape == (1,) and len(images) < 2**31
            and groups == 1 and conv_algorithm in ("auto", "winograd", "direct")):
        return False
    wide = accumulator(dtype)
    if not (w.ndim == 4 and w.size and w.dtype == wide and images.shape[3] == w.shape[2]
            and (b is None or (b.dtype == wide and b.shape == w.shape[3:]))):
        return False
    shape = (len(indices), *images.shape[1:])
    try:
        g = conv2d.geometry(shape, w.shape, stride, pad, dilation, groups)
    except (TypeError, ValueError):
        return False
    return (max(math.prod(shape[:3]), math.prod((shape[0], *g[4:6])), w.size) < conv2d.MOST_PIXELS
            and _shared(g, 1, dtype) + 2 * SLABS <= MOST_SHARED)


def forward(images, indices, samples, epoch, mean, scale, w, b=None, *, seed, augmentation=None, stride=1, pad=0,
            dilation=1, groups=1, conv_algorithm="auto", dtype=None):
    augmentation, dtype = dict(augmentation or {}), w.dtype if dtype is None else floating(dtype)
    images, mean, scale, w, b = map(contiguous, (images, mean, scale, w, b))
    indices, samples, epoch = (contiguous(a.astype("int64", copy=False)) for a in (indices, samples, epoch))
    n = len(indices)
    g = conv2d.geometry((n, *images.shape[1:]), w.shape, stride, pad, dilation, groups)
    cuts = empty(w, (n, CUT), "int32")
    _CUTS(_CUTS.grid_for(n), indices, samples, epoch, cuts, n, len(images), *split_key(seed),
          *(augmentation.get(name, 0) for name in TRANSFORMS))
    source, y = (images, cuts, mean, scale), empty(w, (n, *g[4:7]), dtype)
    tensor = _on_tensor_cores(dtype, g)
    band, count = _bands(g, FORWARD_PIXELS, dtype)
    (_TENSOR if tensor else _PLAIN)["forward"](
        blocks(count * (-(-g[6] // WIDE) if tensor else 1)), *source, w, b, y, len(images), band, *g,
        shared=_shared(g, band, dtype) + tensor * SLABS)

    def centred():
        ones = array_module(scale).ones_like(scale)
        return augment_batch.run(images, indices, samples, mean, ones, key=(seed, int(epoch[0])), dtype=mean.dtype,
                                 **augmentation)

    return y, _Cache(source, w, b is not None, g, centred)


def backward(dy, cache, needs=None):
    return backward_into(dy, cache, needs, (None,) * 8)


def backward_into(dy, cache, needs, into):
    *_, dw_into, db_into = into
    *_, needs_mean, needs_scale, needs_w, needs_b = needs or (True,) * 8
    dy, w, (*_, scale) = contiguous(dy), cache.w, cache.source
    dmean = dscale = dw = db = None
    if needs_mean or needs_scale:  # which nothing trains: arrays of the batch's size, one operation after the other
        dx = _conv_plain.dx(dy, w, cache.g).astype(w.dtype, copy=False)
        dmean = -(dx * scale).sum(axis=0) if needs_mean else None
        dscale = (dx * cache.batch()).sum(axis=0) if needs_scale else None
    if needs_w:
        dw = _dw(dy, cache, empty(w) if dw_into is None else dw_into)
    if needs_b and cache.with_b:
        db = conv2d.bias_gradient(dy, empty(w, w.shape[3:]) if db_into is None else db_into)
    return None, None, None, None, dmean, dscale, dw, db


def _dw(dy, cache, into):
    g, tensor = cache.g, _on_tensor_cores(dy.dtype, cache.g)
    kernel, dy = (_TENSOR["dw"], aligned(dy)) if tensor else (_PLAIN["dw"], dy)
    band, count = _bands(g, DW_PIXELS, dy.dtype)
    return in_parts(
        lambda grid, parts, chunk: kernel(grid, *cache.source, dy, parts, chunk, len(cache.source[0]), band, *g,
                                          shared=_shared(g, band, dy.dtype) + tensor * 2 * SLABS),
        dy, into, count, -(-g[6] // WIDE) if tensor else 1, DW_BLOCKS, unit=1)


def _on_tensor_cores(dtype, g):
    return storage(dtype) in ("half", "bf16") and g[7] * g[8] * g[3] <= DEPTH and g[6] % OUTPUTS == 0


def _bands(g, pixels, dtype):
    """(rows of y in a band, bands of the batch): so many pixels of y, about, that shared memory holds what they see."""
    band = max(1, min(g[4], pixels // g[5]))
    while band > 1 and _shared(g, band, dtype) + 2 * SLABS > MOST_SHARED:
        band //= 2
    return band, g[0] * -(-g[4] // band)


def _shared(g, band, dtype):
    """Bytes of the pixels that a band's windows see."""
    _, _, width, channels, _, _, _, kernel_h, _, stride_h, _, _, pad_w, dilation_h, *_ = g
    rows = (band - 1) * stride_h + (kernel_h - 1) * dilation_h + 1
    return rows * (width + 2 * pad_w) * channels * np.dtype(dtype).itemsize
