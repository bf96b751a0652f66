"""Convolution's kernels: every two settings together, every algorithm and each of its ways through the data."""

import itertools

import numpy as np
import pytest

from fastnet import backend
from fastnet.check import check_op, relative_error
from fastnet.check.contract import same_bits
from fastnet.check.covering import SETS, covering_cases, fits, pairwise

REFERENCE = backend.module("reference", "conv2d")
CASES = covering_cases("conv2d")
BOUND = {"float64": 1e-12, "float32": 4e-6}
WINOGRAD_BOUND = {"float64": 1e-12, "float32": 3e-5}  # of the largest value


@pytest.fixture(scope="module")
def kernel():
    pytest.importorskip("numba")
    return backend.module("cpu", "conv2d")


def passes(module, x, w, b, dy=None, **options):
    y, cache = module.forward(x, w, b, **options)
    dy = np.random.default_rng(1).standard_normal(y.shape).astype(y.dtype) if dy is None else dy
    return dy, [y, *module.backward(dy, cache)]


def assert_equals_the_reference(module, x, w, b, bound, **options):
    dy, ours = passes(module, x, w, b, **options)
    _, theirs = passes(REFERENCE, *(None if a is None else a.astype(np.float64) for a in (x, w, b)),
                       dy.astype(np.float64), **options)
    for name, a, e in zip(("y", "dx", "dw", "db"), ours, theirs, strict=True):
        assert (a is None) == (e is None), name
        assert a is None or relative_error(a.astype(np.float64), e) <= bound, name


def drawn(x_shape, w_shape, dtype, seed=0):
    rng = np.random.default_rng(seed)
    x, w, b = (rng.standard_normal(s).astype(dtype) for s in (x_shape, w_shape, w_shape[3:]))
    return x, w, b


@pytest.mark.parametrize("settings", SETS, ids=["general", "winograd", "small maps", "few places"])
def test_every_pair_of_settings_meets(settings):
    names = list(settings)
    seen = set()
    for case in CASES:
        x, w, options = case.arrays[0], case.arrays[1], case.options
        groups = "C" if options["groups"] == x.shape[3] > 2 else options["groups"]
        row = (w.shape[0], options["stride"], options["pad"], options["dilation"], groups, x.shape[3], x.shape[1],
               x.shape[0], options["conv_algorithm"])
        seen |= set(itertools.combinations(zip(names, row, strict=True), 2))
    possible = set()
    for row in itertools.product(*settings.values()):
        if fits(*row):
            possible |= set(itertools.combinations(zip(names, row, strict=True), 2))
    assert possible <= seen


def test_every_algorithm_is_covered(kernel):
    taken = [kernel.algorithm(*case.arrays, **case.options) for case in CASES]
    assert taken.count("winograd") >= len(pairwise(1))
    assert all(taken.count(name) >= 3 for name in ("im2col", "few_places", "narrow", "depthwise", "small_maps"))
    assert len(CASES) <= 300


@pytest.mark.parametrize("implementation", ["reference", "cpu"])
@pytest.mark.parametrize("case", CASES, ids=lambda c: c.label)
def test_covering_set_is_proven(case, implementation, kernel):
    """As `fastnet check conv2d`, with fewer entries one by one; the adjoint test sees all."""
    module = kernel if implementation == "cpu" else REFERENCE
    report = check_op(module, case.arrays, case.options, entries=min(8, case.entries))
    assert report.notes == []
    assert all(row.sharp is not False for row in report.rows)


