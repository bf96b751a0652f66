"""What the CUDA kernels of batch normalisation and pooling must do beyond the contract of their ops, on the emulator.

Channels in sixteen bytes and one by one, more of them than a block has at a time, several chunks of rows, and numbers
that are exact in every type wherever a kernel only adds and multiplies.
"""

import itertools

import numpy as np
import pytest
from emulator import engine
from emulator.arrays import emulated

from fastnet import backend
from fastnet.arrays import to_numpy
from fastnet.kernels.cuda import _batch_norm, _launch
from fastnet.kernels.cuda._launch import Kernel

engine.install()
ml_dtypes = pytest.importorskip("ml_dtypes")
TYPES = {"float": np.float32, "double": np.float64, "half": np.float16, "bf16": ml_dtypes.bfloat16}
on_every_type = pytest.mark.parametrize("dtype", TYPES.values(), ids=TYPES)
FIXED = ["batch_norm_fixed", "batch_norm_fixed_relu", "batch_norm_fixed_add_relu"]
NORMS = ["batch_norm", "batch_norm_relu", "batch_norm_add_relu"]
# Rows and channels: one row, one channel; packs and none; more channels than the threads of a row take; two chunks.
SHAPES = [(1, 1), (3, 7), (70, 24), (33, 272), (5, 37)]


def integers(shape, dtype, seed=0, least=-2):
    return np.random.default_rng([seed, *shape]).integers(least, 3, shape).astype(dtype)


def assert_equal(ours, theirs):
    """In value; what is None has to be None in both."""
    for a, b in zip(ours, theirs, strict=True):
        assert (a is None) == (b is None)
        if a is not None:
            np.testing.assert_array_equal(to_numpy(a).astype(np.float64), b)


def against_reference(op, arrays, dy, **options):
    """Both passes on the device and by the reference in float64, held equal."""
    module, reference = backend.module("cuda", op), backend.module("reference", op)
    on_device = list(map(emulated, arrays))
    assert module.supports(*on_device, **options)
    y, cache = module.forward(*on_device, **options)
    theirs, their_cache = reference.forward(*(a.astype(np.float64) for a in arrays), **options)
    assert y.dtype == arrays[0].dtype
    gradients = module.backward(emulated(dy), cache)
    assert_equal([y, *gradients], [theirs, *reference.backward(dy.astype(np.float64), their_cache)])
    return to_numpy(y)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("op", FIXED)
@on_every_type
def test_batch_norm_is_exact_on_integers(dtype, op, shape):
    """With variances that make rstd a power of two there is nothing to round, sums included."""
    wide, channels = _launch.accumulator(dtype), shape[1:]
    gamma, beta, mean = (integers(channels, wide, seed) for seed in range(3))
    var = np.where(integers(channels, wide, 3) > 0, 3.5, 0.5).astype(wide)
    arrays = [integers(shape, dtype, 4), gamma, beta, mean, var]
    if op.endswith("add_relu"):
        arrays.append(integers(shape, dtype, 5))
    against_reference(op, arrays, integers(shape, dtype, 6), eps=0.5)


@pytest.mark.parametrize("op", NORMS)
@on_every_type
def test_gradients_of_beta_and_shortcut_are_exact_on_integers(dtype, op):
    shape = (70, 40)
    arrays = [integers(shape, dtype), *np.ones((2, 40), _launch.accumulator(dtype))]
    arrays += [integers(shape, dtype, 1)] * op.endswith("add_relu")
    y, back = backend.run(op, *map(emulated, arrays))
    dy = integers(shape, dtype, 2)
    masked = dy.astype(np.float64) * (True if op == "batch_norm" else to_numpy(y) > 0)
    _, _, dbeta, *dshortcut = back(emulated(dy))
    assert_equal([dbeta, *dshortcut], [masked.sum(axis=0), *([masked] if dshortcut else [])])


def _far(rng, shape):
    return 30 + rng.standard_normal(shape)


def _far_in_one_row(rng, shape):
    x = rng.standard_normal(shape)
    x[0] += 1000
    return x


@pytest.mark.parametrize("shape", [(2000, 8), (67, 3)], ids=str)
@pytest.mark.parametrize("draw", [_far, _far_in_one_row])
@pytest.mark.parametrize("op", NORMS)
@on_every_type
def test_statistics_far_from_zero(dtype, op, draw, shape, monkeypatch):
    """The mean to 1e-5 sigma and the variance to 1e-4, also with the mean 30 sigma off, of what the type can hold.

    In fact the mean is rounded once, to the nearest number of the type: that is 1e-6 sigma.
    """
    monkeypatch.setattr(_batch_norm, "LEAST_ROWS", 1)
    monkeypatch.setattr(_batch_norm, "MOST_CHUNKS", 250)
    x = draw(np.random.default_rng(0), shape).astype(dtype)
    arrays = [x, *np.ones((2, shape[1]), _launch.accumulator(dtype)), *([x] if op.endswith("add_relu") else [])]
    module = backend.module("cuda", op)
    mean, var = map(to_numpy, module.statistics(module.forward(*map(emulated, arrays))[1]))
    precise = x.astype(np.float64)
    assert mean.dtype == var.dtype == _launch.accumulator(dtype)
    assert (np.abs(mean - precise.mean(axis=0)) <= 2e-6 * precise.std(axis=0)).all()
    np.testing.assert_allclose(var, precise.var(axis=0), rtol=1e-4)


