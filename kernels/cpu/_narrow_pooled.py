"""Convolution of few channels with ReLU and max pooling behind it, of windows that do not overlap.

Forward, `_narrow` makes a few rows of a block's outputs, images innermost, and of each window only the largest entry
leaves the first cache. What has won is a byte an entry, (blocks, PH, PW, K, lanes): which tap, or their number where
ReLU let nothing through.

Backward, of each window's outputs one has a gradient, or none. So dw takes but a product for each of these and each
entry of its window, a quarter of those of `_narrow_dw`: for each image and output the windows that have a gradient are
listed, and where the winner's window of x starts. dx has a different winner in each lane: there dy is put in its place
among zeros, a block at a time.

Sums of dw and db are kept for blocks of IMAGES images and added in order: the same bits for any number of threads.
"""

import math
from typing import NamedTuple

import numpy as np
from numba import carray

from fastnet.arrays import empty, given, zeros
from fastnet.kernels.cpu import _narrow
from fastnet.kernels.cpu._blocks import block_kernel
from fastnet.kernels.cpu._border import blank, place
from fastnet.kernels.cpu._channels import (
    add,
    larger,
    load_numbers,
    number_where_positive,
    numbered,
    numbers_at,
    positive,
    store,
    store_numbers,
    where_number,
    winner,
)
from fastnet.kernels.cpu._geometry import Geometry, Images
from fastnet.kernels.cpu._lanes import turn, turn_back
from fastnet.kernels.cpu._simd import BYTES, tile_add_products, tile_add_to, tile_zeros, zero_entries
from fastnet.kernels.cpu._vector import LANES, load

IMAGES = 8
MOST_ROWS = 8  # of a window of the convolution: their sums stay in registers
MOST_TAPS = 16  # of a window of the pooling


class _Pool(NamedTuple):
    window_h: int
    window_w: int
    pooled_h: int
    pooled_w: int


class _Plan(NamedTuple):
    channels: int
    outputs: int
    kh: int
    runs: int  # pieces that a row of a window falls into: with dilation its taps, otherwise one
    run: int  # entries of a piece, up to whole vectors
    rows: int  # of an image with all that the windows see
    columns: int


def takes(n, w, g, pool):
    """Whether this is the way for n images, where `_narrow` is that of the convolution; `pool` as in `_pool`."""
    return (_narrow.turns(n, w, g) and w.shape[0] <= MOST_ROWS and pool.window_h * pool.window_w <= MOST_TAPS
            and (pool.stride_h, pool.stride_w, pool.pad_h, pool.pad_w) == (pool.window_h, pool.window_w, 0, 0)
            and pool.out_h * pool.window_h <= g.out_h and pool.out_w * pool.window_w <= g.out_w)


