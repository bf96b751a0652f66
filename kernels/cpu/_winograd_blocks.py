"""The stages of Winograd's convolutions (see `_winograd`): block kernels, each of which takes tiles a step further.

All of them work on the arrays (x, v, u, m, y, bias): images, their transformed tiles, transformed filters, transformed
tiles of the other images, these, and what is added to them. For the gradient of the filters u is the sums and y dy.

The blocks of tiles are numbered, and each falls into units, which are what the kernels count: where all of them take
their turns at a block, they find what the last one left in the core's cache.
"""

from typing import NamedTuple

from numba import carray

from fastnet.kernels.cpu._blocks import block_kernel
from fastnet.kernels.cpu._geometry import Images
from fastnet.kernels.cpu._jit import kernel
from fastnet.kernels.cpu._products import CHANNELS, PANEL, ROWS, product, product_of_tiles
from fastnet.kernels.cpu._simd import zero_entries
from fastnet.kernels.cpu._vector import BYTES
from fastnet.kernels.cpu._winograd_filters import GAP
from fastnet.kernels.cpu._winograd_transforms import Tiling, inputs, output_gradients, outputs, phases_at

PART = 2 * ROWS  # tiles that are transformed as a unit


class Plan(NamedTuple):
    """What is convolved, and how the work is cut."""

    out_h: int
    out_w: int
    channels: int  # of each phase of x, as many as fill vectors
    features: int  # and of y
    in_phases: int  # 4 with stride 2, otherwise 1
    out_phases: int
    side: int  # points a side of a transformed tile
    tiles: int
    block: int  # tiles of a block; as many as the buffers hold
    v_step: int  # entries from one point to the next, of transformed tiles of x
    m_step: int  # and of y. 16 more than they take: the lines of all points would share a cache set else
    own: int  # 1 where each thread has buffers of its own, 0 where all work on one block
    row: int = 1  # blocks that add to one of the sums over tiles
    first: int = 0  # block


def units(plan, lanes):
    """Units of a block: of the transforms, of the products, and of the sums of products."""
    points = plan.side**2
    return (-(-plan.block // PART), points * plan.out_phases * -(-plan.features // (PANEL * lanes)),
            points * (plan.in_phases * plan.channels // CHANNELS))


@kernel(inline="always")
def _unit(p, number, units):
    """(block, unit) of a kernel's block number."""
    block, unit = divmod(number, units)
    return p.first + block, unit


@kernel(inline="always")
def _part(p, number):
    """(first tile of all, how many, first tile in the buffers) of a unit of a transform."""
    block, part = _unit(p, number, (p.block + PART - 1) // PART)
    begin = part * PART
    first = block * p.block + begin
    return first, min(PART, p.block - begin, p.tiles - first), begin


@block_kernel(Images, Tiling, Plan)
def transform_inputs(arrays, numbers, side, vectors, number, thread):
    p, x, v = carray(numbers, 1)[0], carray(arrays[0], 1), carray(arrays[1], 1)
    first, count, begin = _part(p, number)
    inputs(x, p, side, first, count, v, thread * p.own * side * side * p.v_step + begin * (BYTES // x.itemsize))


@block_kernel(Images, Tiling, Plan)
def transform_gradients(arrays, numbers, side, vectors, number, thread):
    p, s, dy = carray(numbers, 1)[0], carray(arrays[3], 1), carray(arrays[4], 1)
    first, count, begin = _part(p, number)
    output_gradients(dy, p, side, first, count, s,
                     thread * p.own * side * side * p.m_step + begin * (BYTES // dy.itemsize))


@block_kernel(Images, Tiling, Plan)
def transform_outputs(arrays, numbers, side, vectors, number, thread):
    p, m, y, bias = carray(numbers, 1)[0], carray(arrays[3], 1), carray(arrays[4], 1), carray(arrays[5], 1)
    first, count, begin = _part(p, number)
    outputs(m, p, side, first, count, thread * p.own * side * side * p.m_step + begin * (BYTES // y.itemsize), bias, y)


@block_kernel(Images, Tiling, Plan)
def products(arrays, numbers, rows, vectors, number, thread):
    """m = v u: a unit is a panel of the outputs of a phase at a point."""
    p = carray(numbers, 1)[0]
    v, u, m = carray(arrays[1], 1), carray(arrays[2], 1), carray(arrays[3], 1)
    lanes, points = BYTES // v.itemsize, p.side * p.side
    panels = (p.features + PANEL * lanes - 1) // (PANEL * lanes)
    block, unit = _unit(p, number, points * p.out_phases * panels)
    point, panel = divmod(unit, p.out_phases * panels)
    phase, panel = divmod(panel, panels)
    k = panel * PANEL * lanes
    width = min(PANEL * lanes, p.features - k)
    to = (thread * p.own * points + point) * p.m_step + (phase * p.features + k) * p.block
    first, stop = phases_at(point, p.side, p.out_phases)
    if first <= phase < stop:
        first, stop = phases_at(point, p.side, p.in_phases)
        depth = p.in_phases * p.channels
        of = (point * (p.out_phases * depth * p.features + GAP) + phase * depth * p.features + k * depth
              + first * p.channels * width)
        product(v, (thread * p.own * points + point) * p.v_step + first * p.channels * p.block, p.block,
                min(p.block, p.tiles - block * p.block), (stop - first) * p.channels, u, of, width // lanes, m, to)
    else:
        zero_entries(m, to, p.block * width)


@block_kernel(Images, Tiling, Plan)
def sum_products(arrays, numbers, rows, vectors, number, thread):
    """sums = v^T s: a unit is `CHANNELS` channels of x at a point."""
    p = carray(numbers, 1)[0]
    v, sums, s = carray(arrays[1], 1), carray(arrays[2], 1), carray(arrays[3], 1)
    points, depth = p.side * p.side, p.in_phases * p.channels
    block, unit = _unit(p, number, points * (depth // CHANNELS))
    point, row = divmod(unit, depth // CHANNELS)
    first, stop = phases_at(point, p.side, p.in_phases)
    if first * p.channels <= row * CHANNELS < stop * p.channels:
        own = thread * p.own * points + point
        product_of_tiles(v, own * p.v_step, s, own * p.m_step, p.block, min(p.block, p.tiles - block * p.block),
                         row * CHANNELS, p.features, sums, (block // p.row * points + point) * depth * p.features,
                         block % p.row > 0)
