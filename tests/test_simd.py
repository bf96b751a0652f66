"""The register tiles against NumPy, on arrays with a border that must stay as it was."""

import numpy as np
import pytest

pytest.importorskip("numba")

from fastnet.kernels.cpu import _simd
from fastnet.kernels.cpu._jit import kernel
from fastnet.kernels.cpu._simd import (
    copy_entries,
    tile_add_products,
    tile_add_to,
    tile_store,
    tile_zeros,
    transpose_block,
    zero_entries,
)

DTYPES = [np.float32, np.float64]
EPS = {np.float32: 2.0**-24, np.float64: 2.0**-53}


@kernel()
def _product(a, b, c, start, depth, add):
    """c[r, v] = sum_k a[k, r] b[k, v], or that added to c: a 3 x 2 tile out of larger arrays."""
    tile = tile_zeros(3, 2, a)
    for k in range(depth):
        tile = tile_add_products(tile, a, k * a.shape[1] + 1, 2, b, k * b.shape[1] + 3, b.shape[1] // 2)
    if add:
        tile_add_to(tile, c, start, c.shape[1], c.shape[1] // 2)
    else:
        tile_store(tile, c, start, c.shape[1], c.shape[1] // 2)


@kernel()
def _single(a, b, c, depth):
    """As `_product`, with every entry of c in a tile of its own."""
    for r in range(3):
        for v in range(2):
            tile = tile_zeros(1, 1, a)
            for k in range(depth):
                tile = tile_add_products(tile, a, k * a.shape[1] + 1 + 2 * r, 0,
                                         b, k * b.shape[1] + 3 + v * (b.shape[1] // 2), 0)
            tile_store(tile, c, r * c.shape[1] + v * (c.shape[1] // 2), 0, 0)


@kernel()
def _transpose(a, start, b, to):
    transpose_block(a, start, a.shape[1], b, to, b.shape[1])


@kernel()
def _move(a, b):
    copy_entries(a, 2, b, 3, 4)
    zero_entries(b, 8, 2)


def _arrays(dtype, depth):
    rng = np.random.default_rng(3)
    lanes = _simd.BYTES // np.dtype(dtype).itemsize
    a, b = rng.standard_normal((depth, 7)).astype(dtype), rng.standard_normal((depth, 2 * lanes + 8)).astype(dtype)
    c = rng.standard_normal((5, 2 * lanes + 6)).astype(dtype)
    half = b.shape[1] // 2
    vectors = np.stack([b[:, 3 + v * half : 3 + v * half + lanes] for v in (0, 1)], 1).astype(np.float64)
    return a, b, c, lanes, np.einsum("kr,kvl->rvl", a[:, 1:6:2].astype(np.float64), vectors)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("depth", [0, 1, 19])
@pytest.mark.parametrize("add", [False, True])
def test_tile_is_a_sum_of_products(dtype, depth, add):
    a, b, c, lanes, expected = _arrays(dtype, depth)
    before = c.copy()
    half = c.shape[1] // 2
    _product(a, b, c, c.shape[1] + 2, depth, add)  # one row down, two columns in
    for v in (0, 1):
        block = np.s_[1:4, 2 + v * half : 2 + v * half + lanes]
        wanted = expected[:, v] + (before[block] if add else 0)
        np.testing.assert_allclose(c[block], wanted, rtol=0, atol=(depth + 1) * 20 * EPS[dtype])
        before[block] = c[block]
    np.testing.assert_array_equal(c, before)  # nothing else was written


@pytest.mark.parametrize("dtype", DTYPES)
def test_bits_do_not_depend_on_the_shape_of_the_tile(dtype):
    a, b, c, _, _ = _arrays(dtype, 50)
    other = c.copy()
    _product(a, b, c, 0, 50, False)
    _single(a, b, other, 50)
    np.testing.assert_array_equal(c, other)


@pytest.mark.parametrize("dtype", DTYPES)
def test_products_are_rounded_once(dtype):
    """(1 + e)(1 - e) - 1 is -e^2; rounded before the sum it would be 0."""
    lanes = _simd.BYTES // np.dtype(dtype).itemsize
    e = np.finfo(dtype).eps
    a, b, c = np.zeros((2, 7), dtype), np.zeros((2, 2 * lanes + 8), dtype), np.zeros((5, 2 * lanes + 6), dtype)
    a[0, 1:6:2], b[0], a[1, 1:6:2], b[1] = -1, 1, 1 + e, 1 - e
    _product(a, b, c, 0, 2, False)
    assert (c[:3, :lanes] == -e * e).all()


@pytest.mark.parametrize("dtype", DTYPES)
def test_transpose_block(dtype):
    lanes = _simd.BYTES // np.dtype(dtype).itemsize
    a = np.arange((lanes + 2) * (lanes + 5), dtype=dtype).reshape(lanes + 2, lanes + 5)
    b = np.full((lanes + 3, lanes + 1), -1, dtype)
    expected = b.copy()
    expected[1 : lanes + 1, 1 : lanes + 1] = a[2 : lanes + 2, 3 : lanes + 3].T
    _transpose(a, 2 * a.shape[1] + 3, b, b.shape[1] + 1)
    np.testing.assert_array_equal(b, expected)


@pytest.mark.parametrize("dtype", DTYPES)
def test_copy_and_zero(dtype):
    a, b = np.arange(10, dtype=dtype), np.full(12, -1, dtype)
    _move(a, b)
    np.testing.assert_array_equal(b, [-1, -1, -1, 2, 3, 4, 5, -1, 0, 0, -1, -1])