@pytest.mark.parametrize("case", CASES, ids=lambda c: c.label)
def test_covering_set_in_float32(case, kernel):
    arrays = [None if a is None else a.astype(np.float32) for a in case.arrays]
    winograd = kernel.algorithm(*arrays, **case.options) == "winograd"
    assert_equals_the_reference(kernel, *arrays, (WINOGRAD_BOUND if winograd else BOUND)["float32"], **case.options)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("shape", "outputs", "stride", "pad"), [
    ((2, 32, 32, 64), 64, 1, 1), ((9, 16, 16, 32), 96, 1, 1),  # several sums of dw, by tiles
    ((40, 4, 4, 256), 256, 1, 1), ((130, 4, 4, 176), 320, 1, 1),  # one sum of dw, by points
    ((2, 7, 5, 48), 16, 1, 1), ((3, 37, 11, 16), 32, 1, 0), ((1, 3, 3, 16), 16, 1, 0), ((1, 2, 1, 16), 16, 1, 2),
    ((2, 9, 9, 17), 6, 1, 1), ((2, 6, 10, 3), 35, 1, (3, 4)),  # channels that fill no vectors; more padding than taps
    ((6, 32, 32, 16), 48, 2, 1), ((8, 16, 16, 64), 208, 2, 1), ((6, 8, 8, 160), 128, 2, 1),
    ((2, 7, 5, 48), 16, 2, 1), ((3, 37, 11, 16), 32, 2, 0), ((1, 3, 3, 16), 16, 2, 0), ((1, 2, 1, 16), 16, 2, 2),
    ((2, 16, 8, 16), 16, 2, 0), ((2, 28, 40, 16), 16, 2, 2), ((2, 9, 9, 17), 6, 2, 1), ((2, 6, 10, 3), 35, 2, (3, 4))])
def test_winograd_equals_the_reference(shape, outputs, stride, pad, dtype, kernel):
    x, w, b = drawn(shape, (3, 3, shape[3], outputs), dtype)
    options = {"stride": stride, "pad": pad, "conv_algorithm": "winograd"}
    assert kernel.algorithm(x, w, b, **options) == "winograd"
    assert_equals_the_reference(kernel, x, w, b, WINOGRAD_BOUND[dtype], **options)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("shape", "w_shape", "options"), [
    ((8, 32, 32, 16), (3, 3, 16, 40), {"stride": 2, "pad": 1, "conv_algorithm": "direct"}),  # several sums of dw
    ((8, 7, 9, 160), (3, 3, 160, 2048), {"stride": 2, "pad": 1, "conv_algorithm": "direct"}),  # dw cut by taps
    ((12, 16, 16, 64), (1, 1, 64, 96), {}), ((12, 16, 16, 64), (1, 1, 64, 96), {"stride": 2}),
    ((6, 20, 20, 48), (3, 3, 12, 48), {"groups": 4, "pad": 1}), ((2, 37, 37, 3), (11, 11, 3, 24), {"stride": 4}),
    ((4, 9, 9, 32), (3, 3, 32, 32), {"pad": 1, "conv_algorithm": "direct"})])
def test_direct_equals_the_reference(shape, w_shape, options, dtype, kernel):
    x, w, b = drawn(shape, w_shape, dtype)
    assert kernel.algorithm(x, w, b, **options) != "winograd"
    assert_equals_the_reference(kernel, x, w, b, BOUND[dtype], **options)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("shape", "w_shape", "options"), [
    ((20, 2, 2, 160), (3, 3, 160, 300), {"pad": 1}), ((16, 1, 2, 200), (3, 3, 200, 16), {"pad": 1}),
    ((33, 2, 2, 16), (3, 3, 16, 17), {"pad": 1, "stride": 2}), ((16, 3, 3, 16), (5, 5, 16, 16), {"pad": 2}),
    ((17, 2, 1, 16), (3, 2, 16, 24), {"pad": (2, 1)}),
    ((17, 3, 1, 16), (2, 2, 16, 24), {"pad": 1, "stride": 3})])  # whole rows that see nothing, others that nothing sees
def test_small_maps_equal_the_reference(shape, w_shape, options, dtype, kernel):
    x, w, b = drawn(shape, w_shape, dtype)
    assert kernel.algorithm(x, w, b, **options) == "small_maps"
    assert_equals_the_reference(kernel, x, w, b, BOUND[dtype], **options)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("shape", "w_shape", "options"), [
    ((1, 4, 4, 96), (3, 3, 96, 128), {"pad": 1}), ((1, 1, 1, 200), (1, 1, 200, 64), {}),
    ((1, 9, 7, 16), (5, 3, 16, 48), {"pad": (2, 1), "dilation": (1, 2)}),  # three vectors of outputs
    ((2, 13, 12, 20), (3, 3, 20, 80), {"pad": 2, "stride": (2, 1), "conv_algorithm": "direct"}),  # places in parts
    ((2, 4, 4, 512), (1, 1, 512, 64), {}),  # as many slices as there may be
    ((1, 3, 3, 40), (3, 3, 40, 64), {"pad": 1, "stride": 2}),  # slices of a row, of which the last is short
    ((2, 8, 8, 33), (1, 1, 33, 32), {"stride": 2})])
