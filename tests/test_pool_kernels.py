"""The pooling kernels against the reference where entries are equal, infinite or NaN, and for windows of every form."""

import itertools

import numpy as np
import pytest

from fastnet import backend
from fastnet.arrays import empty

pytest.importorskip("numba")

INF, NAN = np.inf, np.nan
FORMS = [
    ((4, 4), {"window": 2}), ((5, 7), {"window": 2}), ((5, 7), {"window": 2, "ceil_mode": True}),
    ((6, 6), {"window": 3, "stride": 2, "pad": 1}), ((7, 6), {"window": 3, "stride": 2, "pad": 1, "ceil_mode": True}),
    ((6, 5), {"window": 3, "stride": 1}), ((8, 9), {"window": (2, 3), "stride": (1, 2), "pad": (1, 0)}),
    ((9, 8), {"window": (3, 2), "stride": (3, 1)}), ((7, 10), {"window": 2, "stride": 3}),
    ((5, 8), {"window": 2, "stride": 3, "pad": 1, "ceil_mode": True}), ((6, 7), {"window": 1, "stride": 2}),
    ((1, 1), {"window": 1}), ((1, 1), {"window": 2, "pad": 1}), ((1, 5), {"window": (1, 2)}),
    ((2, 2), {"window": 4, "stride": 2, "pad": 2}), ((17, 33), {"window": (16, 17), "stride": (1, 7), "pad": (8, 0)}),
]
CONTENTS = {
    "distinct": lambda rng, shape: rng.permutation(int(np.prod(shape))).reshape(shape),
    "ties": lambda rng, shape: rng.integers(0, 3, shape),
    "all equal": lambda rng, shape: np.full(shape, -2.0),
    "minus infinity": lambda rng, shape: np.full(shape, -INF),
    "infinities": lambda rng, shape: rng.choice([-INF, -INF, -INF, 1.0, INF], shape),
    "NaN": lambda rng, shape: rng.choice([NAN, -INF, 0.0, 1.0, 2.0], shape),
    "signed zeros": lambda rng, shape: rng.choice([0.0, -0.0], shape),
}
all_forms = pytest.mark.parametrize(("size", "options"), [pytest.param(*f, id=f"{f[0]} {f[1]}") for f in FORMS])


def both(op, x, dy=None, **options):
    """(y, dx) of the kernels and of the reference; dy is whole numbers, whose sums are exact in any order."""
    found = []
    for implementation in ("cpu", "reference"):
        module = backend.module(implementation, op)
        assert implementation == "reference" or module.supports(x, **options)
        y, cache = module.forward(x, **options)
        dy = np.random.default_rng(1).integers(1, 9, y.shape).astype(x.dtype) if dy is None else dy
        found.append((y, module.backward(dy, cache)[0]))
    return found


