"""The contract of every implementation of every op, found by walking the folders: an op is tested because it exists.

Rows on a GPU (the reference on CuPy arrays, and the CUDA kernels) are skipped where there is none, not absent. The CUDA
kernels run on the emulator as well.
"""

import functools
import importlib.util
import inspect
from pathlib import Path

import numpy as np
import pytest
from emulator import engine
from emulator.arrays import emulated

import fastnet
from fastnet import backend
from fastnet.arrays import array_module, to_numpy
from fastnet.check import check_op
from fastnet.check.cases import Case, cases, ops
from fastnet.check.contract import argument_names, same_bits
from fastnet.check.errors import relative_error
from fastnet.check.evidence import signed
from fastnet.kernels.cuda import _launch
from fastnet.shapes import ABSENT, Hidden

engine.install()
ROOT = Path(fastnet.__file__).parents[1]
OPS = ops()
POOLS = ["avg_pool2d", "global_avg_pool", "max_pool2d", "relu_max_pool2d"]
BATCHED = {"x", "labels", "targets", "samples", "indices", "shortcut"}  # arrays with an entry a sample
BATCH_NORMS = [op for op in OPS if hasattr(backend.module("reference", op), "statistics")]  # with those of the batch
ELEMENTWISE = [op for op in OPS if len(argument_names(backend.module("reference", op), 0)) == 1 and op not in POOLS]
FLOAT32_BOUND = 2e-6  # of the largest entry: 17 roundings
FLOAT16_BOUND = 2e-3  # two roundings
BFLOAT16_BOUND = 8e-3  # two roundings
SEVERAL = {"basic_block": 4}  # times as many: it stores seven arrays on the way, and sums of them cancel
# op -> label -> why no kernel takes it. Everything else has to run on the kernels in float32 and float64.
FALLS_BACK: dict[str, dict[str, str]] = {}


@functools.cache
def no_gpu() -> bool:
    if importlib.util.find_spec("cupy") is None:
        return True
    import cupy

    try:
        return cupy.cuda.runtime.getDeviceCount() == 0
    except cupy.cuda.runtime.CUDARuntimeError:
        return True


def _implementations(op):
    """(name in the test's id, implementation, library of the arrays) for every implementation an op has a file for."""
    yield "reference", "reference", "numpy"
    if (ROOT / "kernels" / "cpu" / f"{op}.py").exists():
        yield "cpu", "cpu", "numpy"
    yield "cupy", "reference", "cupy"
    if (ROOT / "kernels" / "cuda" / f"{op}.py").exists():
        yield "cuda", "cuda", "cupy"
        yield "cuda-emulated", "cuda", "emulated"


ROWS = [pytest.param(case, implementation, library, id=f"{op}-{label}-{case.label}")
        for op in OPS for case in cases(op) for label, implementation, library in _implementations(op)]
PAIRS = [pytest.param(op, implementation, library, id=f"{op}-{label}")
         for op in OPS for label, implementation, library in _implementations(op) if label != "cupy"]
on_every_row = pytest.mark.parametrize(("case", "implementation", "library"), ROWS)


def found(op, implementation):
    module = backend.module(implementation, op)
    assert module is not None, f"{op} has a file in kernels/{implementation}, but no module"
    return module


def on(library, arrays):
    if library == "numpy":
        return list(arrays)
    if library == "emulated":
        return list(map(emulated, arrays))
    if no_gpu():
        pytest.skip("no GPU")
    import cupy

    return [None if a is None else cupy.asarray(a) for a in arrays]


def cast(case: Case, x_type, parameter_type=None) -> list:
    """The case's arrays with x and what is added to it, and the other floating arrays, in other types."""
    kinds = [x_type if name in ("x", "shortcut") else parameter_type or x_type
             for name in argument_names(backend.module("reference", case.op), 0)]
    return [a if a is None or a.dtype.kind != "f" else a.astype(t) for a, t in zip(case.arrays, kinds, strict=False)]


def stored(case: Case, dtype) -> dict:
    """The case's options for results of a type that no array has: those of images that are read as bytes."""
    takes = inspect.signature(backend.module("reference", case.op).forward).parameters
    return {**case.options, "dtype": dtype} if "dtype" in takes else case.options


def both_passes(module, arrays, options, dy=None):
    """(y, dy, gradients); dy is random unless given."""
    y, cache = module.forward(*arrays, **options)
    if dy is None:
        dy = np.asarray(signed(np.random.default_rng(1), tuple(y.shape)), dtype=y.dtype)
        dy, = on(array_module(y).__name__, [dy])
    return y, dy, module.backward(dy, cache)


