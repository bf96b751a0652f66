"""What the CUDA kernels must do beyond the contract of their ops (test_ops.py), on the emulator.

Sums of small integers are exact in every type, so one wrong index shows as a wrong number, whatever the rounding.
"""

from pathlib import Path

import numpy as np
import pytest
from emulator import engine
from emulator.arrays import emulated
from test_philox import KNOWN

from fastnet import backend
from fastnet.check.cases import cases
from fastnet.check.errors import relative_error
from fastnet.functions import philox
from fastnet.kernels.cuda import _launch
from fastnet.ops import batch_norm_relu, linear, relu

engine.install()
ml_dtypes = pytest.importorskip("ml_dtypes")
TYPES = {"float": np.float32, "double": np.float64, "half": np.float16, "bf16": ml_dtypes.bfloat16}
on_every_type = pytest.mark.parametrize("dtype", TYPES.values(), ids=TYPES)


def integers(shape, dtype, seed=0):
    return np.random.default_rng([seed, *shape]).integers(-2, 3, shape).astype(dtype)


def rounded_perceptron(x, vector, dy, layers, dtype):
    """`fastnet.ops.perceptron` in float64, rounded to `dtype` wherever a kernel stores: y and the gradients."""
    def stored(a):
        return a.astype(dtype).astype(np.float64)

    dvector, caches, z = np.zeros_like(vector), [], x
    for layer in layers:
        w, b, gamma, beta = layer.parameters(vector)
        y, active = relu.forward(z) if gamma is None else batch_norm_relu.forward(z, gamma, beta, eps=layer.eps)
        y = stored(y)
        z, product = linear.forward(y, w, b)
        z = stored(z)
        caches.append((y if gamma is None else active, product))
    for (active, product), layer in zip(reversed(caches), reversed(layers), strict=True):
        w, b, gamma, beta = layer.parameters(dvector)
        dy, w[...], db = linear.backward(dy, product)
        if b is not None:
            b[...] = db
        dy = stored(dy)
        if gamma is None:
            dy, = relu.backward(dy, active)
        else:
            dy, gamma[...], beta[...] = batch_norm_relu.backward(dy, active)
        dy = stored(dy)
    return z, dy, dvector


@pytest.mark.parametrize("dtype", ["half", "bf16"])
@pytest.mark.parametrize("case", cases("perceptron"), ids=lambda case: case.label)
def test_a_perceptron_rounds_where_its_ops_store(case, dtype):
    """Nothing but that: far within the bounds of `test_ops.py`, which have to hold for sums of such roundings.

    For most dy, that is: now and then a number is so near to the middle of two that float32 takes the other one.
    """
    x, vector = case.arrays[0].astype(TYPES[dtype]), case.arrays[1].astype(np.float32)
    y, back = backend.run("perceptron", emulated(x), emulated(vector), **case.options)
    errors = []
    for seed in range(5):
        dy = np.random.default_rng(seed).normal(size=y.shape).astype(TYPES[dtype])
        expected = rounded_perceptron(*(a.astype(np.float64) for a in (x, vector, dy)), case.options["layers"],
                                      TYPES[dtype])
        errors.append([relative_error(a.get().astype(np.float64), b)
                       for a, b in zip((y, *back(emulated(dy))), expected, strict=True)])
    assert np.median(errors, axis=0).max() < 1e-6


@pytest.mark.parametrize("blocks", [2, 2048])
@pytest.mark.parametrize(("n", "features", "outputs"), [(1, 1, 1), (3, 64, 64), (64, 17, 65), (70, 48, 33),
                                                        (5, 40, 140)])
@on_every_type
def test_linear_is_exact_on_integers(dtype, n, features, outputs, blocks, monkeypatch):
    """Tails of tiles, one row, and a grid that has to go round."""
    monkeypatch.setattr(_launch, "MOST_BLOCKS", blocks)
    wide = _launch.accumulator(dtype)
    x, w, b = integers((n, features), dtype), integers((features, outputs), wide), integers((outputs,), wide)
    dy = integers((n, outputs), dtype, 1)
    y, back = backend.run("linear", *map(emulated, (x, w, b)))
    for result, expected in zip((y, *back(emulated(dy))), (x.astype(wide) @ w + b, dy.astype(wide) @ w.T,
                                                           x.T.astype(wide) @ dy.astype(wide),
                                                           dy.astype(wide).sum(axis=0)), strict=True):
        assert np.abs(expected).max() < 256
        np.testing.assert_array_equal(result.get().astype(np.float64), expected)


@on_every_type
@pytest.mark.parametrize("start", range(5))
def test_elementwise_kernels_on_views_that_start_anywhere(dtype, start):
    """Sixteen bytes at a time only where that is possible, and the tail entry by entry."""
    for size in (1, 3, 16, 1030):
        x = integers((size + start,), dtype)
        y, back = backend.run("relu", emulated(x)[start:])
        np.testing.assert_array_equal(y.get(), np.maximum(x[start:], 0))
        np.testing.assert_array_equal(back(y)[0].get(), np.maximum(x[start:], 0))
        view = emulated(x)[start:]
        np.testing.assert_array_equal(backend.call("add", view, y).get(), x[start:] + y.get())


def test_the_rounds_of_philox_give_the_known_answers():
    counters, keys, answers = (np.array(column, np.uint32) for column in zip(*KNOWN, strict=True))
    words = emulated(np.zeros((len(KNOWN), 4), np.uint32))
    rounds = _launch.Kernel(str(Path(__file__).parent / "emulator" / "philox_words"), "rounds")
    rounds(1, emulated(counters), emulated(keys), words, len(KNOWN))
    np.testing.assert_array_equal(words.get(), answers)