def test_no_variance_is_negative(monkeypatch):
    """All rows alike but the first, which the others are held against: nearly everything cancels."""
    monkeypatch.setattr(_batch_norm, "MOST_CHUNKS", 1)
    x = np.empty((100_000, 32), np.float32)
    x[:] = np.random.default_rng(0).uniform(100, 200, 32)
    x[0] = 0
    module = backend.module("cuda", "batch_norm")
    y, cache = module.forward(*map(emulated, (x, *np.ones((2, 32), np.float32))))
    assert (to_numpy(module.statistics(cache)[1]) >= 0).all()
    assert np.isfinite(to_numpy(y)).all()


@pytest.mark.parametrize("op", NORMS + FIXED)
@on_every_type
def test_a_nan_spoils_its_channel(dtype, op):
    """Where statistics are of the batch; else it stays where it is. ReLU does not hide it."""
    x = integers((9, 8), dtype)
    x[4, 5] = np.nan
    arrays = [x, *np.ones((4 if op in FIXED else 2, 8), _launch.accumulator(dtype))]
    arrays += [integers((9, 8), dtype, 1)] * op.endswith("add_relu")
    y, _ = backend.run(op, *map(emulated, arrays))
    expected = np.isnan(x.astype(np.float64))
    if op in NORMS:
        expected[:, 5] = True
    np.testing.assert_array_equal(np.isnan(to_numpy(y).astype(np.float64)), expected)


@pytest.mark.parametrize("op", NORMS + FIXED)
def test_only_what_is_needed_is_computed(op, monkeypatch):
    """Every set of needs gives the gradients of the full pass to the bit, with None elsewhere, in as few launches."""
    rng = np.random.default_rng(0)
    arrays = [rng.standard_normal((9, 5)), *rng.uniform(0.5, 1, (4 if op in FIXED else 2, 5))]
    arrays += [rng.standard_normal((9, 5))] * op.endswith("add_relu")
    module = backend.module("cuda", op)
    _, cache = module.forward(*map(emulated, arrays))
    dy = emulated(rng.standard_normal((9, 5)))
    everything = module.backward(dy, cache)
    launched, call = [], Kernel.__call__
    monkeypatch.setattr(Kernel, "__call__", lambda kernel, *args: launched.append(kernel._name) or call(kernel, *args))
    for needs in itertools.product((True, False), repeat=len(arrays)):
        launched.clear()
        for full, part, needed in zip(everything, module.backward(dy, cache, needs), needs, strict=True):
            assert (part is not None) == needed
            assert not needed or np.array_equal(to_numpy(full), to_numpy(part))
        sums = any(needs[1 : 5 if op in FIXED else 3]) or (needs[0] and op not in FIXED)
        assert ("batch_norm_gradient_sums" in launched) == sums
        assert ("batch_norm_dx" in launched) == needs[0]
        assert ("relu_backward" in launched) == (op.endswith("add_relu") and needs[-1] and not sums)


POOLS = [{"window": 2}, {"window": 3, "stride": 2, "pad": 1}, {"window": (2, 1), "stride": 1, "pad": (1, 0)},
         {"window": (1, 2), "stride": 3, "ceil_mode": True}]


@pytest.mark.parametrize("options", POOLS, ids=str)
@pytest.mark.parametrize("channels", [1, 16])
@pytest.mark.parametrize("op", ["max_pool2d", "relu_max_pool2d"])
@on_every_type
def test_max_pooling_is_exact(dtype, op, channels, options):
    """Five values for all entries: in most windows several are the largest, and the first of them wins."""
    x = integers((2, 5, 6, channels), dtype)
    shape = backend.module("reference", op).forward(x.astype(np.float64), **options)[0].shape
    against_reference(op, [x], integers(shape, dtype, 1), **options)


@pytest.mark.parametrize("options", [
    {"window": 2}, {"window": (4, 2), "stride": (1, 2), "pad": (2, 0), "ceil_mode": True}, {"window": 2, "stride": 3},
], ids=str)
@pytest.mark.parametrize("channels", [3, 8])
@on_every_type
def test_average_pooling_is_exact(dtype, channels, options):
    x = integers((2, 5, 7, channels), dtype)
    shape = backend.module("reference", "avg_pool2d").forward(x.astype(np.float64), **options)[0].shape
    against_reference("avg_pool2d", [x], 8 * integers(shape, dtype, 1), **options)


