"""The depthwise kernels against the reference convolution: every form of window, and the same bits on any threads."""

import itertools

import numpy as np
import pytest

from fastnet import backend
from fastnet.check.contract import same_bits
from fastnet.check.errors import relative_error

pytest.importorskip("numba")

from fastnet.kernels.cpu import _depthwise, _depthwise_dw, _jit
from fastnet.kernels.cpu._geometry import geometry

BOUND = {"float32": 1e-6, "float64": 1e-14}  # of the largest entry: nine roundings, as in a sum of so many taps
# (H, W), channels, outputs a channel, (KH, KW), stride, pad, dilation
FORMS = [
    ((8, 8), 16, 1, (3, 3), 1, 1, 1), ((7, 9), 5, 1, (3, 3), 2, 1, 1), ((16, 15), 33, 1, (3, 3), 2, 1, 1),
    ((1, 1), 7, 1, (3, 3), 1, 1, 1), ((4, 4), 40, 1, (3, 3), 1, 1, 1), ((2, 3), 4, 1, (3, 3), 2, 1, 1),
    ((9, 8), 3, 1, (3, 3), 1, 0, 1), ((5, 6), 6, 1, (3, 3), 1, 3, 1), ((12, 13), 4, 1, (3, 3), 1, 2, 2),
    ((12, 11), 33, 1, (5, 3), (2, 3), (2, 1), (1, 2)), ((11, 14), 20, 1, (3, 3), 2, 4, 3),
    ((10, 11), 9, 1, (3, 3), 3, 2, 3), ((14, 9), 8, 1, (3, 3), 2, 2, 4),
    ((6, 6), 3, 2, (2, 2), 3, 0, 1), ((9, 9), 4, 3, (3, 3), 2, 1, 1), ((13, 20), 17, 1, (1, 1), 2, 0, 1),
    ((5, 30), 4, 1, (3, 3), 4, 1, 1), ((9, 17), 18, 1, (4, 5), 1, 2, 1), ((37, 37), 2, 1, (37, 35), 1, 18, 1),
]


def passes(form, dtype, images=3, bias=True):
    """(ours, theirs): y, dx and dw of the kernels, and of the reference in float64."""
    size, channels, times, kernel, stride, pad, dilation = form
    rng = np.random.default_rng(0)
    x = rng.standard_normal((images, *size, channels)).astype(dtype)
    w = rng.standard_normal((*kernel, 1, channels * times)).astype(dtype)
    b = rng.standard_normal(channels * times).astype(dtype) if bias else None
    g = geometry(x, w, stride, pad, dilation, channels)
    assert _depthwise.takes(x, w, g)
    y = _depthwise.forward(x, w, b, g)
    dy = rng.standard_normal(y.shape).astype(dtype)
    ours = y, _depthwise.dx(dy, w, x.shape, g), _depthwise.dw(x, dy, w.shape, g)
    with backend.use("reference"):
        theirs, back = backend.run("conv2d", *(None if a is None else a.astype(float) for a in (x, w, b)),
                                   stride=stride, pad=pad, dilation=dilation, groups=channels)
    return ours, (theirs, *back(dy.astype(float))[:2])


@pytest.fixture
def no_lucky_zeros(monkeypatch):
    """New arrays are full of NaN: an entry that a kernel leaves alone shows."""
    monkeypatch.setattr(_depthwise, "empty", lambda shape, dtype: np.full(shape, np.nan, dtype))
    monkeypatch.setattr(_depthwise_dw, "given", lambda into, shape, dtype: np.full(shape, np.nan, dtype))


@pytest.mark.parametrize("dtype", BOUND)
@pytest.mark.parametrize("form", FORMS, ids=str)
def test_is_the_reference(form, dtype, no_lucky_zeros):
    for name, a, b in zip(("y", "dx", "dw"), *passes(form, dtype), strict=True):
        assert (a.dtype, a.shape) == (np.dtype(dtype), b.shape)
        assert relative_error(a.astype(float), b) <= BOUND[dtype] * (4 if form[3][0] > 30 else 1), name


@pytest.mark.parametrize("size", [1, 2, 3, 4, 5, 7, 8, 9, 16, 17, 31, 36, 37])
def test_every_size(size):
    for kernel, stride, pad in itertools.product((1, 2, 3, 5), (1, 2, 3), (0, 1, 2)):
        if size + 2 * pad >= kernel:
            form = (size, size), 3, 1, (kernel, kernel), stride, pad, 1
            for a, b in zip(*passes(form, "float64", images=2, bias=False), strict=True):
                assert relative_error(a, b) <= BOUND["float64"], form


def test_long_sums_keep_their_precision():
    """100,000 places: dw in float32 is as good as short sums that are added up in float64."""
    ours, theirs = passes(((28, 28), 4, 1, (3, 3), 1, 1, 1), "float32", images=128)
    assert relative_error(ours[2].astype(float), theirs[2]) < 3e-7


@pytest.mark.parametrize("form", [f for f in FORMS if f[3] == (3, 3)][:9], ids=str)
def test_any_number_of_threads(form, monkeypatch):
    """The bits are those of the variant for one thread, and of 1 and 2 threads."""
    numba = pytest.importorskip("numba")
    if numba.config.NUMBA_NUM_THREADS < 2:
        pytest.skip("one core")
    threads = numba.get_num_threads()
    runs = []
    try:
        for least, count in ((1 << 60, 1), (0, 1), (0, 2)):
            monkeypatch.setattr(_jit, "PARALLEL_WORK", least)
            numba.set_num_threads(count)
            runs.append(passes(form, "float32", images=5)[0])
    finally:
        numba.set_num_threads(threads)
    assert all(map(same_bits, runs[0], runs[1]))
    assert all(map(same_bits, runs[1], runs[2]))