def forward(x, w, b, g, pool):
    """y (N, PH, PW, K) and the winners."""
    outputs, lanes = w.shape[3], LANES[x.dtype]
    y = empty((len(x), pool.out_h, pool.out_w, outputs), x.dtype)
    winners = empty((-(-len(x) // lanes), *y.shape[1:], lanes), np.uint8)
    _narrow.run_forward(_forward, x, w, b, g, (y, winners), (_sizes(pool),))
    return y, winners


def dx(dy, w, x_shape, g, pool, winners):
    dx = empty(x_shape, dy.dtype)
    _narrow.run_dx(_dx, dy, w, g, (dx, winners), (_sizes(pool),))
    return dx


def dw_db(x, dy, w_shape, g, pool, winners, into):
    """The gradients of w and b, in the arrays `into` where these are not None."""
    n, height, width, channels = x.shape
    kh, kw, _, outputs = w_shape
    blocks, lanes = -(-n // IMAGES), LANES[x.dtype]
    runs, run = (kw, channels) if g.dilation_w > 1 else (1, kw * channels)
    whole = -(-run // lanes) * lanes
    sums, bias_sums = zeros((blocks, outputs, kh, runs, whole), x.dtype), empty((blocks, outputs), x.dtype)
    rows = max(g.pad_h + height, (g.out_h - 1) * g.stride_h + (kh - 1) * g.dilation_h + 1)
    columns = max(g.pad_w + width, (g.out_w - 1) * g.stride_w + (kw - 1) * g.dilation_w + 1)
    plan = _Plan(channels, outputs, kh, runs, whole, rows, columns)
    work = dy.size * math.prod(w_shape[:3]) // 4
    _dw(blocks, work, (x, dy, sums, bias_sums, winners), (Images(n, height, width), g, plan, _sizes(pool)), (1, kh))
    dw, db = given(into[0], w_shape, x.dtype), given(into[1], w_shape[3:], x.dtype)
    dw.reshape(kh, runs, run, outputs)[...] = sums.sum(0)[..., :run].transpose(1, 2, 3, 0)
    db[...] = bias_sums.sum(0)
    return dw, db


def _sizes(pool):
    return _Pool(pool.window_h, pool.window_w, pool.out_h, pool.out_w)


@block_kernel(Images, Geometry, _narrow.Plan, _Pool)
def _forward(arrays, numbers, rows, vectors, block, thread):
    x, w, b, y = carray(arrays[0], 1), carray(arrays[1], 1), carray(arrays[2], 1), carray(arrays[3], 1)
    winners, plan = carray(numbers_at(arrays[4], rows, vectors), 1), carray(numbers, 1)[0]
    lanes = BYTES // x.itemsize
    count, outputs, kept = min(lanes, plan.images - block * lanes), plan.outputs, plan.kept
    turned = np.empty(plan.height * plan.columns * plan.channels * lanes, x.dtype)
    turn(x, block * lanes, count, plan.height, plan.width, plan.pad_w, plan.columns, plan.channels, turned)
    row, place, nothing = plan.places * outputs * lanes, outputs * lanes, plan.window_h * plan.window_w
    lines, line = np.empty(plan.window_h * row, x.dtype), np.empty(plan.pooled_w * kept * lanes, x.dtype)
    ones = _narrow.ones_like_vector(x)
    for p in range(plan.pooled_h):
        for i in range(plan.window_h):
            _narrow.fill_line(tile_zeros(rows, vectors, x), rows, vectors, turned, w, b, ones, plan,
                              p * plan.window_h + i, lines, i * row)
        to = (block * plan.pooled_h + p) * line.size
        for q in range(plan.pooled_w):
            for k in range(kept):
                start = q * plan.window_w * place + k * lanes
                best = load(lines, start)
                number = numbered(0, best)
                for i in range(plan.window_h):
                    for j in range(plan.window_w):
                        entry = load(lines, start + i * row + j * place)
                        number = winner(entry, best, i * plan.window_w + j, number)
                        best = larger(entry, best)
                at = (q * kept + k) * lanes
                store_numbers(winners, to + at, number_where_positive(best, number, nothing), lanes)
                store(line, at, positive(best))
        turn_back(line, 0, kept, y, block * lanes, count, plan.pooled_h, plan.pooled_w, kept, p)


@block_kernel(Images, Geometry, _narrow.Plan, _Pool)
def _dx(arrays, numbers, rows, vectors, block, thread):
    dy, w, dx = carray(arrays[0], 1), carray(arrays[1], 1), carray(arrays[2], 1)
    winners, plan = carray(numbers_at(arrays[3], rows, vectors), 1), carray(numbers, 1)[0]
    lanes = BYTES // dy.itemsize
    count, outputs = min(lanes, plan.images - block * lanes), plan.outputs
    pooled = np.empty(plan.pooled_h * plan.pooled_w * outputs * lanes, dy.dtype)
    turn(dy, block * lanes, count, plan.pooled_h, plan.pooled_w, 0, plan.pooled_w, outputs, pooled)
    turned = np.empty(plan.out_h * plan.places * outputs * lanes, dy.dtype)
    if plan.pooled_h * plan.window_h < plan.out_h or plan.pooled_w * plan.window_w < plan.places:
        zero_entries(turned, 0, turned.size)
    for p in range(plan.pooled_h):
        for q in range(plan.pooled_w):
            for k in range(outputs):
                at = ((p * plan.pooled_w + q) * outputs + k) * lanes
                share = load(pooled, at)
                number = load_numbers(winners, block * pooled.size + at, lanes, share)
                for i in range(plan.window_h):
                    for j in range(plan.window_w):
                        to = (p * plan.window_h + i) * plan.places + q * plan.window_w + j
                        store(turned, (to * outputs + k) * lanes, where_number(number, i * plan.window_w + j, share))
    _narrow.spread(tile_zeros(rows, vectors, dy), rows, vectors, turned, w, plan, block * lanes, count, dx)


@block_kernel(Images, Geometry, _Plan, _Pool)
def _dw(arrays, numbers, rows, vectors, block, thread):
    """sums (blocks, K, KH, runs, entries of a run), and for db (blocks, K); a tile is one number times KH vectors."""
    x, sums, bias_sums, plan = carray(arrays[0], 1), carray(arrays[2], 1), carray(arrays[3], 1), carray(numbers, 1)[0]
    dy, winners = arrays[1], numbers_at(arrays[4], rows, vectors)
    lanes, channels, outputs, nothing = BYTES // x.itemsize, plan.channels, plan.outputs, plan.window_h * plan.window_w
    line, step = plan.columns * channels, plan.stride_w * channels
    image = blank(plan.rows, plan.columns, channels, plan.run, x)
    starts = np.zeros(nothing + 1, np.intp)  # where the winner's window starts, from that of the first tap on
    for tap in range(nothing):
        starts[tap] = tap // plan.window_w * plan.stride_h * line + tap % plan.window_w * step
    places = plan.pooled_h * plan.pooled_w
    shares, windows = np.empty(places + lanes, x.dtype), np.empty(places, np.intp)
    totals = np.zeros(outputs * lanes, x.dtype)
    for n in range(block * IMAGES, min(plan.images, (block + 1) * IMAGES)):
        place(x, n, plan.height, plan.width, channels, plan.pad_h, plan.pad_w, plan.columns, image)
        for k in range(outputs):
            share_at = n * places * outputs + k
            winner_at = (n // lanes * places * outputs + k) * lanes + n % lanes
            found = 0
            for p in range(plan.pooled_h):
                window = p * plan.window_h * plan.stride_h * line
                for _ in range(plan.pooled_w):
                    number = winners[winner_at]
                    shares[found] = dy[share_at]
                    windows[found] = window + starts[number]
                    found += number < nothing  # no branch, which nobody could foresee
                    share_at += outputs
                    winner_at += outputs * lanes
                    window += plan.window_w * step
            zero_entries(shares, found, lanes)
            total = load(totals, k * lanes)
            for f in range(0, found, lanes):
                total = add(total, load(shares, f))
            store(totals, k * lanes, total)
            for j in range(plan.runs):
                for r in range(0, plan.run, lanes):
                    tile = tile_zeros(rows, vectors, x)
                    at = j * plan.dilation_w * channels + r
                    for f in range(found):
                        tile = tile_add_products(tile, shares, f, 0, image, at + windows[f], plan.dilation_h * line)
                    to = (((block * outputs + k) * plan.kh) * plan.runs + j) * plan.run + r
                    tile_add_to(tile, sums, to, 0, plan.runs * plan.run)
    for k in range(outputs):
        whole = 0.0
        for lane in range(lanes):
            whole += totals[k * lanes + lane]
        bias_sums[block * outputs + k] = whole
