"""Sums over rows of channels, whichever way the rows are laid side by side."""

import numpy as np
import pytest

pytest.importorskip("numba")

import numba

from fastnet.kernels.cpu._rows import column_sums


@pytest.mark.parametrize(("dtype", "bound"), [("float32", 1.2e-7), ("float64", 1e-13)])
@pytest.mark.parametrize("shape", [(1, 1), (7, 6), (33, 3), (64, 10), (96, 24), (1000, 1), (1001, 6), (4096, 6),
                                   (129, 64), (70, 100)])
def test_sums_are_kept_in_float64(shape, dtype, bound):
    x = np.random.default_rng(0).standard_normal(shape).astype(dtype) + 1000
    sums, into = column_sums(x), np.full(shape[1], np.nan, dtype)
    assert column_sums(x, into) is into
    np.testing.assert_array_equal(sums, into)
    assert sums.dtype == dtype
    np.testing.assert_allclose(sums, x.sum(0, dtype=np.longdouble).astype(np.float64), rtol=bound)


def test_any_number_of_threads():
    if numba.config.NUMBA_NUM_THREADS < 2:
        pytest.skip("one core")
    threads, found = numba.get_num_threads(), []
    x = np.random.default_rng(0).standard_normal((12344, 6))
    try:
        for count in (1, 2):
            numba.set_num_threads(count)
            found.append(column_sums(x))
    finally:
        numba.set_num_threads(threads)
    np.testing.assert_array_equal(*found)
