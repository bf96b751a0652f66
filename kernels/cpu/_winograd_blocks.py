"""The blocks of work that Winograd's convolutions (see `_winograd`) share out to the threads.

Of the two constants of a block kernel they use the first, the points a side of a transformed tile.
"""

from typing import NamedTuple

from numba import carray

from fastnet.kernels.cpu._blocks import block_kernel
from fastnet.kernels.cpu._geometry import Images
from fastnet.kernels.cpu._jit import kernel
from fastnet.kernels.cpu._products import CHANNELS, PANEL, ROWS, product, product_of_tiles
from fastnet.kernels.cpu._simd import zero_entries
from fastnet.kernels.cpu._vector import BYTES
from fastnet.kernels.cpu._winograd_transforms import Tiling, inputs, output_gradients, outputs, phases_at

PART = 2 * ROWS  # tiles that a thread transforms at a time where the threads share out the points


class Plan(NamedTuple):
    """What is convolved, and how the work is cut."""

    out_h: int
    out_w: int
    channels: int  # of each phase of x, as many as fill vectors
    features: int  # and of y
    in_phases: int  # 4 with stride 2, otherwise 1
    out_phases: int
    tiles: int
    block: int  # tiles transformed at a time; as many as the buffers hold
    v_step: int  # entries from one point to the next, of transformed tiles of x
    m_step: int  # and of y. 16 more than they take: the lines of all points would share a cache set else
    first: int = 0  # tile of the buffers' first, and how many there are in them, where the threads share out the points
    count: int = 0
    chunks: int = 0  # sums of dw


@kernel(inline="always")
def _panel(p, side, point, phase, k, count, v, v_start, u, m, m_start):
    """The products at a point for the panel of outputs of a phase from number k on."""
    lanes = BYTES // v.itemsize
    width = min(PANEL * lanes, p.features - k)
    to = m_start + point * p.m_step + (phase * p.features + k) * p.block
    first, stop = phases_at(point, side, p.out_phases)
    if first <= phase < stop:
        first, stop = phases_at(point, side, p.in_phases)
        rows = p.in_phases * p.channels
        of = (point * p.out_phases + phase) * rows * p.features + k * rows + first * p.channels * width
        product(v, v_start + point * p.v_step + first * p.channels * p.block, p.block, count,
                (stop - first) * p.channels, u, of, width // lanes, m, to)
    else:
        zero_entries(m, to, p.block * width)


@kernel(inline="always")
def _row_of_sums(p, side, point, row, count, v, v_start, s, s_start, sums, start, add):
    """A row of blocks of the sums over tiles at a point, for some channels of a phase."""
    c = row * CHANNELS
    first, stop = phases_at(point, side, p.in_phases)
    if first * p.channels <= c < stop * p.channels:
        product_of_tiles(v, v_start + point * p.v_step, s, s_start + point * p.m_step, p.block, count, c, p.features,
                         sums, start + point * p.in_phases * p.channels * p.features, add)


# Filters that fit a core's cache: each thread takes blocks of tiles from the images to the result.

@block_kernel(Images, Tiling, Plan)
def by_tiles(arrays, numbers, side, vectors, number, thread):
    p = carray(numbers, 1)[0]
    x, u, bias, v = carray(arrays[0], 1), carray(arrays[1], 1), carray(arrays[2], 1), carray(arrays[3], 1)
    m, y = carray(arrays[4], 1), carray(arrays[5], 1)
    first = number * p.block
    count = min(p.block, p.tiles - first)
    own_v, own_m = thread * side * side * p.v_step, thread * side * side * p.m_step
    inputs(x, p, side, first, count, v, own_v)
    for point in range(side * side):
        for phase in range(p.out_phases):
            for k in range(0, p.features, PANEL * (BYTES // x.itemsize)):
                _panel(p, side, point, phase, k, count, v, own_v, u, m, own_m)
    outputs(m, p, side, first, count, own_m, bias, y)


@block_kernel(Images, Tiling, Plan)
def dw_by_tiles(arrays, numbers, side, vectors, chunk, thread):
    p = carray(numbers, 1)[0]
    x, dy, v, s = carray(arrays[0], 1), carray(arrays[1], 1), carray(arrays[2], 1), carray(arrays[3], 1)
    sums = carray(arrays[4], 1)
    own_v, own_s = thread * side * side * p.v_step, thread * side * side * p.m_step
    own_sums = chunk * side * side * p.in_phases * p.channels * p.features
    start, stop = p.tiles * chunk // p.chunks, p.tiles * (chunk + 1) // p.chunks
    for first in range(start, stop, p.block):
        count = min(p.block, stop - first)
        inputs(x, p, side, first, count, v, own_v)
        output_gradients(dy, p, side, first, count, s, own_s)
        for point in range(side * side):
            for row in range(p.in_phases * p.channels // CHANNELS):
                _row_of_sums(p, side, point, row, count, v, own_v, s, own_s, sums, own_sums, first > start)


# Larger ones: the threads transform tiles, then each takes points, and so its part of the filters or sums.

@block_kernel(Images, Tiling, Plan)
def transform_inputs(arrays, numbers, side, vectors, part, thread):
    p, x, v = carray(numbers, 1)[0], carray(arrays[0], 1), carray(arrays[1], 1)
    begin = part * PART
    inputs(x, p, side, p.first + begin, min(PART, p.count - begin), v, begin * (BYTES // x.itemsize))


@block_kernel(Images, Tiling, Plan)
def transform_gradients(arrays, numbers, side, vectors, part, thread):
    p, dy, s = carray(numbers, 1)[0], carray(arrays[0], 1), carray(arrays[1], 1)
    begin = part * PART
    output_gradients(dy, p, side, p.first + begin, min(PART, p.count - begin), s, begin * (BYTES // dy.itemsize))


@block_kernel(Images, Tiling, Plan)
def transform_outputs(arrays, numbers, side, vectors, part, thread):
    p = carray(numbers, 1)[0]
    m, bias, y = carray(arrays[0], 1), carray(arrays[1], 1), carray(arrays[2], 1)
    begin = part * PART
    outputs(m, p, side, p.first + begin, min(PART, p.count - begin), begin * (BYTES // y.itemsize), bias, y)


@block_kernel(Images, Tiling, Plan)
def products(arrays, numbers, side, vectors, unit, thread):
    p = carray(numbers, 1)[0]
    v, u, m = carray(arrays[0], 1), carray(arrays[1], 1), carray(arrays[2], 1)
    width = PANEL * (BYTES // v.itemsize)
    panels = (p.features + width - 1) // width
    point, panel = divmod(unit, p.out_phases * panels)
    phase, panel = divmod(panel, panels)
    _panel(p, side, point, phase, panel * width, p.count, v, 0, u, m, 0)


@block_kernel(Images, Tiling, Plan)
def sum_products(arrays, numbers, side, vectors, unit, thread):
    p = carray(numbers, 1)[0]
    v, s, sums = carray(arrays[0], 1), carray(arrays[1], 1), carray(arrays[2], 1)
    point, row = divmod(unit, p.in_phases * p.channels // CHANNELS)
    _row_of_sums(p, side, point, row, p.count, v, 0, s, 0, sums, 0, p.first > 0)
