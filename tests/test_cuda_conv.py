"""The CUDA convolutions on the emulator: exact on small integers in every type, whichever way they take."""

import math

import numpy as np
import pytest
from emulator import engine
from emulator.arrays import emulated

from fastnet import backend, shapes
from fastnet.check.contract import same_bits
from fastnet.kernels.cuda import _conv3x3, _conv_plain, _conv_taps, _launch, _parts, conv2d
from fastnet.kernels.cuda import conv2d_relu_max_pool2d as fused

engine.install()
ml_dtypes = pytest.importorskip("ml_dtypes")
TYPES = {"float": np.float32, "double": np.float64, "half": np.float16, "bf16": ml_dtypes.bfloat16}
on_every_type = pytest.mark.parametrize("dtype", TYPES.values(), ids=TYPES)
REFERENCE = backend.module("reference", "conv2d")


def integers(shape, dtype, seed, most=2):
    return np.random.default_rng([seed, *shape]).integers(-most, most + 1, shape).astype(dtype)


def passes(module, x, w, b, dy, **options):
    y, cache = module.forward(x, w, b, **options)
    return [y, *module.backward(dy(y), cache)]


def assert_exact(x_shape, w_shape, dtype, **options):
    wide = _launch.accumulator(dtype)
    x, w, b = integers(x_shape, dtype, 0), integers(w_shape, wide, 1, 1), integers(w_shape[3:], wide, 2)
    exact = passes(REFERENCE, *(a.astype(np.float64) for a in (x, w, b)),
                   lambda y: integers(y.shape, np.float64, 3), **options)
    ours = passes(conv2d, *map(emulated, (x, w, b)), lambda y: emulated(integers(y.shape, dtype, 3)), **options)
    for name, a, e in zip(("y", "dx", "dw", "db"), ours, exact, strict=True):
        stored = name in ("y", "dx")
        assert a.dtype == (x.dtype if stored else wide), name
        assert np.abs(e).max() < (256 if stored else 1 << 20), name  # whole numbers that the type holds
        np.testing.assert_array_equal(a.get().astype(np.float64), e, name)


SHAPES = [
    ((2, 7, 6, 5), (3, 3, 5, 17), {"pad": 1}),
    ((1, 9, 8, 18), (3, 2, 9, 34), {"stride": 2, "pad": (1, 2), "groups": 2}),
    ((3, 6, 7, 70), (1, 1, 70, 66), {"stride": (2, 1)}),
    ((2, 8, 7, 17), (2, 3, 17, 16), {"pad": 2, "dilation": (1, 2), "stride": (3, 1)}),
]


@pytest.mark.parametrize("few", [0, 1 << 30], ids=["tiles", "direct"])
@pytest.mark.parametrize(("x_shape", "w_shape", "options"), SHAPES, ids=[str(row[1]) for row in SHAPES])
@on_every_type
def test_exact_on_integers(dtype, x_shape, w_shape, options, few, monkeypatch):
    """Tails of tiles, several groups, grids that go round, and sums over pixels in parts."""
    monkeypatch.setattr(_conv_plain, "FEW", few)
    monkeypatch.setattr(_parts, "UNIT", 10)
    monkeypatch.setattr(_launch, "MOST_BLOCKS", 5)
    assert_exact(x_shape, w_shape, dtype, **options)


NARROW = pytest.mark.parametrize("dtype", [TYPES["half"], TYPES["bf16"]], ids=["half", "bf16"])


@NARROW
@pytest.mark.parametrize(("size", "x_shape", "outputs"), [
    ((128, 128), (2, 9, 7, 128), 128), ((256, 64), (5, 8, 8, 64), 64), ((128, 64), (2, 6, 6, 192), 64),
    ((128, 64), (1, 6, 64, 64), 64), ((128, 64), (1, 1, 1, 64), 64)], ids=str)
def test_tensor_cores_are_exact_on_integers(dtype, size, x_shape, outputs, monkeypatch):
    """Tails, images larger than a tile and smaller, up to three times 64 channels, blocks that take several tiles."""
    monkeypatch.setattr(_conv3x3, "SIZES", (size, _conv3x3.SIZES[-1]))
    monkeypatch.setattr(_conv3x3, "ENOUGH", 1)
    monkeypatch.setattr(_conv3x3, "DW_BLOCKS", 1)
    monkeypatch.setattr(_launch, "MOST_BLOCKS", 2)
    assert_exact(x_shape, (3, 3, x_shape[3], outputs), dtype, pad=1)


