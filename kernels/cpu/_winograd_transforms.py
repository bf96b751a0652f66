"""Images in and out of Winograd's domain (see `_winograd`), tile by tile.

Transformed tiles lie as (points, phases, vectors of channels, tiles, vector). Where the entries of a tile and of its
transform lie is a table of addresses, made once for all channels. So a pixel outside the image needs no test in the
inner loops: it is read from `zeros` or written to `rest`. Nor do the points that a phase lacks: they are written where
its first point goes, and before that one.
"""

from typing import NamedTuple

import numpy as np

from fastnet.kernels.cpu._gemm import address
from fastnet.kernels.cpu._jit import kernel
from fastnet.kernels.cpu._vector import BYTES, load, splat
from fastnet.kernels.cpu._winograd_matrices import transform_input, transform_output, transform_output_gradient


class Tiling(NamedTuple):
    """Where the tiles stand: each image has `down` x `across` of them, and tile (r, c) takes 4x4 outputs of a phase.

    Pixel (i, j) that it reads is that at row `in_top` + `in_step` (4 r + i), one more in a phase with one row of taps;
    the one that it writes at row `out_top` + `out_step` (4 r + i), one less in such a phase. Columns alike.
    """

    down: int
    across: int
    in_step: int
    in_top: int
    in_left: int
    out_step: int
    out_top: int
    out_left: int


@kernel(inline="always")
def single(phase, phases):
    """(row, column): 1 where the filters of a phase have one row of taps, one column, and 0 where they have more.

    Of four phases the second has two of both, so that those with two rows stand side by side, as do those with two
    columns.
    """
    return (phase // 2, int(phase % 3 == 0)) if phases > 1 else (0, 0)


@kernel(inline="always")
def phases_at(point, side, phases):
    """(first, behind the last) of the phases that have a point: a single tap is zero at infinity, the last one."""
    i, j = divmod(point, side)
    lacks_row, lacks_column = phases > 1 and i == side - 1, phases > 1 and j == side - 1
    return (1 if lacks_column else 0), (2 if lacks_row else 3 if lacks_column else phases)


@kernel(inline="always")
def table(v, start, step, places):
    """Fill `places` with the addresses of `start`, `start` + `step`, ..., counted in entries of v."""
    for i in range(places.size):
        places[i] = address(v, start + i * step)


@kernel(inline="always")
def leave_out(phase, phases, side, places):
    """Let the points that a phase lacks be written where the first one goes."""
    for point in range(side * side):
        first, stop = phases_at(point, side, phases)
        if phase < first or phase >= stop:
            places[point] = places[0]


@kernel(inline="always")
def _pixels(x, height, width, channels, image, top, left, step, size, outside, places):
    """Fill `places` with the addresses of size x size pixels of an image; those outside it lie at `outside`."""
    for i in range(size):
        for j in range(size):
            row, column = top + i * step, left + j * step
            inside = 0 <= row < height and 0 <= column < width
            places[i * size + j] = (address(x, ((image * height + row) * width + column) * channels) if inside
                                    else address(outside, 0))


@kernel(inline="always")
def inputs(x, p, side, first, count, v, start):
    """v[:, :, :, t] = B^T d B for the pixels d of each phase that tile `first` + t sees; v starts at entry `start`."""
    sources, targets = np.empty(side * side, np.intp), np.empty(side * side, np.intp)
    zeros, nothing = np.zeros(p.channels, x.dtype), splat(x.dtype.type(0))
    for t in range(count):
        image, tile = divmod(first + t, p.down * p.across)
        r, c = divmod(tile, p.across)
        for phase in range(p.in_phases):
            row, column = single(phase, p.in_phases)
            _pixels(x, p.height, p.width, p.channels, image, p.in_top + 4 * p.in_step * r + row,
                    p.in_left + 4 * p.in_step * c + column, p.in_step, side, zeros, sources)
            table(v, start + phase * p.channels * p.block + t * BYTES // x.itemsize, p.v_step, targets)
            leave_out(phase, p.in_phases, side, targets)
            for at in range(0, p.channels * x.itemsize, BYTES):
                transform_input(x, side, sources, at, targets, at * p.block, nothing)


@kernel(inline="always")
def outputs(m, p, side, first, count, start, bias, y):
    """y = A^T m[:, :, :, t] A + bias at the 4x4 pixels of each phase of tile `first` + t; m starts at entry `start`."""
    sources, targets = np.empty(side * side, np.intp), np.empty(16, np.intp)
    rest = np.empty(p.features, y.dtype)
    for t in range(count):
        image, tile = divmod(first + t, p.down * p.across)
        r, c = divmod(tile, p.across)
        for phase in range(p.out_phases):
            row, column = single(phase, p.out_phases)
            table(m, start + phase * p.features * p.block + t * BYTES // y.itemsize, p.m_step, sources)
            _pixels(y, p.out_h, p.out_w, p.features, image, p.out_top + 4 * p.out_step * r - row,
                    p.out_left + 4 * p.out_step * c - column, p.out_step, 4, rest, targets)
            for to in range(0, p.features * y.itemsize, BYTES):
                transform_output(y, side, sources, to * p.block, targets, to, load(bias, to // y.itemsize))


@kernel(inline="always")
def output_gradients(dy, p, side, first, count, s, start):
    """s[:, :, t] = A dy A^T for the 4x4 pixels of tile `first` + t; s starts at entry `start`."""
    sources, targets = np.empty(16, np.intp), np.empty(side * side, np.intp)
    zeros, nothing = np.zeros(p.features, dy.dtype), splat(dy.dtype.type(0))
    for t in range(count):
        image, tile = divmod(first + t, p.down * p.across)
        r, c = divmod(tile, p.across)
        _pixels(dy, p.out_h, p.out_w, p.features, image, 4 * r, 4 * c, 1, 4, zeros, sources)
        table(s, start + t * BYTES // dy.itemsize, p.m_step, targets)
        for at in range(0, p.features * dy.itemsize, BYTES):
            transform_output_gradient(dy, side, sources, at, targets, at * p.block, nothing)
