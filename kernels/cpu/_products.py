"""Matrix products of transformed tiles (see `_winograd`), in the order in which the transforms write them.

BLAS would copy both factors into an order of its own at every call, and does not keep its sums in registers for so few
rows. Here

    tiles     lie as (vectors of channels, tiles, vector): `product` reads their numbers one by one, `product_of_tiles`
              vector by vector
    filters   lie in panels of 4 vectors of outputs, the last one maybe narrower, each (channels, panel)

so that both are read from one end to the other.
"""

from fastnet.kernels.cpu._jit import kernel
from fastnet.kernels.cpu._simd import BYTES, tile_add_products, tile_add_to, tile_store, tile_zeros

ROWS = 6  # tiles of a block of sums: 6 x 4 vectors of 32 registers
PANEL = 4  # vectors
DEPTH = 8  # vectors of channels summed in a row: 128 x 64 float32 of a panel are 32 kB of the first-level cache
CHANNELS = 8  # of a block of sums over tiles: 8 x 2 vectors


def _panel(vectors):
    """The function that multiplies `count` tiles with a panel of so many vectors."""

    @kernel()
    def multiply(v, v_start, tiles, count, channels, u, u_start, m, m_start):
        lanes = BYTES // v.itemsize
        for first in range(0, channels, DEPTH * lanes):
            for t in range(0, count, ROWS):
                sums = tile_zeros(ROWS, vectors, v)
                for c in range(first, min(channels, first + DEPTH * lanes), lanes):
                    at = v_start + c * tiles + t * lanes
                    of = u_start + c * vectors * lanes
                    for lane in range(lanes):
                        sums = tile_add_products(sums, v, at + lane, lanes, u, of + lane * vectors * lanes, lanes)
                to = m_start + t * lanes
                if first > 0:
                    tile_add_to(sums, m, to, lanes, tiles * lanes)
                else:
                    tile_store(sums, m, to, lanes, tiles * lanes)

    return multiply


_panel_4, _panel_3, _panel_2, _panel_1 = (_panel(vectors) for vectors in (4, 3, 2, 1))


@kernel()
def product(v, v_start, tiles, count, channels, u, u_start, vectors, m, m_start):
    """One panel of so many vectors of m = v u, for the first `count` of `tiles` tiles.

    v holds (channels/lanes, tiles, lanes) from entry `v_start` on, m likewise the panel's outputs; u the panel. The
    count is rounded up to a multiple of `ROWS`: so many tiles are read and written.
    """
    if vectors == 4:
        _panel_4(v, v_start, tiles, count, channels, u, u_start, m, m_start)
    elif vectors == 3:
        _panel_3(v, v_start, tiles, count, channels, u, u_start, m, m_start)
    elif vectors == 2:
        _panel_2(v, v_start, tiles, count, channels, u, u_start, m, m_start)
    else:
        _panel_1(v, v_start, tiles, count, channels, u, u_start, m, m_start)


def _row(vectors):
    """The function that sums one block of `CHANNELS` channels by so many vectors of outputs over `count` tiles."""

    @kernel()
    def multiply(v, v_start, s, s_start, tiles, count, total, to, width, add):
        lanes = BYTES // v.itemsize
        sums = tile_zeros(CHANNELS, vectors, v)
        for t in range(count):
            sums = tile_add_products(sums, v, v_start + t * lanes, 1, s, s_start + t * lanes, tiles * lanes)
        if add:
            tile_add_to(sums, total, to, width, lanes)
        else:
            tile_store(sums, total, to, width, lanes)

    return multiply


_row_2, _row_1 = _row(2), _row(1)


@kernel()
def product_of_tiles(v, v_start, s, s_start, tiles, count, first, width, total, start, add):
    """A row of blocks of the sum over `count` tiles, total[c, k] = sum_t v[t, c] s[t, k], plus what is there if `add`.

    The row is that of the `CHANNELS` channels from `first` on; total (channels, width) starts at entry `start`.
    """
    lanes = BYTES // v.itemsize
    at = v_start + first // lanes * lanes * tiles + first % lanes
    for k in range(0, width, 2 * lanes):
        to = start + first * width + k
        if width - k > lanes:
            _row_2(v, at, s, s_start + k * tiles, tiles, count, total, to, width, add)
        else:
            _row_1(v, at, s, s_start + k * tiles, tiles, count, total, to, width, add)
