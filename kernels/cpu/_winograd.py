"""Winograd's convolutions: 3x3 with stride 1 by 36 products a tile of 4x4 outputs, where direct sums take 144.

F(4x4, 3x3). A tile sees 6x6 inputs d. With g the filter, for each pair of channels,

    y  = A^T [ sum over C of (G g G^T) * (B^T d B) ] A          the products, point by point, are 36 matrix products
    dg = G^T [ sum over tiles of (B^T d B) * (A dy A^T) ] G
    dx = the same convolution of dy with g rotated by 180 degrees and its channels swapped

With stride 2, by 81 products. The input falls into four phases, its pixels in odd or even rows and columns; each is
convolved with every second tap, which are 2 or 1 in each direction, with stride 1. That is F(4x4, 2x2) of four times
the channels, with the same equations: 25 points. Where a phase has one tap in a direction, its product at infinity is
zero, which leaves 25 + 20 + 20 + 16. The gradient dx has four phases likewise, each a convolution of dy.

A block of tiles goes through transform, products and inverse transform in one go, in buffers that stay in a core's
cache: nothing of 36/16 of the images' size is ever in memory. Blocks and sums are fixed by the shape, so the bits do
not depend on the number of threads.

It rounds more than a direct sum: in float32 by some 1e-5 of the largest value, in float64 by 1e-14; a tenth of that
with stride 2.

Sources: Winograd, "Arithmetic complexity of computations", 1980; Lavin & Gray, "Fast algorithms for convolutional
neural networks", 2016, section 4.3.
"""

import numba
import numpy as np

from fastnet.arrays import contiguous, empty, given, zeros
from fastnet.kernels.cpu import _winograd_blocks as compiled
from fastnet.kernels.cpu._blocks import in_turn, run_in_order
from fastnet.kernels.cpu._geometry import Images
from fastnet.kernels.cpu._products import ROWS
from fastnet.kernels.cpu._vector import LANES
from fastnet.kernels.cpu._winograd_blocks import Plan, units
from fastnet.kernels.cpu._winograd_filters import filter_gradient, filters, transposed
from fastnet.kernels.cpu._winograd_transforms import Tiling

LEAST_TILES = 16  # for each step of the stride; with fewer, transforming the filters costs more than the products save
CACHED = 1 << 18  # entries of the transformed tiles of a block: 1 MB in float32, in a core's second-level cache
FILTERS = 1 << 20  # entries of transformed filters that a core can keep beside them
WHOLE = 1 << 22  # entries, 16 MB in float32: of the transformed tiles where the threads share out the points instead;
                 # of all sums of dw where they do not
CHUNKS = 16  # at most so many sums of dw side by side: so many threads can work at it


def applies(w_shape, g):
    """Whether the algorithm is defined: 3x3 taps next to each other, at every or every second place, one group."""
    return (tuple(w_shape[:2]) == (3, 3) and g.groups == 1 and g.stride_h == g.stride_w in (1, 2)
            and g.dilation_h == g.dilation_w == 1)


