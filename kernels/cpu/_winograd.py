"""Winograd's F(4x4, 3x3): a 3x3 convolution with stride 1 by 36 products a tile of 4x4 outputs; direct sums take 144.

A tile sees 6x6 inputs d. With g the filter, for each pair of channels,

    y  = A^T [ sum over C of (G g G^T) * (B^T d B) ] A          the products, point by point, are 36 matrix products
    dg = G^T [ sum over tiles of (B^T d B) * (A dy A^T) ] G
    dx = the same convolution of dy with g rotated by 180 degrees and its channels swapped

The points are 0, +-1, +-2 and infinity. A block of tiles goes through transform, products and inverse transform in one
go, in buffers that stay in a core's cache: nothing of 36/16 of the images' size is ever in memory. Blocks and sums are
fixed by the shape, so the bits do not depend on the number of threads.

It rounds more than a direct sum: in float32 by some 1e-5 of the largest value, in float64 by 1e-14.

Sources: Winograd, "Arithmetic complexity of computations", 1980; Lavin & Gray, "Fast algorithms for convolutional
neural networks", 2016, section 4.3.
"""

import numba
import numpy as np
from numba import prange

from fastnet.arrays import empty
from fastnet.kernels.cpu._gemm import NORMAL, SCALARS, TRANSPOSED, address, gemm
from fastnet.kernels.cpu._jit import parallel_kernel
from fastnet.kernels.cpu._vector import LANES
from fastnet.kernels.cpu._winograd_transforms import (
    POINTS,
    filter_gradient,
    filters,
    inputs,
    output_gradients,
    outputs,
)

BLOCK = 32  # tiles a block forward: 36 x 32 x (64 + 64) float32 fill 590 kB of a core's cache
BLOCK_DW = 64  # and for dw, where the tiles are what is summed
CHUNKS = 16  # sums of dw side by side: so many threads can work at it
SUMS = 1 << 22  # entries of these sums together, 16 MB in float32
WHOLE = 1 << 22  # entries of the transformed tiles where the threads share out the points instead


def applies(w_shape, g):
    """Whether the algorithm is defined: 3x3 taps next to each other, at every place, all channels together."""
    return (tuple(w_shape[:2]) == (3, 3) and g.groups == 1 and g.stride_h == g.stride_w == 1
            and g.dilation_h == g.dilation_w == 1)


def forward(x, w, b, g):
    return _convolved(x, w, b, g.out_h, g.out_w, g.pad_h, g.pad_w, False)


def dx(dy, w, x_shape, g):
    return _convolved(dy, w, None, x_shape[1], x_shape[2], 2 - g.pad_h, 2 - g.pad_w, True)