@pytest.mark.parametrize("count", [1, 4, 7, 64])
@pytest.mark.parametrize(("seed", "stream", "epoch"), [(0, 0, 0), (2**32 - 1, philox.SHUFFLE, 1000),
                                                       (2**64 - 1, 2**32 - 1, 2**32 - 1)])
def test_random_words_are_the_reference_s(count, seed, stream, epoch):
    key = {"seed": seed, "stream": stream, "epoch": epoch, "count": count}
    for samples in (np.array([2**32 - 1]), np.arange(300, dtype=np.int32)[::-7]):
        with backend.use("cuda"):
            words = backend.call("philox", emulated(samples), **key)
        assert words.dtype == np.uint32
        np.testing.assert_array_equal(words.get(), philox.run(samples, **key))


@pytest.mark.parametrize("blocks", [1, 2048])
@pytest.mark.parametrize(("shape", "start"), [((5, 4), 0), ((3, 2, 6, 2), 4), ((3, 8), 1), ((6, 7), 0), ((4, 1), 0)])
@on_every_type
def test_dropout_has_the_bits_of_the_reference(dtype, shape, start, blocks, monkeypatch):
    """Four entries at a time where they lie so, and not where a view starts elsewhere or rows are of another length."""
    monkeypatch.setattr(_launch, "MOST_BLOCKS", blocks)
    rng = np.random.default_rng(0)
    base = rng.normal(size=start + np.prod(shape)).astype(dtype)
    x, samples, options = base[start:].reshape(shape), rng.integers(0, 2**32, shape[0]), {"p": 0.4, "key": (3, 1, 2)}
    wide = x.astype(_launch.accumulator(dtype))
    expected = backend.module("reference", "dropout").forward(wide, samples, **options)[0].astype(dtype)
    with backend.use("cuda"):
        y, back = backend.run("dropout", emulated(base)[start:].reshape(shape), emulated(samples), **options)
    bits = f"u{y.dtype.itemsize}"
    np.testing.assert_array_equal(y.get().view(bits), expected.view(bits))
    np.testing.assert_array_equal(back(emulated(x))[0].get().view(bits), expected.view(bits))


def test_a_word_at_the_threshold_keeps_its_entry():
    samples, key = np.array([7]), (3, 1, 2)
    word = int(philox.run(samples, seed=3, stream=1, epoch=2, count=1)[0, 0])
    for threshold, kept in ((word, True), (word + 1, False)):
        y, _ = backend.run("dropout", emulated(np.ones((1, 1), np.float32)), emulated(samples), p=threshold / 2**32,
                           key=key)
        assert bool(y.get()) is kept


def test_a_label_that_is_no_class_makes_the_loss_nan():
    x, labels = np.ones((5, 3), np.float32), np.array([0, 1, 2, 3, 0])
    for wrong in (labels, labels - 3, labels + 2**40):
        y, back = backend.run("softmax_cross_entropy", emulated(x), emulated(wrong))
        assert np.isnan(float(y))
        assert back(1.0)[0].shape == x.shape
    y, back = backend.run("softmax_cross_entropy", emulated(x), emulated(labels % 3))
    assert float(y) == pytest.approx(np.log(3))
    one = emulated(np.float32(1))
    np.testing.assert_array_equal(back(one)[0].get(), back(1.0)[0].get())


@pytest.mark.parametrize("op", ["huber", "mean_squared_error", "sigmoid_cross_entropy", "soft_margin"])
def test_a_label_that_is_no_class_makes_its_row_nan(op):
    x, labels = np.ones((5, 3), np.float32), np.array([0, 3, 2, -1, 0])
    y, back = backend.run(op, emulated(x), emulated(labels))
    assert np.isnan(float(y))
    assert np.isnan(back(1.0)[0].get()).tolist() == [[label in (-1, 3)] * 3 for label in labels]
    one = emulated(np.float32(1))
    np.testing.assert_array_equal(back(one)[0].get(), back(1.0)[0].get())


@pytest.mark.parametrize("op", ["huber", "mean_squared_error", "sigmoid_cross_entropy", "soft_margin"])
def test_gradients_that_nobody_needs_are_not_computed(op, monkeypatch):
    rng = np.random.default_rng(0)
    x, targets = (emulated(rng.normal(size=(7, 3)).astype(np.float32)) for _ in range(2))
    _, back = backend.run(op, x, targets)
    dx, dt = back(1.0)
    some, none = back(1.0, (True, False))
    np.testing.assert_array_equal(some.get(), dx.get())
    none_too, rest = back(1.0, (False, True))
    np.testing.assert_array_equal(rest.get(), dt.get())
    assert none is none_too is None
    monkeypatch.setattr(_launch.Kernel, "__call__", None)
    assert back(1.0, (False, False)) == (None, None)


def test_logits_of_any_size_give_a_finite_loss():
    x = np.array([[1e4, -1e4, 1e38], [-1e38, -1e38, -1e38], [np.nan, 1, 2]], np.float32)
    y, _ = backend.run("softmax_cross_entropy", emulated(x[:2]), emulated(np.array([2, 0])))
    assert float(y) == pytest.approx(np.log(3) / 2)
    y, _ = backend.run("softmax_cross_entropy", emulated(x), emulated(np.array([2, 0, 1])))
    assert np.isnan(float(y))