@NARROW
@pytest.mark.parametrize("stride", [1, 2])
def test_tensor_cores_keep_the_limits(dtype, stride):
    """Norm of the error over the norm, against float64 on the numbers that the type holds; the same bits in any order.

    All arrays are views that start where no 16 bytes can be read at once, and dw is a sum of parts.
    """
    rng = np.random.default_rng(4)
    x, w, b, dy = (rng.standard_normal(s) for s in ((2, 9 * stride, 8 * stride, 64), (3, 3, 64, 64), (64,),
                                                    (2, 9, 8, 64)))
    x, dy = x.astype(dtype), dy.astype(dtype)
    w, b = (w / 24).astype(np.float32), b.astype(np.float32)
    exact = passes(REFERENCE, *(a.astype(np.float64) for a in (x, w.astype(dtype), b)),
                   lambda y: dy.astype(np.float64), pad=1, stride=stride)
    runs = []
    for seed, copies in enumerate(engine.COPIES):
        with engine.schedule(seed, copies):
            runs.append(passes(conv2d, *map(shifted, (x, w, b)), lambda y: shifted(dy), pad=1, stride=stride))
    stored = 4e-4 if dtype == np.float16 else 2.5e-3
    for a, other, another, e, limit in zip(*runs, exact, (stored, stored, 1e-4, 1e-4), strict=True):
        assert same_bits(a, other)
        assert same_bits(a, another)
        assert np.linalg.norm(a.get().astype(np.float64) - e) <= limit * np.linalg.norm(e)


def shifted(x):
    """x on the device as a contiguous view that starts at its second entry."""
    return emulated(np.concatenate([x.ravel()[:1], x.ravel()]))[1:].reshape(x.shape)


TAPS = [
    ((2, 9, 8, 64), (3, 3, 64, 128), {"pad": 1, "stride": 2}), ((3, 8, 7, 128), (1, 1, 128, 64), {"stride": 2}),
    ((1, 9, 13, 64), (2, 5, 64, 64), {"pad": (0, 3), "dilation": (3, 1), "stride": (1, 3)}),
    ((1, 2, 66, 64), (3, 3, 64, 64), {"pad": 1})]


@NARROW
@pytest.mark.parametrize(("x_shape", "w_shape", "options"), TAPS, ids=[str(row[1:]) for row in TAPS])
def test_tap_by_tap_is_exact_on_integers(dtype, x_shape, w_shape, options, monkeypatch):
    """Strides: of dx some pixels are reached by some taps, some by none; dw in parts of several tiles, and in one."""
    monkeypatch.setattr(_conv_taps, "DW_BLOCKS", 1 if "stride" in options else 512)
    monkeypatch.setattr(_launch, "MOST_BLOCKS", 3)
    assert_exact(x_shape, w_shape, dtype, **options)


@pytest.mark.parametrize(("x_shape", "outputs", "options", "way"), [
    ((2, 8, 8, 64), 128, {"pad": 1}, _conv3x3), ((2, 8, 8, 64), 96, {"pad": 1}, _conv_plain),
    ((2, 8, 8, 96), 64, {"pad": 1}, _conv_plain), ((2, 8, 8, 64), 64, {}, _conv_taps),
    ((2, 2, 65, 64), 64, {"pad": 1}, _conv_taps), ((2, 8, 8, 64), 64, {"pad": 1, "stride": 2}, _conv_taps),
    ((2, 9, 9, 64), 64, {"pad": (1, 2)}, _conv_taps), ((2, 8, 8, 64), 64, {"pad": 1, "dilation": (1, 2)}, _conv_taps),
    ((2, 8, 8, 128), 128, {"pad": 1, "groups": 2}, _conv_plain)])