def dw(x, dy, w_shape, g):
    c, k = w_shape[2:]
    x, dy = _whole_vectors(x), _whole_vectors(dy)
    channels, features = x.shape[3], dy.shape[3]
    tiles = len(x) * _tiles(g.out_h) * _tiles(g.out_w)
    work = tiles * channels * features
    gradient = empty((3, 3, channels, features), x.dtype)
    chunks = min(CHUNKS, SUMS // (POINTS * channels * features), tiles // BLOCK_DW)
    if chunks > 1:
        chunks = 1 << (chunks.bit_length() - 1)  # a power of two, which threads can share evenly
        sums = empty((chunks, POINTS, channels, features), x.dtype)
        scratch = empty((numba.get_num_threads(), POINTS * (_spread(BLOCK_DW, channels) + _spread(BLOCK_DW, features))),
                        x.dtype)
        _dw_by_tiles.sized(work)(x, dy, g.out_h, g.out_w, g.pad_h, g.pad_w, scratch, sums, SCALARS[x.dtype])
    else:
        sums = empty((1, POINTS, channels, features), x.dtype)
        block = min(tiles, max(BLOCK_DW, WHOLE // (POINTS * (channels + features))))
        scratch = empty(POINTS * (_spread(block, channels) + _spread(block, features)), x.dtype)
        _dw_by_points.sized(work)(x, dy, g.out_h, g.out_w, g.pad_h, g.pad_w, block, scratch, sums, SCALARS[x.dtype])
    filter_gradient.sized(gradient.size * len(sums))(sums, gradient)
    return gradient if (channels, features) == (c, k) else np.ascontiguousarray(gradient[:, :, :c, :k])


def _convolved(x, w, b, out_h, out_w, pad_h, pad_w, backward):
    """The convolution of x (N, H, W, C) with w, or with w rotated and transposed."""
    features = w.shape[2] if backward else w.shape[3]
    x = _whole_vectors(x)
    w = _whole_vectors(_whole_vectors(w).swapaxes(2, 3)).swapaxes(2, 3)
    u = empty((POINTS, *w.shape[2:]), x.dtype)
    filters.sized(u.size)(np.ascontiguousarray(w), backward, u)
    width = u.shape[1] if backward else u.shape[2]
    y = empty((len(x), out_h, out_w, width), x.dtype)
    bias = np.zeros(width, x.dtype)
    if b is not None:
        bias[:features] = b
    tiles = len(x) * _tiles(out_h) * _tiles(out_w)
    scratch = empty((numba.get_num_threads(), POINTS * (_spread(BLOCK, x.shape[3]) + _spread(BLOCK, width)) + width),
                    x.dtype)
    _forward.sized(tiles * u.size // POINTS)(x, u, backward, bias, pad_h, pad_w, scratch, y, SCALARS[x.dtype])
    return y if width == features else np.ascontiguousarray(y[..., :features])


def _whole_vectors(x):
    """x with zeros behind its channels up to a multiple of a vector's entries: x itself where that is nothing."""
    missing = -x.shape[-1] % LANES[x.dtype]
    return np.pad(x, [(0, 0)] * (x.ndim - 1) + [(0, missing)]) if missing else x


def _tiles(length):
    return -(-length // 4)


def _spread(tiles, channels):
    """Entries from one point to the next: a cache line more than it takes, or all points' lines would share a set."""
    return tiles * channels + 16


@parallel_kernel()
def _forward(x, u, backward, bias, pad_h, pad_w, scratch, y, scalars):
    channels, width = x.shape[3], y.shape[3]
    tiles = y.shape[0] * ((y.shape[1] + 3) // 4) * ((y.shape[2] + 3) // 4)
    v_step, m_step = BLOCK * channels + 16, BLOCK * width + 16
    zeros = np.zeros(channels, x.dtype)
    for block in prange((tiles + BLOCK - 1) // BLOCK):
        own = scratch[numba.get_thread_id()]
        v, m, rest = own[: POINTS * v_step], own[POINTS * v_step : -width], own[-width:]
        first = block * BLOCK
        count = min(BLOCK, tiles - first)
        inputs(x, zeros, y.shape[1], y.shape[2], pad_h, pad_w, first, count, v, v_step)
        for point in range(POINTS):
            gemm(NORMAL, TRANSPOSED if backward else NORMAL, count, width, channels, address(v, point * v_step),
                 channels, address(u, point * channels * width), channels if backward else width, False,
                 address(m, point * m_step), width, scalars)
        outputs(m, m_step, bias, rest, first, count, y)


@parallel_kernel()
def _dw_by_tiles(x, dy, out_h, out_w, pad_h, pad_w, scratch, sums, scalars):
    """Each chunk of the tiles has a sum of its own, which stays in a core's cache."""
    channels, features = x.shape[3], dy.shape[3]
    tiles = x.shape[0] * ((out_h + 3) // 4) * ((out_w + 3) // 4)
    chunks = sums.shape[0]
    v_step, s_step = BLOCK_DW * channels + 16, BLOCK_DW * features + 16
    zeros = np.zeros(max(channels, features), x.dtype)
    for chunk in prange(chunks):
        own = scratch[numba.get_thread_id()]
        v, s = own[: POINTS * v_step], own[POINTS * v_step :]
        start, stop = tiles * chunk // chunks, tiles * (chunk + 1) // chunks
        for first in range(start, stop, BLOCK_DW):
            count = min(BLOCK_DW, stop - first)
            inputs(x, zeros, out_h, out_w, pad_h, pad_w, first, count, v, v_step)
            output_gradients(dy, zeros, first, count, s, s_step)
            for point in range(POINTS):
                gemm(TRANSPOSED, NORMAL, channels, features, count, address(v, point * v_step), channels,
                     address(s, point * s_step), features, first > start,
                     address(sums, (chunk * POINTS + point) * channels * features), features, scalars)


@parallel_kernel()
def _dw_by_points(x, dy, out_h, out_w, pad_h, pad_w, block, scratch, sums, scalars):
    """One sum, too large for a core's cache: the tiles are transformed first, then each thread takes its points."""
    channels, features = x.shape[3], dy.shape[3]
    tiles = x.shape[0] * ((out_h + 3) // 4) * ((out_w + 3) // 4)
    v_step, s_step = block * channels + 16, block * features + 16
    v, s = scratch[: POINTS * v_step], scratch[POINTS * v_step :]
    zeros = np.zeros(max(channels, features), x.dtype)
    for first in range(0, tiles, block):
        count = min(block, tiles - first)
        for part in prange((count + 7) // 8):
            begin = 8 * part
            some = min(8, count - begin)
            inputs(x, zeros, out_h, out_w, pad_h, pad_w, first + begin, some, v[begin * channels :], v_step)
            output_gradients(dy, zeros, first + begin, some, s[begin * features :], s_step)
        for point in prange(POINTS):
            gemm(TRANSPOSED, NORMAL, channels, features, count, address(v, point * v_step), channels,
                 address(s, point * s_step), features, first > 0, address(sums, point * channels * features), features,
                 scalars)