def expected(case, arrays, dy):
    """The reference in float64, on the values that the arrays hold in their own type."""
    host = [None if a is None else to_numpy(a) for a in arrays]
    precise = [a.astype(np.float64) if a is not None and a.dtype.kind == "f" else a for a in host]
    y, _, gradients = both_passes(backend.module("reference", case.op), precise, case.options,
                                  to_numpy(dy).astype(np.float64))
    return y, gradients


def assert_close(ours, theirs, bound):
    for a, b in zip(ours, theirs, strict=True):
        assert (a is None) == (b is None)
        if a is not None:
            assert relative_error(to_numpy(a).astype(np.float64), to_numpy(b).astype(np.float64)) <= bound


@on_every_row
def test_is_proven(case, implementation, library):
    """Value, gradients by differences, complex step and adjoint test, contract, and the check is sharp: in float64."""
    module, arrays = found(case.op, implementation), on(library, case.arrays)
    report = check_op(module, arrays, case.options, oracle=backend.module("reference", case.op))
    assert report.implementation == implementation
    assert report.notes == []
    assert report.value is not None
    for row in report.rows:
        assert None not in (row.differences, row.complex_step, row.adjoint)
        assert row.sharp
        assert not row.zero
        # Margins that the code reaches today: a loss of precision shows before the bound is broken.
        assert row.differences < 1e-9
        assert max(row.complex_step, row.adjoint) < 1e-14


@on_every_row
def test_float32_agrees(case, implementation, library):
    module, arrays = found(case.op, implementation), on(library, cast(case, np.float32))
    y, dy, gradients = both_passes(module, arrays, case.options)
    assert y.dtype == np.float32
    for a, gradient in zip(arrays, gradients, strict=False):
        assert gradient is None or (gradient.dtype == np.float32 and gradient.shape == a.shape)
    theirs, their_gradients = expected(case, arrays, dy)
    assert_close([y, *gradients], [theirs, *their_gradients], FLOAT32_BOUND)


@on_every_row
def test_float16_storage(case, implementation, library):
    """x, y and dx in 16 bits, parameters and their gradients in 32: the reference, and no kernel by accident."""
    module, arrays = found(case.op, implementation), on(library, cast(case, np.float16, np.float32))
    options = stored(case, np.float16)
    if implementation != "reference" and not module.supports(*arrays, **options):
        with backend.use(implementation), pytest.raises(ValueError, match=f"does not support {case.op}"):
            backend.run(case.op, *arrays, **options)
        return
    y, dy, gradients = both_passes(module, arrays, options)
    assert y.dtype == np.float16
    for a, gradient in zip(arrays, gradients, strict=False):
        assert gradient is None or gradient.dtype == a.dtype
    theirs, their_gradients = expected(case, arrays, dy)
    assert_close([y, *gradients], [theirs, *their_gradients], SEVERAL.get(case.op, 1) * FLOAT16_BOUND)


def _strided(x):
    wide = array_module(x).zeros([2 * n for n in x.shape], x.dtype)
    view = wide[tuple(slice(None, None, 2) for _ in x.shape)]
    view[...] = x
    return view


@pytest.mark.parametrize(("case", "implementation", "library"), [p for p in ROWS if p.values[2] == "emulated"])
def test_bfloat16_storage(case, implementation, library):
    """As in 16 bits of the other kind, by the kernels that take them."""
    bfloat16 = pytest.importorskip("ml_dtypes").bfloat16
    module, given = found(case.op, implementation), cast(case, bfloat16, np.float32)
    arrays, options = on(library, given), stored(case, bfloat16)
    if not module.supports(*arrays, **options):
        pytest.skip("falls back")
    y, dy, gradients = both_passes(module, arrays, options)
    assert y.dtype == bfloat16
    for a, gradient in zip(given, gradients, strict=False):
        assert gradient is None or gradient.dtype == a.dtype
    widened = [a if a is None or a.dtype != bfloat16 else a.astype(np.float32) for a in given]
    theirs, their_gradients = expected(case, widened, to_numpy(dy))
    several = SEVERAL.get(case.op, len(case.options.get("layers", [case.op])))  # a perceptron rounds after each
    assert_close([y, *gradients], [theirs, *their_gradients], several * BFLOAT16_BOUND)