def test_few_places_equal_the_reference(shape, w_shape, options, dtype, kernel):
    x, w, b = drawn(shape, w_shape, dtype)
    assert kernel.algorithm(x, w, b, **options) == "few_places"
    assert_equals_the_reference(kernel, x, w, b, BOUND[dtype], **options)


@pytest.mark.parametrize(("shape", "w_shape", "options"), [
    ((40, 2, 2, 192), (3, 3, 192, 256), {"pad": 1}), ((1, 8, 8, 128), (3, 3, 128, 256), {"pad": 1}),
    ((1, 16, 16, 128), (3, 3, 128, 128), {"pad": 1}), ((1, 32, 32, 64), (3, 3, 64, 64), {"pad": 1}),
    ((6, 16, 16, 64), (3, 3, 64, 64), {"pad": 1}), ((48, 4, 4, 256), (3, 3, 256, 256), {"pad": 1}),
    ((6, 16, 16, 64), (3, 3, 64, 96), {"stride": 2, "pad": 1}),
    ((32, 7, 7, 128), (3, 3, 128, 256), {"stride": 2, "pad": 1}),
    ((6, 16, 16, 64), (3, 3, 64, 96), {"stride": 2, "conv_algorithm": "direct"}),
    ((4, 6, 6, 512), (3, 3, 512, 1024), {"stride": 2, "conv_algorithm": "direct"}),
    ((9, 12, 12, 64), (1, 1, 64, 32), {}), ((9, 12, 12, 64), (3, 3, 1, 64), {"groups": 64, "pad": 1}),
    ((40, 14, 14, 6), (5, 5, 6, 16), {})])
def test_any_number_of_threads_gives_the_same_bits(shape, w_shape, options, kernel):
    numba = pytest.importorskip("numba")
    if numba.config.NUMBA_NUM_THREADS < 2:
        pytest.skip("one core")
    x, w, b = drawn(shape, w_shape, "float32")
    runs, threads = [], numba.get_num_threads()
    try:
        for count in (1, 2):
            numba.set_num_threads(count)
            runs.append(passes(kernel, x, w, b, **options)[1])
    finally:
        numba.set_num_threads(threads)
    assert all(map(same_bits, *runs))


@pytest.mark.parametrize("needs", list(itertools.product([True, False], repeat=3)))
def test_only_what_is_needed(needs, kernel):
    x, w, b = drawn((2, 5, 5, 16), (3, 3, 16, 16), "float32")
    y, cache = kernel.forward(x, w, b)
    gradients = kernel.backward(y, cache, needs)
    assert tuple(g is not None for g in gradients) == needs


@pytest.mark.parametrize(("x", "w", "b", "options"), [
    ((2, 5, 5, 3), (3, 3, 4, 6), None, {}), ((2, 5, 5, 3), (7, 7, 3, 6), None, {}), ((5, 5, 3), (3, 3, 3, 6), None, {}),
    ((2, 5, 5, 4), (3, 3, 2, 5), None, {"groups": 2}), ((2, 5, 5, 3), (3, 3, 3, 6), (5,), {}),
    ((2, 5, 5, 3), (3, 3, 3, 6), None, {"stride": 0}), ((2, 5, 5, 3), (3, 3, 3, 6), None, {"pad": -1}),
    ((2, 5, 5, 3), (3, 3, 3, 6), None, {"groups": 1.0}), ((2, 5, 5, 3), (3, 3, 3, 6), None, {"dilation": "1"}),
    ((2, 5, 5, 3), (3, 3, 3, 6), None, {"conv_algorithm": "fft"}), ((0, 5, 5, 3), (3, 3, 3, 6), None, {})])
def test_what_it_does_not_take(x, w, b, options, kernel):
    """Malformed calls go to the reference, which says what is wrong with them."""
    arrays = [None if s is None else np.ones(s, np.float32) for s in (x, w, b)]
    assert not kernel.supports(*arrays, **options)
    if 0 not in x:
        with pytest.raises((TypeError, ValueError), match="conv2d"):
            backend.run("conv2d", *arrays, **options)