def assert_same(ours, theirs):
    for a, b in zip(ours, theirs, strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(a, b)


@pytest.fixture
def no_lucky_zeros(monkeypatch):
    """New arrays are full of NaN, or 255: an entry that a kernel leaves alone shows."""
    def filled(shape, dtype):
        array = empty(shape, dtype)
        array.fill(NAN if array.dtype.kind == "f" else 255)
        return array

    for op in ("max_pool2d", "avg_pool2d", "global_avg_pool"):
        monkeypatch.setattr(backend.module("cpu", op), "empty", filled)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("content", CONTENTS)
@all_forms
def test_the_same_entries_win(size, options, content, dtype, no_lucky_zeros):
    rng = np.random.default_rng(0)
    for channels in (1, 6, 19):
        x = CONTENTS[content](rng, (2, *size, channels)).astype(dtype)
        assert_same(*both("max_pool2d", x, **options))
        assert_same(*both("relu_max_pool2d", x, **options))
        assert_same(*both("relu_max_pool2d", 1 - x, **options))


@all_forms
def test_relu_may_come_first(size, options):
    """The op is ReLU and then max pooling, entry by entry and gradient by gradient."""
    rng = np.random.default_rng(0)
    for content in CONTENTS.values():
        x = content(rng, (2, *size, 6)).astype("float32") - 1
        (y, dx), _ = both("relu_max_pool2d", x, **options)
        rectified, mask = backend.module("reference", "relu").forward(x)
        _, (pooled, gradient) = both("max_pool2d", rectified, **options)
        assert_same((y, dx), (pooled, backend.module("reference", "relu").backward(gradient, mask)[0]))


def test_padding_never_wins():
    """Not even against minus infinity: the gradient goes to the first entry of the window that is there."""
    x = np.full((1, 2, 2, 1), -INF)
    for implementation in ("cpu", "reference"):
        module = backend.module(implementation, "max_pool2d")
        y, cache = module.forward(x, window=2, stride=2, pad=1)
        assert y.ravel().tolist() == [-INF] * 4
        assert module.backward(np.full_like(y, 2), cache)[0].ravel().tolist() == [2] * 4


@pytest.mark.parametrize(("window", "dtype"), [((15, 17), np.uint8), ((16, 16), np.int32)])
def test_a_winner_is_a_byte_while_that_is_enough(window, dtype):
    x = np.zeros((1, 16, 17, 3))
    x[:, window[0] - 1, window[1] - 1] = 1  # the last tap wins
    y, cache = backend.module("cpu", "max_pool2d").forward(x, window=window, stride=16)
    assert cache[0].dtype == dtype
    assert (cache[0] == window[0] * window[1] - 1).all()
    nothing = backend.module("cpu", "relu_max_pool2d").forward(-x, window=window, stride=16)[1][0]
    assert nothing.dtype == dtype and (nothing == window[0] * window[1]).all()
    dx, = backend.module("cpu", "max_pool2d").backward(y, cache)
    np.testing.assert_array_equal(dx, x)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@all_forms
def test_means_agree(size, options, dtype, no_lucky_zeros):
    rng = np.random.default_rng(0)
    for channels in (1, 6, 19):
        x = rng.standard_normal((2, *size, channels)).astype(dtype)
        for a, b in zip(*both("avg_pool2d", x, **options), strict=True):
            assert a.dtype == b.dtype
            np.testing.assert_allclose(a, b, rtol=0, atol=4 * np.finfo(dtype).eps * abs(b).max())


@pytest.mark.parametrize("size", [(1, 1), (3, 2), (8, 8), (32, 31)])
def test_global_mean_agrees(size, no_lucky_zeros):
    x = np.random.default_rng(0).standard_normal((3, *size, 5))
    for a, b in zip(*both("global_avg_pool", x), strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-15 * max(1, abs(b).max()))


def test_global_mean_is_summed_in_float64():
    x = np.full((1, 64, 64, 2), 0.1, np.float32)
    x[0, 0, 0] = 1e6
    y, _ = backend.module("cpu", "global_avg_pool").forward(x)
    np.testing.assert_array_equal(y, x.astype(np.float64).mean(axis=(1, 2)).astype(np.float32))


@pytest.mark.parametrize("op", ["max_pool2d", "avg_pool2d"])
@pytest.mark.parametrize("where", [(0, 0), (2, 3), (4, 4)])
def test_a_nan_stays_in_the_windows_that_see_it(op, where):
    x = np.zeros((2, 5, 5, 17), np.float32)
    x[1, *where, 16] = NAN
    for options in ({"window": 2}, {"window": 3, "stride": 2, "pad": 1}, {"window": 3, "stride": 1}):
        ours, theirs = both(op, x, **options)
        np.testing.assert_array_equal(np.isnan(ours[0]), np.isnan(theirs[0]))


@pytest.mark.parametrize("op", ["max_pool2d", "avg_pool2d", "global_avg_pool"])
def test_a_nan_in_dy_reaches_what_it_belongs_to(op):
    options = {} if op == "global_avg_pool" else {"window": 3, "stride": 2, "pad": 1}
    x = np.random.default_rng(0).standard_normal((2, 5, 5, 3))
    dy = np.ones(backend.module("reference", op).forward(x, **options)[0].shape)
    dy[1, ..., 2] = NAN
    ours, theirs = both(op, x, dy, **options)
    np.testing.assert_array_equal(np.isnan(ours[1]), np.isnan(theirs[1]))


@pytest.mark.parametrize(("op", "options"), [("max_pool2d", {"window": 2}), ("avg_pool2d", {"window": 2}),
                                             ("global_avg_pool", {})])
def test_views_and_batches_of_any_size(op, options):
    rng = np.random.default_rng(0)
    for n, channels in itertools.product((0, 1, 5), (1, 3, 16, 35)):
        wide = rng.integers(-9, 9, (n, channels, 8, 12)).astype(np.float32)
        for x in (wide.transpose(0, 2, 3, 1), wide.transpose(0, 3, 2, 1)[:, ::-2, ::3]):
            y, back = backend.run(op, x, **options)
            dy = np.ones((*y.shape[::-1],), np.float32).T
            with backend.use("reference"):
                theirs, their_back = backend.run(op, x, **options)
            np.testing.assert_allclose(y, theirs, rtol=1e-6)
            np.testing.assert_allclose(back(dy)[0], their_back(dy)[0], rtol=1e-6)