def _reversed(x):
    return x[(slice(None, None, -1),) * x.ndim]


VIEWS = {
    "transposed": lambda x: array_module(x).ascontiguousarray(x.T).T,
    "strided": _strided,
    "reversed": lambda x: _reversed(array_module(x).ascontiguousarray(_reversed(x))),
}


@pytest.mark.parametrize("view", VIEWS)
@on_every_row
def test_non_contiguous(case, implementation, library, view):
    """Views of any strides, dy among them, give what contiguous arrays give."""
    module, arrays = found(case.op, implementation), on(library, case.arrays)
    y, dy, gradients = both_passes(module, arrays, case.options)
    views = [None if a is None else VIEWS[view](a) for a in arrays]
    for a, b in zip(arrays, views, strict=True):
        assert a is None or (np.array_equal(to_numpy(a), to_numpy(b)) and (a.size < 2 or a.strides != b.strides
                                                                           or view == "transposed"))
    y_view, cache = module.forward(*views, **case.options)
    strided_dy = VIEWS[view](dy) if dy.ndim else dy
    assert_close([y_view, *module.backward(strided_dy, cache)], [y, *gradients], 1e-14)


@pytest.mark.parametrize(("op", "implementation", "library"), PAIRS)
def test_same_signature(op, implementation, library):
    reference, module = backend.module("reference", op), found(op, implementation)
    forward = inspect.signature(reference.forward)
    assert inspect.signature(module.forward) == forward
    assert str(inspect.signature(module.backward)) == "(dy, cache, needs=None)"
    assert all(p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY) for p in forward.parameters.values())
    if implementation != "reference":
        assert inspect.signature(module.supports) == forward


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("case", [c for op in OPS for c in cases(op)], ids=lambda c: f"{c.op}-{c.label}")
def test_dispatch(case, dtype):
    """NumPy arrays go to the kernels wherever there are some, except where the table says why not."""
    with_kernels = "cpu" in [label for label, _, _ in _implementations(case.op)]
    falls_back = case.label in FALLS_BACK.get(case.op, {})
    chosen = backend.pair(case.op, *cast(case, dtype), **case.options)
    assert chosen is backend.module("cpu" if with_kernels and not falls_back else "reference", case.op)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("case", [c for op in OPS for c in cases(op) if "cuda" in {
    label for label, _, _ in _implementations(op)}], ids=lambda c: f"{c.op}-{c.label}")
def test_dispatch_on_the_device(case, dtype):
    """So do arrays on a device where the op has a CUDA file."""
    arrays = on("emulated", cast(case, dtype))
    assert backend.pair(case.op, *arrays, **case.options) is backend.module("cuda", case.op)


