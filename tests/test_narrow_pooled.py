"""Convolution of few channels with ReLU and max pooling in one pass: against the reference, and what ReLU stops."""

import numpy as np
import pytest

pytest.importorskip("numba")

import numba

from fastnet.kernels.cpu import _jit, conv2d, relu_max_pool2d
from fastnet.kernels.cpu import conv2d_relu_max_pool2d as fused
from fastnet.ops import conv2d_relu_max_pool2d as reference

BOUNDS = {np.float32: 2e-6, np.float64: 1e-12}
CASES = [  # size and channels of x, w, images, options
    ((32, 32, 3), (5, 5, 3, 6), 20, {}),
    ((14, 14, 6), (5, 5, 6, 12), 33, {}),
    ((13, 11, 3), (3, 3, 3, 7), 16, {"pad": 1}),  # a row and a column that no window of the pooling sees
    ((13, 12, 2), (3, 2, 2, 5), 17, {"pad": 1, "dilation": (1, 2), "stride": (2, 1)}),
    ((9, 10, 1), (5, 5, 1, 6), 7, {"pad": 2, "window": (3, 2)}),
    ((8, 9, 8), (1, 4, 8, 3), 1, {"window": 1}),
    ((12, 9, 4), (8, 3, 4, 13), 40, {"pad": (2, 0), "dilation": (1, 3), "window": (1, 3)}),
]


def _arrays(size, kernel, images, dtype):
    rng = np.random.default_rng(images)
    return [rng.standard_normal(s).astype(dtype) for s in ((images, *size), kernel, kernel[-1:])]


def _passes(module, arrays, options, dy=None):
    y, cache = module.forward(*arrays, **options)
    if dy is None:
        dy = np.random.default_rng(1).standard_normal(y.shape)
    return y, *module.backward(dy.astype(y.dtype), cache)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(("size", "kernel", "images", "options"), CASES)
def test_agrees_with_the_reference(size, kernel, images, options, dtype):
    options = {"window": 2, **options}
    arrays = _arrays(size, kernel, images, dtype)
    if images == 7:
        arrays[2] = None
    assert fused.algorithm(*arrays, **options) == "narrow_pooled"
    found = _passes(fused, arrays, options)
    expected = _passes(reference, [a if a is None else a.astype(np.float64) for a in arrays], options)
    for ours, theirs in zip(found, expected, strict=True):
        if theirs is None:
            assert ours is None
            continue
        assert ours.dtype == dtype and ours.flags.c_contiguous
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=BOUNDS[dtype] * abs(theirs).max())


def test_the_values_are_those_of_the_two_ops():
    """Bit for bit; so are the winners, or dx would differ by more than rounding."""
    x, w, b = _arrays((32, 32, 3), (5, 5, 3, 6), 35, np.float32)
    y, _ = fused.forward(x, w, b, window=2)
    np.testing.assert_array_equal(y, relu_max_pool2d.forward(conv2d.forward(x, w, b)[0], window=2)[0])


@pytest.mark.parametrize("images", [16, 21])
def test_where_relu_lets_nothing_through_no_gradient_counts(images):
    """Not even one that is not finite. A NaN in x stays in sight."""
    x, w, b = _arrays((10, 10, 3), (3, 3, 3, 4), images, np.float32)
    x[images - 2, 5, 5, 1] = np.nan
    y, cache = fused.forward(x, w, b - 3, window=2)
    assert np.isnan(y[images - 2]).any() and not np.isnan(y[: images - 2]).any()
    off = np.ones_like(y)
    off[y == 0] = np.inf
    off[images - 2] = 0
    assert (y == 0).any()
    x[images - 2] = 0
    found = fused.backward(off, cache)
    for ours, theirs in zip(found, fused.backward(np.where(off == np.inf, np.float32(0), off), cache), strict=True):
        np.testing.assert_array_equal(ours, theirs)
        assert np.isfinite(ours).all()


def test_what_it_leaves_to_the_two_ops():
    x, w, _ = _arrays((12, 12, 3), (3, 3, 3, 6), 20, np.float32)
    assert fused.algorithm(x, w, window=2) == "narrow_pooled"
    for options in ({"window": 3, "pool_stride": 2}, {"window": 2, "pool_pad": 1}, {"window": 5},
                    {"window": 4, "ceil_mode": True}):
        assert fused.algorithm(x, w, **options) == "narrow", options
    assert fused.algorithm(x[:1], w, window=2) == "narrow"  # whose outputs are in vectors then
    tall = np.zeros((9, 1, 3, 6), np.float32)
    assert fused.algorithm(x, tall, window=2) == "narrow"
    assert fused.algorithm(np.zeros((20, 12, 12, 32), np.float32), np.zeros((3, 3, 32, 32), np.float32),
                           window=2) == "winograd"


def test_gradients_written_where_they_belong():
    arrays = _arrays((14, 14, 6), (5, 5, 6, 12), 20, np.float32)
    y, cache = fused.forward(*arrays, window=2)
    into = None, np.full_like(arrays[1], np.nan), np.full_like(arrays[2], np.nan)
    dx, dw, db = fused.backward_into(y, cache, (False, True, True), into)
    assert dx is None and dw is into[1] and db is into[2]
    for ours, theirs in zip((dw, db), fused.backward(y, cache)[1:], strict=True):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize(("size", "kernel"), [((32, 32, 3), (5, 5, 3, 6)), ((14, 14, 6), (5, 5, 6, 16))])
def test_any_number_of_threads(size, kernel):
    if numba.config.NUMBA_NUM_THREADS < 2:
        pytest.skip("one core")
    arrays = _arrays(size, kernel, 100, np.float32)
    assert arrays[0].size * arrays[1].size // size[2] // 32 >= _jit.PARALLEL_WORK
    threads, runs = numba.get_num_threads(), []
    try:
        for count in (1, 2):
            numba.set_num_threads(count)
            runs.append(_passes(fused, arrays, {"window": 2}))
    finally:
        numba.set_num_threads(threads)
    for one, two in zip(*runs, strict=True):
        np.testing.assert_array_equal(one, two)
