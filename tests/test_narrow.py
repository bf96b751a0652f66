"""Convolution of few channels against the reference, in every shape of tile, block, border and spacing."""

import itertools

import numpy as np
import pytest

pytest.importorskip("numba")

import numba

from fastnet.kernels.cpu import _jit, _narrow
from fastnet.kernels.cpu._geometry import geometry
from fastnet.ops import conv2d

BOUNDS = {np.float32: 2e-6, np.float64: 1e-12}
# Kernel, stride, pad, dilation: each of them meets several of the other sizes.
SPACINGS = [(1, 1, 0, 1), (1, 2, 1, 1), (2, 1, 1, 1), (2, 2, 0, 1), (3, 1, 1, 1), (3, (2, 1), (0, 2), 1),
            (3, 1, 2, 2), (3, 2, 1, (1, 3)), (5, 1, 0, 1), (5, 1, 2, 1), (5, (1, 3), 2, (2, 1)), ((1, 5), 1, (0, 2), 1),
            ((5, 2), (3, 1), 4, 1)]
CHANNELS, OUTPUTS, BATCHES = (1, 3, 6), (1, 6, 16, 17, 64), (1, 5, 16, 33)
CASES = [(*spacing, *rest) for spacing, rest in zip(
    SPACINGS * 5, itertools.cycle(itertools.product(CHANNELS, OUTPUTS, BATCHES)), strict=False)]


def _arrays(kernel, channels, outputs, batch, dtype, height=13, width=11):
    rng = np.random.default_rng([channels, outputs, batch])
    kh, kw = (kernel, kernel) if isinstance(kernel, int) else kernel
    x = rng.standard_normal((batch, height, width, channels)).astype(dtype)
    return (x, *(rng.standard_normal(s).astype(dtype) for s in ((kh, kw, channels, outputs), (outputs,))))


def _passes(x, w, b, g, dy):
    return _narrow.forward(x, w, b, g), _narrow.dx(dy, w, x.shape, g), _narrow.dw(x, dy, w.shape, g)


def _assert_agrees(x, w, b, options, dtype):
    g = geometry(x, w, *options, 1)
    assert _narrow.takes(x.shape, w.shape, g)
    precise = [a if a is None else a.astype(np.float64) for a in (x, w, b)]
    wanted, cache = conv2d.forward(*precise, stride=options[0], pad=options[1], dilation=options[2])
    dy = np.random.default_rng(1).standard_normal(wanted.shape).astype(dtype)
    expected = wanted, *conv2d.backward(dy.astype(np.float64), cache)[:2]
    kept = [a.copy() for a in (x, w, dy)]
    for ours, theirs in zip(_passes(x, w, b, g, dy), expected, strict=True):
        assert ours.dtype == dtype and ours.flags.c_contiguous
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=BOUNDS[dtype] * abs(theirs).max())
    for array, copy in zip((x, w, dy), kept, strict=True):
        np.testing.assert_array_equal(array, copy)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(("kernel", "stride", "pad", "dilation", "channels", "outputs", "batch"), CASES)
def test_agrees_with_the_reference(dtype, kernel, stride, pad, dilation, channels, outputs, batch):
    x, w, b = _arrays(kernel, channels, outputs, batch, dtype)
    _assert_agrees(x, w, b if batch != 5 else None, (stride, pad, dilation), dtype)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(("size", "channels", "outputs", "kernel", "pad"),
                         [(32, 3, 6, 5, 0), (14, 6, 16, 5, 0), (32, 3, 64, 3, 1), (1, 1, 1, 1, 0)])
def test_layers_of_the_networks(dtype, size, channels, outputs, kernel, pad):
    """LeNet-5's two layers and the stem of VGG and ResNet; and the smallest there is."""
    x, w, b = _arrays(kernel, channels, outputs, 20, dtype, size, size)
    _assert_agrees(x, w, b, (1, pad, 1), dtype)


def test_sums_of_one_sign_stay_close():
    """Pixels and slopes from [0, 1): the sums of dw grow with every place and round the most."""
    rng = np.random.default_rng(0)
    x, dy = (rng.random(shape, np.float32) for shape in ((128, 32, 32, 3), (128, 28, 28, 6)))
    w = np.zeros((5, 5, 3, 6), np.float32)
    expected = conv2d.backward(dy.astype(np.float64), (x, w, None, 1, 0, 1, 1), (False, True, False))[1]
    ours = _narrow.dw(x, dy, w.shape, geometry(x, w, 1, 0, 1, 1))
    np.testing.assert_allclose(ours, expected, rtol=2e-6, atol=0)


@pytest.mark.parametrize(("channels", "outputs", "kernel"), [(3, 6, 5), (6, 16, 5)])
def test_any_number_of_threads(channels, outputs, kernel):
    if numba.config.NUMBA_NUM_THREADS < 2:
        pytest.skip("one core")
    x, w, b = _arrays(kernel, channels, outputs, 100, np.float32)
    g = geometry(x, w, 1, 0, 1, 1)
    dy = np.random.default_rng(2).standard_normal((100, g.out_h, g.out_w, outputs)).astype(np.float32)
    assert x.size * w.size // channels // 8 >= _jit.PARALLEL_WORK
    threads, runs = numba.get_num_threads(), []
    try:
        for count in (1, 2):
            numba.set_num_threads(count)
            runs.append(_passes(x, w, b, g, dy))
    finally:
        numba.set_num_threads(threads)
    for one, two in zip(*runs, strict=True):
        np.testing.assert_array_equal(one, two)


def test_an_image_does_not_depend_on_its_batch():
    x, w, b = _arrays(5, 3, 6, 37, np.float32)
    g = geometry(x, w, 1, 2, 1, 1)
    y = _narrow.forward(x, w, b, g)
    dx = _narrow.dx(y, w, x.shape, g)
    for n in (0, 15, 16, 36):
        one = x[n : n + 1]
        np.testing.assert_array_equal(_narrow.forward(one, w, b, g), y[n : n + 1])
        np.testing.assert_array_equal(_narrow.dx(y[n : n + 1], w, one.shape, g), dx[n : n + 1])


def test_nan_stays_in_its_image():
    x, w, b = _arrays(3, 3, 6, 20, np.float32)
    x[4, 5, 5, 1] = np.nan
    y = _narrow.forward(x, w, b, geometry(x, w, 1, 1, 1, 1))
    expected = np.zeros(y.shape, bool)
    expected[4, 4:7, 4:7] = True
    np.testing.assert_array_equal(np.isnan(y), expected)


def test_what_it_takes():
    x, w = np.zeros((1, 32, 32, 3), np.float32), np.zeros((3, 3, 3, 64), np.float32)
    g = geometry(x, w, 1, 1, 1, 1)
    assert _narrow.takes(x.shape, w.shape, g)
    assert not _narrow.takes(x.shape, w.shape, g._replace(groups=3))
    assert not _narrow.takes((1, 32, 32, 64), (3, 3, 64, 64), g)
    assert not _narrow.takes((1, 224, 224, 3), (11, 11, 3, 64), g)