def test_which_way(x_shape, outputs, options, way):
    options = {"stride": 1, "pad": 0, "dilation": 1, "groups": 1, **options}
    for name, dtype in TYPES.items():
        x, w = np.empty(x_shape, dtype), np.empty((3, 3, x_shape[3] // options["groups"], outputs), np.float32)
        g = conv2d.geometry(x.shape, w.shape, **options)
        assert conv2d.way(x, g) is (way if name in ("half", "bf16") else _conv_plain)


POOLED = [
    ((3, 9, 8, 3), (3, 3, 3, 6), {"pad": 1, "window": 2}),
    ((2, 9, 11, 5), (2, 3, 5, 17), {"stride": (1, 2), "pad": 1, "window": 2, "pool_stride": 3, "pool_pad": 1,
                                    "ceil_mode": True}),
    ((2, 7, 12, 6), (3, 2, 3, 34), {"groups": 2, "window": (1, 4), "dilation": (2, 1)}),
    ((2, 12, 7, 4), (1, 3, 2, 6), {"groups": 2, "pad": (0, 1), "window": (3, 1), "pool_stride": (4, 2)}),
]


@pytest.mark.parametrize("few", [0, 1 << 30], ids=["tiles", "direct"])
@pytest.mark.parametrize(("x_shape", "w_shape", "options"), POOLED, ids=[str(row[2]) for row in POOLED])
@on_every_type
def test_one_pass_pools_as_two_do(dtype, x_shape, w_shape, options, few, monkeypatch):
    """Small integers, so nearly all windows have ties, and NaNs: values and winners are those of the two passes."""
    monkeypatch.setattr(_conv_plain, "FEW", few)
    monkeypatch.setattr(_launch, "MOST_BLOCKS", 2)
    wide, calls = _launch.accumulator(dtype), []
    x, w, b = integers(x_shape, dtype, 0, 1), integers(w_shape, wide, 1, 1), integers(w_shape[3:], wide, 2, 1)
    x[0, 2:5, 2:5, 1] = np.nan
    taps, pooled = math.prod(shapes.pair("", "", options["window"], 1)), _conv_plain.pooled
    monkeypatch.setattr(_conv_plain, "pooled", lambda *a: calls.append(a) or pooled(*a))
    arrays, runs = list(map(emulated, (x, w, b))), []
    for apart in (True, False):
        if not apart:
            monkeypatch.setattr(_conv_plain, "pools", lambda g, pool: False)
        y, cache = fused.forward(*arrays, **options)
        _, (winners, _) = cache
        dy = emulated(integers(y.shape, dtype, 3))
        runs.append([y, winners, *fused.backward(dy, cache)])
    assert len(calls) == int(taps == 4 or few > 0)
    assert np.isnan(runs[0][0].get()).any() and (runs[0][1].get() == taps).any()
    for a, e in zip(*runs, strict=True):
        np.testing.assert_array_equal(a.get().astype(np.float64), e.get().astype(np.float64))


@NARROW
@pytest.mark.parametrize(("size", "x_shape", "outputs"), [
    ((128, 128), (2, 6, 8, 128), 128), ((256, 64), (5, 2, 32, 64), 64), ((128, 64), (3, 4, 2, 64), 64),
    ((128, 64), (1, 10, 16, 128), 64)], ids=str)
def test_tensor_cores_pool_as_two_passes_do(dtype, size, x_shape, outputs, monkeypatch):
    """Whole tiles and tails, one image's lines in a warp and several images'; ties, and NaNs."""
    monkeypatch.setattr(_conv3x3, "SIZES", (size, _conv3x3.SIZES[-1]))
    monkeypatch.setattr(_conv3x3, "ENOUGH", 1)
    monkeypatch.setattr(_launch, "MOST_BLOCKS", 2)
    x, w, b = (integers(shape, kind, i, 1) for i, (shape, kind) in enumerate((
        (x_shape, dtype), ((3, 3, x_shape[3], outputs), np.float32), ((outputs,), np.float32))))
    x[0, 1, 1, 5] = np.nan
    b -= 8  # so that in some windows nothing wins
    calls, pooled = [], _conv3x3.pooled
    monkeypatch.setattr(_conv3x3, "pooled", lambda *a: calls.append(a) or pooled(*a))
    arrays, runs = list(map(emulated, (x, w, b))), []
    for apart in (True, False):
        if not apart:
            monkeypatch.setattr(_conv3x3, "pools", lambda g, pool: False)
        y, (_, (winners, _)) = fused.forward(*arrays, pad=1, window=2)
        runs.append([y.get().astype(np.float64), winners.get()])
    assert len(calls) == 1
    assert np.isnan(runs[0][0]).any() and set(np.unique(runs[0][1])) == set(range(5))
    for a, e in zip(*runs, strict=True):
        np.testing.assert_array_equal(a, e)


@pytest.mark.parametrize(("size", "window", "stride", "one_pass"), [
    ((8, 8), 2, None, True), ((2, 32), 2, None, True), ((7, 8), 2, None, False), ((8, 6), 2, None, False),
    ((8, 64), 2, None, False), ((8, 8), 2, 1, False), ((8, 8), (1, 4), None, False), ((8, 1), (2, 1), None, False)])
def test_which_windows_go_in_one_pass_on_tensor_cores(size, window, stride, one_pass):
    x, w = np.empty((2, *size, 64), np.float16), np.empty((3, 3, 64, 64), np.float32)
    g, pool = fused._geometries(x, w, (1, 1, 1, 1), (window, stride, 0, False))
    assert conv2d.way(x, g) is _conv3x3 and _conv3x3.pools(g, pool) is one_pass


@pytest.mark.parametrize(("outputs", "window", "stride", "one_pass"), [
    (4, 2, None, True), (16, 2, None, True), (4, (2, 1), None, True), (16, (2, 1), None, False), (4, 2, 1, False),
    (4, 2, 3, True), (4, (2, 3), 3, False), (4, (1, 4), (1, 3), False)])
def test_which_windows_go_in_one_pass(outputs, window, stride, one_pass):
    """Not those that overlap, whose outputs would be computed several times; nor more than a thread can hold."""
    x, w = np.empty((2, 8, 8, 3), np.float32), np.empty((3, 3, 3, outputs), np.float32)
    g, pool = fused._geometries(x, w, (1, 0, 1, 1), (window, stride, 0, False))
    assert _conv_plain.pools(g, pool) is one_pass