def pays(x_shape, w_shape, g):
    """Whether it is likely to be faster than direct sums."""
    return (applies(w_shape, g)
            and x_shape[0] * -(-g.out_h // 4) * -(-g.out_w // 4) >= g.stride_h * LEAST_TILES)


def forward(x, w, b, g):
    x, w, features = _whole_vectors(x, 1), _whole_vectors(w, 2), w.shape[3]
    bias = zeros(w.shape[3], x.dtype)
    if b is not None:
        bias[:features] = b
    u = filters(w, _side(g), g.stride_h**2, 1, False)
    y = _convolved(x, u, bias, (len(x), g.out_h, g.out_w, w.shape[3]), _side(g), _tiling(g), g.stride_h**2, 1)
    return y if y.shape[3] == features else contiguous(y[..., :features])


def dx(dy, w, x_shape, g):
    dy, w = _whole_vectors(dy, 1), transposed(_whole_vectors(w, 2))
    phases = g.stride_h**2
    u = filters(w, _side(g), 1, phases, True)
    shape = *x_shape[:3], w.shape[3]
    dx = _convolved(dy, u, zeros(w.shape[3], dy.dtype), shape, _side(g), _tiling_of_dx(x_shape, g), 1, phases)
    return dx if dx.shape[3] == x_shape[3] else contiguous(dx[..., : x_shape[3]])


def dw(x, dy, w_shape, g, into=None):
    x, dy = _whole_vectors(x, 1), _whole_vectors(dy, 1)
    channels, features, phases, side = x.shape[3], dy.shape[3], g.stride_h**2, _side(g)
    size = side**2 * phases * channels * features
    plan = _plan(dy.shape, channels, _tiling(g), side, phases, 1, 2 * CACHED)
    chunks = min(CHUNKS, WHOLE // size, plan.tiles // plan.block)
    if chunks > 1:
        chunks = 1 << (chunks.bit_length() - 1)  # a power of two, which threads can share evenly
        row = -(-plan.tiles // (chunks * plan.block))
        plan = plan._replace(block=-(-plan.tiles // (chunks * row)), row=row)
    else:
        plan = _plan(dy.shape, channels, _tiling(g), side, phases, 1, WHOLE)
        plan = plan._replace(own=0, row=_blocks(plan))
    sums = empty((-(-_blocks(plan) // plan.row), side**2, phases, channels, features), x.dtype)
    transforms, _, rows = units(plan, LANES[x.dtype])
    _run([(compiled.transform_inputs, (side, 0), transforms), (compiled.transform_gradients, (side, 0), transforms),
          (compiled.sum_products, (0, 0), rows)], x, sums, dy, None, _tiling(g), plan)
    if (channels, features) == tuple(w_shape[2:]):
        return filter_gradient(sums, side, into)
    gradient = given(into, tuple(w_shape), x.dtype)
    gradient[...] = filter_gradient(sums, side)[:, :, : w_shape[2], : w_shape[3]]
    return gradient


def _side(g):
    """Points a side of a transformed tile."""
    return 6 if g.stride_h == 1 else 5


def _tiling(g):
    """Of the forward pass: with stride 2, phase 0 holds the pixels that the outer taps see."""
    return Tiling(-(-g.out_h // 4), -(-g.out_w // 4), g.stride_h, -g.pad_h, -g.pad_w, 1, 0, 0)


def _tiling_of_dx(x_shape, g):
    """Of the convolution of dy whose result is dx.

    With stride 2, row p of y sees rows 2 p - pad (by tap 0) to 2 p - pad + 2. So from row q = (pad - 1) // 2 of dy on,
    rows q and q + 1 make up row 2 q + 2 - pad of dx, which is 0 or 1, and q alone the one before.
    """
    if g.stride_h == 1:
        return Tiling(-(-x_shape[1] // 4), -(-x_shape[2] // 4), 1, g.pad_h - 2, g.pad_w - 2, 1, 0, 0)
    (top, out_top), (left, out_left) = ((start, 2 * start + 2 - pad) for pad, start in
                                        ((pad, (pad - 1) // 2) for pad in (g.pad_h, g.pad_w)))
    # Those alone end a row earlier, at an odd or even length.
    return Tiling(-(-(x_shape[1] + 1 - out_top) // 8), -(-(x_shape[2] + 1 - out_left) // 8), 1, top, left,
                  2, out_top, out_left)


def _convolved(x, u, bias, shape, side, tiling, in_phases, out_phases):
    """y of this shape from x and transformed filters; channels fill vectors."""
    y = empty(shape, x.dtype)
    plan = _plan(shape, x.shape[3], tiling, side, in_phases, out_phases, CACHED)
    if u.size <= FILTERS and _blocks(plan) > 1:
        plan = _evened(plan)
    else:
        plan = _plan(shape, x.shape[3], tiling, side, in_phases, out_phases, WHOLE)._replace(own=0)
    transforms, panels, _ = units(plan, LANES[x.dtype])
    _run([(compiled.transform_inputs, (side, 0), transforms), (compiled.products, (0, 0), panels),
          (compiled.transform_outputs, (side, 0), transforms)], x, u, y, bias, tiling, plan)
    return y


def _plan(shape, channels, tiling, side, in_phases, out_phases, entries):
    """The plan for y of this shape, and blocks of about so many entries of transformed tiles."""
    n, out_h, out_w, features = shape
    count = n * tiling.down * tiling.across
    block = min(count, max(ROWS, entries // (side**2 * (in_phases * channels + out_phases * features))))
    plan = Plan(out_h, out_w, channels, features, in_phases, out_phases, side, count, 0, 0, 0, 1)
    return _cut(plan, -(-block // ROWS) * ROWS)


def _evened(plan):
    """The plan with blocks that threads can share evenly: with few of them, a power of two."""
    blocks = _blocks(plan)
    if blocks >= CHUNKS:
        return plan
    block = -(-plan.tiles // (1 << (blocks - 1).bit_length()))
    return _cut(plan, -(-block // ROWS) * ROWS)


def _cut(plan, block):
    """The plan with blocks of so many tiles, and buffers for one of them."""
    return plan._replace(block=block, v_step=block * plan.in_phases * plan.channels + 16,
                         m_step=block * plan.out_phases * plan.features + 16)


def _blocks(plan):
    """How many blocks the tiles fall into."""
    return -(-plan.tiles // plan.block)


def _run(stages, x, u, y, bias, tiling, plan):
    """Run the stages: each thread all of them on its own blocks, or all threads one after another on each block."""
    threads = numba.get_num_threads() if plan.own else 1
    v, m = (empty((threads, plan.side**2 * step), x.dtype) for step in (plan.v_step, plan.m_step))
    arrays, images = (x, v, u, m, y, bias), Images(*x.shape[:3])
    work = plan.tiles * plan.in_phases * plan.channels * plan.out_phases * plan.features
    if plan.own:
        in_turn(stages, _blocks(plan), plan.row, work, arrays, (images, tiling, plan))
        return
    for block in range(_blocks(plan)):
        run_in_order(stages, work, arrays, (images, tiling, plan._replace(first=block)))


def _whole_vectors(x, axes):
    """x with zeros behind its last axes up to a multiple of a vector's entries: x itself where that is nothing."""
    missing = [(0, 0)] * (x.ndim - axes) + [(0, -size % LANES[x.dtype]) for size in x.shape[-axes:]]
    return np.pad(x, missing) if any(after for _, after in missing) else x
