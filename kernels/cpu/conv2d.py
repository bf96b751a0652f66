"""Convolution as in `fastnet.ops.conv2d`, by the algorithm that suits the shape.

| algorithm | where | file |
|---|---|---|
| winograd | 3x3, stride 1 or 2, channels enough to fill vectors | `_winograd` |
| depthwise | as many groups as channels | `_depthwise` |
| small_maps | half the taps or more fall outside (2x2 maps of VGG) | `_small_maps` |
| narrow | few channels in (LeNet's convolutions, stems) | `_narrow` |
| few_places | single images on smaller maps, outputs that fill vectors | `_few_places` |
| im2col | everything else; 1x1 with stride 1 needs no gathering | `_im2col` |

`conv_algorithm="winograd"` takes Winograd's wherever it is defined, `"direct"` never.
"""

from fastnet.arrays import contiguous
from fastnet.kernels.cpu import _depthwise, _few_places, _im2col, _narrow, _small_maps, _winograd
from fastnet.kernels.cpu._geometry import geometry
from fastnet.kernels.cpu._jit import is_float
from fastnet.kernels.cpu._rows import column_sums, rows

LEAST_CHANNELS = 16  # a vector of float32; with fewer the transforms cost more than the products they save


def supports(x, w, b=None, *, stride=1, pad=0, dilation=1, groups=1, conv_algorithm="auto"):
    if not (x.ndim == w.ndim == 4 and x.size and w.size and is_float(x, w) and (b is None or b.dtype == x.dtype)):
        return False
    try:
        geometry(x, w, stride, pad, dilation, groups)
    except (TypeError, ValueError):
        return False
    return (isinstance(groups, int) and groups > 0 and x.shape[3] == w.shape[2] * groups and w.shape[3] % groups == 0
            and (b is None or b.shape == w.shape[3:]) and conv_algorithm in ("auto", "winograd", "direct"))


def algorithm(x, w, b=None, *, stride=1, pad=0, dilation=1, groups=1, conv_algorithm="auto"):
    """The name of the algorithm that this call takes."""
    chosen = _chosen(x.shape, w.shape, geometry(x, w, stride, pad, dilation, groups), conv_algorithm)
    return chosen.__name__.rpartition("._")[2]


def forward(x, w, b=None, *, stride=1, pad=0, dilation=1, groups=1, conv_algorithm="auto"):
    x, w = contiguous(x), contiguous(w)
    g = geometry(x, w, stride, pad, dilation, groups)
    chosen = _chosen(x.shape, w.shape, g, conv_algorithm)
    y = chosen.forward(x, w, None if b is None else contiguous(b), g)
    return y, (x, w, b is not None, g, chosen)


def backward(dy, cache, needs=None):
    return backward_into(dy, cache, needs, (None, None, None))


def backward_into(dy, cache, needs, into):
    x, w, has_bias, g, chosen = cache
    needs_x, needs_w, needs_b = needs or (True, True, True)
    dy = contiguous(dy)
    # First dw: its scratch is large, and dx is not yet there.
    dw = chosen.dw(x, dy, w.shape, g, into[1]) if needs_w else None
    return (chosen.dx(dy, w, x.shape, g) if needs_x else None, dw,
            column_sums(rows(dy), into[2]) if needs_b and has_bias else None)


def _chosen(x_shape, w_shape, g, conv_algorithm):
    if g.groups > 1 and g.groups == x_shape[3]:
        return _depthwise
    if conv_algorithm == "winograd" and _winograd.applies(w_shape, g):
        return _winograd
    if w_shape[2] >= LEAST_CHANNELS and _small_maps.takes(x_shape, w_shape, g):
        return _small_maps
    if conv_algorithm == "auto" and min(w_shape[2:]) >= LEAST_CHANNELS and _winograd.pays(x_shape, w_shape, g):
        return _winograd
    if _narrow.takes(x_shape, w_shape, g):
        return _narrow
    return _few_places if _few_places.takes(x_shape, w_shape, g) else _im2col