def _many(case, size=1 << 17):
    """The case's arrays as float32 with so many samples that x has `size` entries; parameters stay as they are."""
    names = argument_names(backend.module("reference", case.op), 0)
    arrays = cast(case, np.float32)
    first = next(i for i, a in enumerate(arrays) if a.dtype.kind == "f")
    repeats = -(-size // arrays[first].size)
    tiled = [np.concatenate([a] * repeats) if name in BATCHED and a is not None else a
             for name, a in zip(names, arrays, strict=False)]
    # No two samples alike, or a mix-up of rows would not show. 1.25 keeps its distance from the kinks.
    x = tiled[first]
    x *= np.random.default_rng(2).uniform(1, 1.25, (len(x),) + (1,) * (x.ndim - 1)).astype("f")
    return tiled


def _wide(op, batch, features, outputs):
    rng = np.random.default_rng(3)
    shapes = (batch, features), (features, outputs), *[(outputs,)] * (len(cases(op)[0].arrays) - 2)
    return Case(op, f"{batch} rows, {features} features", tuple(rng.standard_normal(s) for s in shapes))


def _pooled(op, size, **options):
    x = np.random.default_rng(4).permutation(int(np.prod(size))).reshape(size) / 1024
    return Case(op, f"{size} {options}", (x,), options)


POOLED = [_pooled(op, size, **options) for op in ("max_pool2d", "relu_max_pool2d", "avg_pool2d") for size, options in (
    ((2, 32, 32, 64), {"window": 2}), ((9, 28, 28, 6), {"window": 2}),
    ((3, 31, 32, 20), {"window": 3, "stride": 2, "pad": 1, "ceil_mode": True}))]
LARGE = [*[(case.op, _many(case), case) for op in OPS for case in cases(op)],
         *[(case.op, cast(case, np.float32), case) for case in (*POOLED, _pooled("global_avg_pool", (64, 4, 4, 96)))],
         *[(case.op, cast(case, np.float32), case) for op in ("linear", "linear_relu")
           for case in (_wide(op, *shape) for shape in ((40, 1500, 20), (9, 1100, 50), (50, 700, 140),
                                                        (700, 1100, 30)))]]


@pytest.mark.parametrize(("op", "arrays", "case"), [pytest.param(*row, id=f"{row[0]}-{row[2].label}") for row in LARGE])
def test_large_and_any_number_of_threads(op, arrays, case, monkeypatch):
    """Kernels on arrays of many blocks: close to the reference, with the same bits for 1 and 2 threads.

    The kernels are compiled twice, for one thread and for all, and choose by the size; these have to choose all.
    """
    module = backend.pair(op, *arrays, **case.options)
    if module is backend.module("reference", op):
        pytest.skip("no kernel")
    numba = pytest.importorskip("numba")
    if numba.config.NUMBA_NUM_THREADS < 2:
        pytest.skip("one core")
    from fastnet.kernels.cpu import _jit

    in_parallel = []
    sized = _jit.ParallelKernel.sized
    monkeypatch.setattr(_jit.ParallelKernel, "sized", lambda kernel, work: in_parallel.append(
        work >= _jit.PARALLEL_WORK) or sized(kernel, work))
    runs = []
    threads = numba.get_num_threads()
    try:
        for count in (1, 2):
            numba.set_num_threads(count)
            y, dy, gradients = both_passes(module, arrays, case.options)
            runs.append([y, *gradients])
    finally:
        numba.set_num_threads(threads)
    # Forward and backward, each with 1 and 2 threads, but for what never leaves its thread.
    assert sum(in_parallel) >= 4 or op == "perceptron"
    assert all(map(same_bits, *runs))
    theirs, their_gradients = expected(case, arrays, dy)
    assert_close(runs[0], [theirs, *their_gradients], 4 * SEVERAL.get(op, 1) * FLOAT32_BOUND)


@pytest.mark.parametrize(("op", "case"), [pytest.param(case.op, case, id=f"{case.op}-{case.label}") for op in OPS
                                          if (ROOT / "kernels" / "cuda" / f"{op}.py").exists() for case in cases(op)])
def test_many_blocks_on_the_device(op, case, monkeypatch):
    """More blocks than a grid may have: the kernels go through the work in turns, and the schedule changes no bit."""
    monkeypatch.setattr(_launch, "MOST_BLOCKS", 3)
    module, arrays = backend.module("cuda", op), on("emulated", _many(case, 1 << 13))
    runs = []
    for seed, copies in enumerate(engine.COPIES):
        with engine.schedule(seed, copies):
            y, dy, gradients = both_passes(module, arrays, case.options)
        runs.append([y, *gradients])
    assert all(map(same_bits, runs[0], runs[1]))
    assert all(map(same_bits, runs[0], runs[2]))
    theirs, their_gradients = expected(case, arrays, dy)
    assert_close(runs[0], [theirs, *their_gradients], 4 * SEVERAL.get(op, 1) * FLOAT32_BOUND)


@pytest.mark.parametrize(("case", "implementation", "library"), [
    p for p in ROWS if hasattr(backend.module(p.values[1], p.values[0].op), "backward_into")])
def test_gradients_written_in_place(case, implementation, library):
    """`backward_into` writes what `backward` returns, to the bit, and hands back the very arrays it was given."""
    module, arrays = found(case.op, implementation), on(library, case.arrays)
    y, cache = module.forward(*arrays, **case.options)
    dy, = on(library, [signed(np.random.default_rng(3), y.shape)])
    expected_gradients = module.backward(dy, cache)
    into = tuple(None if i == 0 or a is None else array_module(a).zeros_like(a) for i, a in enumerate(arrays))
    gradients = module.backward_into(dy, cache, None, into)
    assert any(a is not None and a is gradient for a, gradient in zip(into, gradients, strict=True))
    assert all(map(same_bits, gradients, expected_gradients))
    some = module.backward_into(dy, cache, (False,) * len(into), into)
    assert all(gradient is None for gradient in some)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(("op", "implementation", "library"), [p for p in PAIRS if p.values[0] in ELEMENTWISE])
def test_nan_stays(op, implementation, library, dtype):
    """A NaN comes out where it went in, and nowhere else: a diverged run must not look sound."""
    module = found(op, implementation)
    for case in cases(op):
        x = case.arrays[0].astype(dtype)
        x[2, 1] = np.nan
        y, _ = module.forward(*on(library, [x]), **case.options)
        np.testing.assert_array_equal(np.isnan(to_numpy(y)), np.isnan(x))


@pytest.mark.parametrize("op", [op for op in OPS if op not in BATCH_NORMS and np.ndim(
    backend.module("reference", op).forward(*cases(op)[0].arrays, **cases(op)[0].options)[0])])
def test_empty_batch(op):
    """No samples give no outputs, and gradients of the parameters that are zero; losses and statistics refuse."""
    case = cases(op)[0]
    names = argument_names(backend.module("reference", op), 0)
    arrays = [a[:0] if name in BATCHED and a is not None else a for name, a in zip(names, case.arrays, strict=True)]
    y, back = backend.run(op, *arrays, **case.options)
    assert y.shape[0] == 0
    for a, gradient in zip(arrays, back(y), strict=True):
        assert gradient is None or (gradient.shape == a.shape and not gradient.any())


@pytest.mark.parametrize("case", [case for op in BATCH_NORMS for case in cases(op)], ids=lambda c: f"{c.op}-{c.label}")
def test_batch_norm_hands_out_its_statistics(case):
    """Mean and biased variance, for the running averages of a layer."""
    x = case.arrays[0]
    if case.op == "basic_block":
        x, _ = backend.module("reference", "conv2d").forward(*case.arrays[:2], stride=case.options["stride"], pad=1)
    axes = tuple(range(x.ndim - 1))
    for implementation in backend.ORDER["numpy"]:
        module = found(case.op, implementation)
        statistics = module.statistics(module.forward(*case.arrays, **case.options)[1])
        if case.op in ("basic_block", "perceptron"):  # of each batch norm; or none
            statistics = next(iter(statistics), (x.mean(axis=0), x.var(axis=0)))
        mean, var = statistics
        np.testing.assert_allclose(mean, x.mean(axis=axes), rtol=1e-13, atol=1e-14)
        np.testing.assert_allclose(var, x.var(axis=axes), rtol=1e-13)


X, INTEGERS, LABELS = np.ones((5, 3)), np.ones((5, 3), int), np.array([0, 1, 2, 1, 0])
NAN = float("nan")


def _loss_calls(labels="labels", options=()):
    return [
        ("integer logits", (INTEGERS, LABELS), {}), ("no logits", (None, LABELS), {}),
        ("a list", ([[1.0]], LABELS), {}),
        ("1-d logits", (X[0], LABELS), {}), ("3-d logits", (X[None], LABELS), {}),
        (f"list of {labels}", (X, [0, 1, 2, 1, 0]), {}), (f"no {labels}", (X, None), {}),
        (f"{labels} left out", (X,), {}),
        ("too few labels", (X, LABELS[:4]), {}), ("2-d labels", (X, LABELS[:, None]), {}),
        ("label too large", (X, LABELS + 1), {}), ("negative label", (X, LABELS - 1), {}),
        ("float labels", (X, LABELS.astype(float)), {}), ("boolean labels", (X, LABELS > 0), {}),
        ("empty batch", (X[:0], LABELS[:0]), {}),
        *options,
    ]


def _dense_loss_calls(*options):
    return _loss_calls("targets", [
        ("targets of another shape", (X, X[:, :2]), {}), ("unknown reduction", (X, LABELS), {"reduction": "sum"}),
        *((f"{k}={v}", (X, LABELS), {k: v}) for k, v in options),
    ])


def _elementwise_calls(*options):
    return [("integers", (INTEGERS,), {}), ("booleans", (INTEGERS > 0,), {}), ("a list", ([1.0, 2.0],), {}),
            ("a number", (1.0,), {}), ("nothing", (None,), {}), ("two arrays", (X, X), {}),
            *((f"{k}={v}", (X,), {k: v}) for k, v in options)]


def _image_calls(*options):
    fine = {"window": 2} if options else {}
    return [("integer images", (IMAGES.astype(int),), fine), ("2-d", (X,), fine), ("no pixels", (IMAGES[:, :0],), fine),
            ("a list", ([1.0],), fine), ("nothing", (None,), fine),
            *((f"{o}", (IMAGES,), o) for o in options)]


IMAGES = np.ones((5, 4, 6, 3))
WINDOWS = ({"window": 0}, {"window": 5}, {"window": 2, "stride": 0}, {"window": 2, "pad": 2}, {"window": 2, "pad": -1},
           {"window": 2.5}, {"window": (2, 2, 2)}, {"window": (2, 7)})
W = np.ones((3, 3, 3, 6))
C, ONES = np.ones(3), np.ones(5)
AUGMENTED = {"images": IMAGES.astype(np.uint8), "indices": LABELS, "samples": LABELS, "epoch": LABELS[:1],
             "mean": IMAGES[0], "scale": IMAGES[0], "w": W, "b": np.ones(6)}
KEY = {"p": 0.5, "key": (1, 2, 3)}
LINEAR = [("integer x", (INTEGERS, X.T, None), {}), ("integer w", (X, INTEGERS.T, None), {}),
          ("1-d x", (C, X.T, None), {}), ("4-d x", (np.ones((5, 2, 2, 3)), X.T), {}), ("1-d w", (X, C), {}),
          ("features", (X, X, None), {}), ("too long b", (X, X.T, C), {}),
          ("2-d b", (X, X.T, np.ones((1, 5))), {}),
          ("integer b", (X, X.T, np.ones(5, int)), {}), ("w is a list", (X, X.T.tolist()), {}),
          ("no w", (X, None), {}), ("w left out", (X,), {}), ("four arrays", (X, X.T, None, X), {})]
W1, W2 = W[..., :3], np.ones((3, 3, 3, 3))
BLOCK = {"integer x": (IMAGES.astype(int), W1, C, C, W2, C, C), "2-d x": (X, W1, C, C, W2, C, C),
         "channels": (IMAGES[..., :2], W1, C, C, W2, C, C), "2x3 w1": (IMAGES, W1[1:], C, C, W2, C, C),
         "1x1 w2": (IMAGES, W1, C, C, W2[1:2, 1:2], C, C), "wide w2": (IMAGES, W1, C, C, W, C, C),
         "3-d w2": (IMAGES, W1, C, C, W2[0], C, C), "integer w2": (IMAGES, W1, C, C, W2.astype(int), C, C),
         "gamma1": (IMAGES, W1, C[:2], C, W2, C, C), "beta2": (IMAGES, W1, C, C, W2, C, C[:2]),
         "no gamma2": (IMAGES, W1, C, C, W2, None, C), "no samples": (IMAGES[:0], W1, C, C, W2, C, C),
         "no shortcut for six channels": (IMAGES, W, np.ones(6), np.ones(6), np.ones((3, 3, 6, 6)), *np.ones((2, 6))),
         "shortcut": (IMAGES, W1, C, C, W2, C, C, IMAGES[:, :2]),
         "integer shortcut": (IMAGES, W1, C, C, W2, C, C, IMAGES.astype(int))}
NORM = [("integer x", (INTEGERS, C, C), {}), ("1-d x", (C, C, C), {}), ("no samples", (X[:0], C, C), {}),
        ("gamma", (X, C[:2], C), {}), ("beta", (X, C, C[:2]), {}), ("2-d gamma", (X, X[:1], C), {}),
        ("no gamma", (X, None, C), {}), ("eps=0", (X, C, C), {"eps": 0}),
        ("eps=nan", (X, C, C), {"eps": NAN}), ("integer beta", (X, C, C.astype(int)), {})]
FIXED_NORM = [("integer x", (INTEGERS, C, C, C, C), {}), ("1-d x", (C, C, C, C, C), {}),
              ("gamma", (X, C[:2], C, C, C), {}), ("beta", (X, C, C[:2], C, C), {}),
              ("mean", (X, C, C, C[:2], C), {}), ("var", (X, C, C, C, C[:2]), {}),
              ("no var", (X, C, C, C), {}), ("eps=0", (X, C, C, C, C), {"eps": 0})]
MALFORMED = {
    "augment_conv2d": [
        *((f"{name} {fault}", tuple({**AUGMENTED, name: wrong}.values()), {"seed": 1}) for name, fault, wrong in (
            ("images", "of floats", IMAGES), ("indices", "outside", LABELS + 9), ("indices", "of floats", LABELS * 1.0),
            ("samples", "too few", LABELS[:3]), ("samples", "missing", None), ("epoch", "two", LABELS[:2]),
            ("epoch", "negative", LABELS[:1] - 1), ("epoch", "a float", ONES[:1]), ("mean", "of 2-d", IMAGES[0, 0]),
            ("scale", "of integers", IMAGES[0].astype(int)), ("w", "3-d", W[0]), ("w", "channels", W[:, :, :2]),
            ("w", "missing", None), ("b", "shape", C))),
        *((f"{o}", tuple(AUGMENTED.values()), {"seed": 1} | o) for o in (
            {"seed": -1}, {"seed": 2**64}, {"augmentation": {"cutout": 1}}, {"augmentation": {"pad": 9}},
            {"augmentation": {"vertical_flip": 1}}, {"stride": 0}, {"pad": -1}, {"groups": 2}, {"dilation": 4},
            {"conv_algorithm": "fast"}))],
    "basic_block": [*((label, arrays, {}) for label, arrays in BLOCK.items()),
                    *((f"{o}", (IMAGES, W1, C, C, W2, C, C), o) for o in (
                        {"stride": 2}, {"stride": 0}, {"eps1": 0}, {"eps2": NAN}))],
    "linear": LINEAR,
    "linear_relu": LINEAR,
    "perceptron": [("integer x", (INTEGERS, ONES), {"layers": (Hidden(3, 1, 0),)}),
                   ("3-d x", (X[None], ONES), {"layers": (Hidden(3, 1, 0),)}),
                   ("2-d vector", (X, X), {"layers": (Hidden(3, 1, 0),)}),
                   ("no samples", (X[:0], ONES), {"layers": (Hidden(3, 1, 0),)}),
                   ("no layers", (X, ONES), {"layers": ()}),
                   *((label, (X, ONES), {"layers": layers}) for label, layers in {
                       "too wide": (Hidden(4, 1, 0),), "no w": (Hidden(3, 1, ABSENT),), "w outside": (Hidden(3, 1, 3),),
                       "b outside": (Hidden(3, 1, 0, 5),), "gamma alone": (Hidden(3, 1, 0, gamma=0),),
                       "eps=0": (Hidden(3, 1, 0, ABSENT, 0, 0, 0.0),), "place": (Hidden(3, 1, 0, -2),),
                       "what does not follow": (Hidden(3, 1, 0), Hidden(3, 1, 0))}.items())],
    "batch_norm": NORM,
    "batch_norm_relu": NORM,
    "batch_norm_add_relu": [*((label, (*arrays, arrays[0]), options) for label, arrays, options in NORM),
                            ("shortcut", (X, C, C, X[:, :2]), {}), ("integer shortcut", (X, C, C, INTEGERS), {}),
                            ("no shortcut", (X, C, C), {})],
    "batch_norm_fixed": FIXED_NORM,
    "batch_norm_fixed_relu": FIXED_NORM,
    "batch_norm_fixed_add_relu": [*((label, (*arrays, arrays[0]), options) for label, arrays, options in FIXED_NORM
                                    if label != "no var"), ("shortcut", (X, C, C, C, C, X[:, :2]), {})],
    "dropout": [("integer x", (INTEGERS, LABELS), KEY), ("0-d x", (np.ones(()), LABELS), KEY),
                ("float samples", (X, C), KEY), ("too few samples", (X, LABELS[:4]), KEY),
                ("no samples", (X, None), KEY), ("samples is a list", (X, [1, 2, 3, 4, 5]), KEY),
                ("p=1", (X, LABELS), {**KEY, "p": 1}),
                ("p=-0.1", (X, LABELS), {**KEY, "p": -0.1}), ("p=nan", (X, LABELS), {**KEY, "p": NAN}),
                ("short key", (X, LABELS), {**KEY, "key": (1, 2)}),
                ("wide key", (X, LABELS), {**KEY, "key": (1, 2**32, 3)}),
                ("negative key", (X, LABELS), {**KEY, "key": (-1, 2, 3)})],
    "conv2d": [("integer x", (IMAGES.astype(int), W, None), {}), ("2-d x", (X, W, None), {}),
               ("3-d w", (IMAGES, W[0], None), {}), ("channels", (IMAGES[..., :2], W, None), {}),
               ("channels second", (IMAGES.transpose(0, 3, 1, 2), W, None), {}), ("b", (IMAGES, W, C), {}),
               ("integer b", (IMAGES, W, np.ones(6, int)), {}), ("no w", (IMAGES, None), {}),
               *((f"{o}", (IMAGES, W, None), o) for o in (
                   {"stride": 0}, {"pad": -1}, {"dilation": 0}, {"dilation": 2}, {"groups": 2}, {"groups": 0},
                   {"groups": 1.0}, {"stride": 1.5}, {"stride": (1, 2, 3)}, {"groups": 3}))],
    "conv2d_relu_max_pool2d": [
        ("integer x", (IMAGES.astype(int), W, None), {"window": 2}), ("3-d w", (IMAGES, W[0], None), {"window": 2}),
        ("b", (IMAGES, W, C), {"window": 2}), ("no w", (IMAGES, None), {"window": 2}),
        *((f"{o}", (IMAGES, W, None), {"window": 2} | o) for o in (
            {"stride": 0}, {"groups": 2}, {"conv_algorithm": "fast"}, {"window": 0}, {"window": 9}, {"pool_stride": 0},
            {"pool_pad": 2}, {"window": 1.5}))],
    "max_pool2d": _image_calls(*WINDOWS),
    "relu_max_pool2d": _image_calls(*WINDOWS),
    "avg_pool2d": _image_calls(*WINDOWS),
    "global_avg_pool": _image_calls(),
    "elu": _elementwise_calls(("alpha", 0), ("alpha", -1.0), ("alpha", NAN)),
    "gelu": _elementwise_calls(("approximate", "sigmoid"), ("approximate", None)),
    "leaky_relu": _elementwise_calls(("negative_slope", -0.1), ("negative_slope", NAN)),
    "relu": _elementwise_calls(),
    "sigmoid": _elementwise_calls(),
    "swish": _elementwise_calls(),
    "tanh": _elementwise_calls(),
    "softmax_cross_entropy": _loss_calls(options=[(f"label_smoothing={s}", (X, LABELS), {"label_smoothing": s})
                                                  for s in (1, -0.1, NAN)]),
    "pooled_softmax_cross_entropy": [
        ("integer x", (IMAGES.astype(int), X.T, LABELS), {}), ("2-d x", (X, X.T, LABELS), {}),
        ("no images", (IMAGES[:0], X.T, LABELS[:0]), {}), ("1-d w", (IMAGES, C, LABELS), {}),
        ("channels", (IMAGES, X, LABELS), {}), ("b", (IMAGES, X.T, LABELS, C), {}),
        ("integer b", (IMAGES, X.T, LABELS, LABELS), {}), ("no labels", (IMAGES, X.T), {}),
        ("too few labels", (IMAGES, X.T, LABELS[:4], ONES), {}), ("float labels", (IMAGES, X.T, ONES, ONES), {}),
        ("label too large", (IMAGES, X.T, LABELS + 3, ONES), {}), ("negative label", (IMAGES, X.T, LABELS - 1), {}),
        *((f"label_smoothing={s}", (IMAGES, X.T, LABELS, ONES), {"label_smoothing": s}) for s in (1, -0.1, NAN))],
    "sigmoid_cross_entropy": _dense_loss_calls(),
    "mean_squared_error": _dense_loss_calls(),
    "soft_margin": _dense_loss_calls(),
    "huber": _dense_loss_calls(("delta", 0), ("delta", -1), ("delta", NAN)),
}


def test_every_op_has_malformed_calls():
    assert sorted(MALFORMED) == OPS


@pytest.mark.parametrize(("op", "arrays", "options"), [
    pytest.param(op, arrays, options, id=f"{op}-{label}")
    for op, calls in MALFORMED.items() for label, arrays, options in calls])
def test_malformed_call(op, arrays, options):
    """One line that begins with the op's name, by the public way and, where all arrays are there, by the reference."""
    runs = [lambda: backend.run(op, *arrays, **options)]
    if all(isinstance(a, np.ndarray) for a in arrays) and len(arrays) == len(cases(op)[0].arrays):
        runs.append(lambda: backend.module("reference", op).forward(*arrays, **options))
    for run in runs:
        with pytest.raises((TypeError, ValueError)) as caught:
            run()
        message = str(caught.value)
        assert message.startswith(f"{op}: ")
        assert "\n" not in message


@pytest.mark.parametrize("op", OPS)
def test_malformed_dy(op):
    case = cases(op)[0]
    y, back = backend.run(op, *case.arrays, **case.options)
    others = [y.astype(np.float32), 1.0] if y.ndim else []
    for wrong in (np.ones((*y.shape, 2)), np.ones((3, 3, 3)), [1.0], None, *others):
        with pytest.raises((TypeError, ValueError), match=f"^{op}: dy is "):
            back(wrong)
    assert len(back(np.ones_like(y))) == len(case.arrays)