@pytest.mark.parametrize("shape", [(1, 4, 8, 1), (3, 4, 4, 3), (2, 2, 2, 264)], ids=str)
@on_every_type
def test_global_average_pooling_is_exact(dtype, shape):
    against_reference("global_avg_pool", [integers(shape, dtype)], integers((shape[0], shape[3]), dtype, 1))


@pytest.mark.parametrize("op", ["max_pool2d", "relu_max_pool2d"])
@on_every_type
def test_what_is_no_number_and_what_is_infinite(dtype, op):
    """The first NaN of a window wins; minus infinity beats padding."""
    x = np.full((1, 4, 4, 8), -np.inf, dtype)
    x[0, 0, 1], x[0, 1, 0], x[0, 2, 2], x[0, 3, 3] = np.nan, 7, np.nan, np.nan
    y = against_reference(op, [x], np.ones((1, 2, 2, 8), dtype), window=2)
    assert np.isnan(y[0, [0, 1], [0, 1]].astype(np.float64)).all()
    against_reference(op, [np.full((1, 2, 2, 1), -np.inf, dtype)], np.ones((1, 2, 2, 1), dtype), window=3, pad=1,
                      stride=2, ceil_mode=True)


@pytest.mark.parametrize(("size", "itemsize"), [((15, 17), 1), ((16, 16), 4)])
@pytest.mark.parametrize("op", ["max_pool2d", "relu_max_pool2d"])
def test_windows_of_many_taps(op, size, itemsize):
    """255 taps, and the number of none, fit a byte; more do not."""
    x = np.random.default_rng(0).permutation(np.arange(-500, 18 * 19 * 4 - 500, dtype=np.float32)).reshape(1, 18, 19, 4)
    x[0, :, :, 0] = -1
    shape = backend.module("reference", op).forward(x, window=size, stride=2)[0].shape
    against_reference(op, [x], integers(shape, np.float32), window=size, stride=2)
    _, (winners, _) = backend.module("cuda", op).forward(emulated(x), window=size, stride=2)
    assert winners.dtype.itemsize == itemsize


@on_every_type
def test_views_that_start_anywhere(dtype):
    """Sixteen bytes at a time only where that is possible; every array of a launch has a say."""
    shape = (2, 4, 4, 16)
    flat = integers((2 * 4 * 4 * 16 + 1,), dtype)
    x, shifted = emulated(flat)[:-1].reshape(shape), emulated(flat)[1:].reshape(shape)
    wide = _launch.accumulator(dtype)
    given = [emulated(a) for a in np.stack([np.ones(16), np.zeros(16), np.zeros(16), np.full(16, 0.5)]).astype(wide)]
    for first, second in ((x, shifted), (shifted, x)):
        y, back = backend.run("batch_norm_fixed_add_relu", first, *given, second, eps=0.5)
        a, b = to_numpy(first).astype(np.float64), to_numpy(second).astype(np.float64)
        assert_equal([y], [np.maximum(a + b, 0)])
        assert_equal([back(second)[0]], [b * (a + b > 0)])
        y, back = backend.run("max_pool2d", first, window=1)
        assert_equal([y, back(second)[0]], [a, b])
        y, back = backend.run("avg_pool2d", first, window=1)
        assert_equal([y, back(second)[0]], [a, b])
        assert_equal([backend.run("global_avg_pool", first)[0]], [a.mean(axis=(1, 2)).astype(dtype)])
        _, _, dbeta = backend.run("batch_norm", first, *given[:2])[1](second)
        assert_equal([dbeta], [b.sum(axis=(0, 1, 2))])
    dx, = backend.run("global_avg_pool", x)[1](emulated(flat)[1:33].reshape(2, 16))
    assert_equal([dx], [np.broadcast_to(flat[1:33].reshape(2, 1, 1, 16).astype(np.float64) / 16, shape)])


SPLITS = """#include "channels.cuh"
FN_KERNEL(32) splits(const T* x, const uint64* index, int size, uint64* quotient, int* rest, int64 n) {
    for (int64 i = first_thread(); i < n; i += all_threads()) {
        quotient[i] = index[i];
        rest[i] = split(quotient[i], size);
    }
}
"""


@pytest.mark.parametrize("size", [1, 3, 1000, 2**31 - 1])
def test_indices_beyond_32_bits_are_split(tmp_path, size):
    (tmp_path / "splits.cu").write_text(SPLITS)
    index = np.array([0, 1, 999, 2**31, 2**32 - 1, 2**32, 2**32 + 1, 2**45 + 12345, 2**62 + 1], np.uint64)
    quotient, rest = emulated(np.zeros(len(index), np.uint64)), emulated(np.zeros(len(index), np.int32))
    Kernel(str(tmp_path / "splits"), "splits")(1, emulated(np.zeros(1, np.float32)), emulated(index), size, quotient,
                                               rest, len(index))
    assert [(int(q), int(r)) for q, r in zip(quotient.get(), rest.get(), strict=True)] == [
        divmod(int(i), size) for i in index]
