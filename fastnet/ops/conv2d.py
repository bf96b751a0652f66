"""Two-dimensional convolution (cross-correlation) of images, channels last.

x (N, H, W, C), w (KH, KW, C/groups, K), b (K,) or None, y (N, OH, OW, K). With x padded by zeros, tap (i, j) of the
window sees the patch P_ij[n, p, q] = x[n, p stride + i dilation, q stride + j dilation], and

    y   = sum_ij P_ij w_ij + b               a matrix product over the channels for each tap
    dw_ij = sum_npq P_ij^T dy
    dP_ij = dy w_ij^T                        added up into dx where the patches lie
    db  = sum_npq dy

With groups the channels of x and of y fall into that many parts, each with weights of its own; groups = C is the
depthwise convolution. Sources: LeCun et al., "Gradient-based learning applied to document recognition", 1998; groups:
Krizhevsky, Sutskever & Hinton, 2012; dilation: Yu & Koltun, 2016.
"""

from fastnet import shapes
from fastnet.arrays import accumulator, array_module, require_float
from fastnet.ops._windows import padded, require_images, unpadded

ALGORITHMS = ("auto", "winograd", "direct")


def check(op, x, w, b, stride, pad, dilation, groups, conv_algorithm):
    """Raise ValueError or TypeError, in the name of `op`, for arguments that do not fit."""
    require_float(op, x=x, w=w, b=b)
    require_images(op, x)
    if w.ndim != 4 or w.size == 0:
        raise ValueError(f"{op}: w is {tuple(w.shape)}, but (KH, KW, C_in/groups, C_out) is needed")
    if not isinstance(groups, int) or groups < 1:
        raise ValueError(f"{op}: groups must be a whole number of at least 1 but is {groups!r}")
    channels, outputs = x.shape[3], w.shape[3]
    if channels % groups or outputs % groups:
        raise ValueError(f"{op}: {channels} channels in and {outputs} out cannot be divided into {groups} groups")
    if channels != w.shape[2] * groups:
        guess = ""
        if x.shape[1] == w.shape[2] * groups:
            guess = "; is x (N, C, H, W)? Channels come last here: x.transpose(0, 2, 3, 1)"
        raise ValueError(f"{op}: x has {channels} channels but w expects {w.shape[2] * groups} (w is "
                         f"{tuple(w.shape)}: KH, KW, C_in/groups, C_out; groups {groups}){guess}")
    if b is not None and b.shape != (outputs,):
        raise ValueError(f"{op}: b is {tuple(b.shape)} but w has {outputs} outputs")
    if conv_algorithm not in ALGORITHMS:
        raise ValueError(f"{op}: conv_algorithm must be one of {', '.join(ALGORITHMS)} but is {conv_algorithm!r}")
    _geometry(op, x, w, stride, pad, dilation)


def _geometry(op, x, w, stride, pad, dilation):
    stride = shapes.pair(op, "stride", stride, 1)
    dilation = shapes.pair(op, "dilation", dilation, 1)
    pad = shapes.pair(op, "pad", pad, 0)
    rows, columns = shapes.windows(op, x.shape[1:3], w.shape[:2], stride, pad, dilation)
    taps = [(i, j, (slice(None), rows.slice(i, stride[0], dilation[0]), columns.slice(j, stride[1], dilation[1])))
            for i in range(w.shape[0]) for j in range(w.shape[1])]
    return rows, columns, taps


def _grouped(a, groups):
    """(..., C) as (groups, M, C/groups)."""
    return a.reshape(-1, groups, a.shape[-1] // groups).swapaxes(0, 1)


def _tap(w, groups):
    """w_ij (C/groups, K) as (groups, C/groups, K/groups)."""
    return w.reshape(w.shape[0], groups, -1).swapaxes(0, 1)


def forward(x, w, b=None, *, stride=1, pad=0, dilation=1, groups=1, conv_algorithm="auto"):
    """Return y (N, OH, OW, K), OH = (H + 2 pad - dilation (KH - 1) - 1) // stride + 1.

    stride, pad and dilation are numbers or (height, width). `conv_algorithm` is advice to kernels, which sum in the
    order that it says: "direct"; "winograd" where that is defined, direct elsewhere; or "auto", the faster.
    Raises ValueError where the shapes do not fit.
    """
    check("conv2d", x, w, b, stride, pad, dilation, groups, conv_algorithm)
    rows, columns, taps = _geometry("conv2d", x, w, stride, pad, dilation)
    precise = accumulator(x.dtype)
    border = padded(x.astype(precise, copy=False), rows, columns)
    y = sum(_grouped(border[at], groups) @ _tap(w[i, j].astype(precise, copy=False), groups) for i, j, at in taps)
    y = y.swapaxes(0, 1).reshape(x.shape[0], rows.places, columns.places, w.shape[3])
    if b is not None:
        y = y + b
    return y.astype(x.dtype, copy=False), (x, w, b, stride, pad, dilation, groups)


def backward(dy, cache, needs=None):
    x, w, b, stride, pad, dilation, groups = cache
    needs_x, needs_w, needs_b = needs or (True, True, True)
    rows, columns, taps = _geometry("conv2d", x, w, stride, pad, dilation)
    xp = array_module(x)
    precise = accumulator(x.dtype)
    border = padded(x.astype(precise, copy=False), rows, columns)
    dy = dy.astype(precise, copy=False)
    grouped = _grouped(dy, groups)
    dborder, dw = xp.zeros_like(border), xp.zeros(w.shape, dtype=precise)
    for i, j, at in taps:
        if needs_w:
            product = _grouped(border[at], groups).swapaxes(1, 2) @ grouped
            dw[i, j] = product.swapaxes(0, 1).reshape(w.shape[2:])
        if needs_x:
            patch = grouped @ _tap(w[i, j].astype(precise, copy=False), groups).swapaxes(1, 2)
            dborder[at] += patch.swapaxes(0, 1).reshape(border[at].shape)
    return (unpadded(dborder, x.shape, rows, columns).astype(x.dtype, copy=False) if needs_x else None,
            dw.astype(w.dtype, copy=False) if needs_w else None,
            dy.sum(axis=(0, 1, 2)).astype(b.dtype, copy=False) if needs_b and b is not None else None)
