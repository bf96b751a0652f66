"""Which implementation runs a call, what falls back, what is an error; and what the library knows about arrays."""

import importlib.util
import sys
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
from strict_arrays import strict

from fastnet import arrays, backend
from fastnet.functions import philox
from fastnet.ops import linear, relu

X = np.linspace(-1, 1, 12).reshape(4, 3)
W = np.ones((3, 2))


@pytest.fixture
def without(monkeypatch):
    """Make packages look as if they were not installed, for this test alone."""
    found = importlib.util.find_spec

    def hide(*packages):
        monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name in packages else found(name))
        backend.module.cache_clear()

    yield hide
    backend.module.cache_clear()


def test_kernels_come_first():
    pytest.importorskip("numba")
    assert backend.pair("relu", X) is backend.module("cpu", "relu")
    assert backend.pair("relu", X).__name__ == "fastnet.kernels.cpu.relu"
    with backend.use("reference"):
        assert backend.pair("relu", X) is relu
        with backend.use("cpu"):
            assert backend.pair("relu", X) is backend.module("cpu", "relu")
        assert backend.pair("relu", X) is relu
    assert backend.pair("relu", X) is backend.module("cpu", "relu")


def test_what_kernels_do_not_take_goes_to_the_reference():
    for x in (X.astype(np.float16), X.astype(np.complex128), X.astype(np.longdouble), X[:0]):
        assert backend.pair("relu", x) is relu
    assert backend.pair("linear", X, W.astype(np.float32)) is linear
    assert backend.pair("linear", strict(X), strict(W)) is linear


def test_forcing_what_is_not_supported_is_an_error():
    pytest.importorskip("numba")
    with backend.use("cpu"):
        with pytest.raises(ValueError, match=r"^backend: cpu does not support relu\(float16\(4, 3\)\)$"):
            backend.run("relu", X.astype(np.float16))
        with pytest.raises(ValueError, match=r"cpu does not support linear\(float64\(4, 3\), float32\(3, 2\), None\)"):
            backend.run("linear", X, W.astype(np.float32), None)
        with pytest.raises(ValueError, match=r"cpu does not support elu\(float64\(4, 3\)\) with {'alpha': -1}"):
            backend.run("elu", X, alpha=-1)
    with backend.use("cuda"), pytest.raises(ValueError, match="cuda does not support relu"):
        backend.run("relu", X)
    assert backend.pair("relu", X) is not None


def test_use_ends_with_an_exception():
    with pytest.raises(KeyError), backend.use("reference"):
        raise KeyError
    if importlib.util.find_spec("numba"):
        assert backend.pair("relu", X) is not relu


def test_unknown_names():
    with pytest.raises(ValueError, match="'torch' is not an implementation; choose from reference, cpu, cuda"), \
            backend.use("torch"):
        pass
    with pytest.raises(ValueError, match="there is no op or function named 'rleu'"):
        backend.run("rleu", X)


def test_without_numba_or_cupy(without):
    """Not an error: the reference runs. The CUDA modules load, but take no arrays that are in main memory."""
    without("numba", "cupy")
    assert backend.module("cpu", "relu") is None
    assert not backend.module("cuda", "relu").supports(X)
    assert backend.pair("relu", X) is relu


def test_without_kernels(without):
    """A broken install, and said so: tests on the reference alone would prove nothing about the kernels."""
    pytest.importorskip("numba")
    without("fastnet.kernels")
    with pytest.raises(ImportError, match="pip install -e"):
        backend.run("relu", X)


def test_compilation_is_announced_and_only_then(without, tmp_path, monkeypatch):
    pytest.importorskip("numba")
    from fastnet.kernels.cpu._jit import kernel

    @kernel()
    def doubled(x):
        return 2 * x

    seen = []
    with backend.on_compilation(seen.append):
        doubled(1.0)
        doubled(2.0)
    doubled(1)  # another type, but nobody listens
    assert seen in (["doubled"], [])  # nothing where an earlier test run left it in the cache
    without("numba")
    with backend.on_compilation(seen.append):
        assert seen in (["doubled"], [])


def test_no_kernel_of_that_name(without):
    without("fastnet.kernels.cpu.relu")
    assert backend.module("cpu", "relu") is None
    assert backend.pair("relu", X) is relu


def test_run_gives_the_gradients():
    y, back = backend.run("linear", X, W, None)
    np.testing.assert_allclose(y, X @ W)
    dx, dw, db = back(np.ones_like(y), (False, True, False))
    assert dx is None
    assert db is None
    np.testing.assert_allclose(dw, X.T @ np.ones_like(y))


def test_call_runs_functions():
    options = {"seed": 1, "stream": philox.SHUFFLE, "count": 3}
    np.testing.assert_array_equal(backend.call("philox", np.arange(5), **options), philox.run(np.arange(5), **options))


@pytest.mark.parametrize(("given", "message"), [
    ((X, W.tolist()), "linear: w is a list, but an array is needed"),
    ((X, W, 1.0), "linear: b is a float, but an array is needed"),
    ((X,), "linear: w is missing"),
    ((), "linear: x is missing"),
    ((X, W, None, None), "linear: 4 arrays are given, but it takes 3 (x, w, b)"),
    ((strict(X), W), "linear: w is a numpy array, but x is a strict_arrays array"),
])
def test_arguments_that_are_no_arrays_of_one_library(given, message):
    with pytest.raises(TypeError) as caught:
        backend.run("linear", *given)
    assert str(caught.value) == message


def test_scalars_of_numpy_are_arrays():
    y, _ = backend.run("relu", np.float64(-2))
    assert y == 0


# Arrays.


def test_array_module():
    assert arrays.array_module(X) is np
    assert arrays.array_module(np.float32(1)) is np
    for other in ([1.0], 1.0, None):
        with pytest.raises(TypeError, match=f"an array is needed, got {type(other).__name__}"):
            arrays.array_module(other)


def test_cupy_is_recognised_by_its_type(monkeypatch):
    """With a stand-in for CuPy, since importing the real one needs a card to be of use."""
    cupy, special = ModuleType("cupy"), ModuleType("cupyx.scipy.special")
    array = type("ndarray", (), {"__module__": "cupy", "get": lambda self: X})()
    special.erf = lambda x: ("erf", x)
    for name, stand_in in (("cupy", cupy), ("cupyx", ModuleType("cupyx")), ("cupyx.scipy", ModuleType("cupyx.scipy")),
                           ("cupyx.scipy.special", special)):
        monkeypatch.setitem(sys.modules, name, stand_in)
    sys.modules["cupyx"].scipy = sys.modules["cupyx.scipy"]
    sys.modules["cupyx.scipy"].special = special
    assert arrays.array_module(array) is cupy
    assert arrays.erf(array) == ("erf", array)
    assert arrays.to_numpy(array) is X


def test_to_numpy():
    assert arrays.to_numpy(X) is X
    np.testing.assert_array_equal(arrays.to_numpy(strict(X)), X)
    assert arrays.to_numpy(np.float32(2)).shape == ()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_aligned_vectors(dtype):
    for size in (0, 1, 17, 1000):
        v = arrays.zeros_aligned(size, dtype)
        assert v.shape == (size,)
        assert v.dtype == dtype
        assert not v.any()
        assert size == 0 or v.ctypes.data % 64 == 0
    assert arrays.empty((2, 3), dtype).shape == (2, 3)


def test_accumulators():
    kept = {np.float16: np.float32, np.float32: np.float32, np.float64: np.float64, np.complex128: np.complex128}
    for stored, summed in kept.items():
        assert arrays.accumulator(stored) == summed


def test_erf():
    x = np.array([0.0, 0.5, -1.0])
    np.testing.assert_allclose(arrays.erf(x), [0, 0.5204998778130465, -0.8427007929497149], rtol=1e-15)
    slope = arrays.erf(x + 1e-30j).imag / 1e-30
    np.testing.assert_allclose(slope, 2 / np.sqrt(np.pi) * np.exp(-x * x), rtol=1e-15)


def test_require():
    arrays.require_float("op", x=X, b=None, c=X.astype(complex))
    with pytest.raises(TypeError, match="op: w is int64, but floating-point numbers are needed"):
        arrays.require_float("op", x=X, w=np.arange(3))
    with pytest.raises(TypeError, match="op: w must be an array but is a list"):
        arrays.require_float("op", x=X, w=[1.0])
    labels = np.array([0, 2, 1])
    arrays.require_labels("op", labels, 3, 3)
    for wrong, message in ((labels.astype(float), "labels are float64"), (labels[:2], r"labels have shape \(2,\)"),
                           (labels - 1, "label -1 at index 0 is outside 0..2"), ([0, 1, 2], "labels must be an array"),
                           (labels + 1, "label 3 at index 1 is outside 0..2")):
        with pytest.raises((TypeError, ValueError), match=f"op: {message}"):
            arrays.require_labels("op", wrong, 3, 3)
    with pytest.raises(ValueError, match="op: the batch is empty"):
        arrays.require_labels("op", labels[:0], 0, 3)


def test_one_hot():
    np.testing.assert_array_equal(arrays.one_hot(np.array([2, 0]), 3, "f"), [[0, 0, 1], [1, 0, 0]])
    np.testing.assert_array_equal(arrays.one_hot(np.array([1]), 3, "f", off=-1), [[-1, 1, -1]])


def test_single_threaded_blas(monkeypatch):
    """The limit is set once, also by nested blocks, and taken back by the outermost one, an exception or not."""
    events = []
    library = SimpleNamespace(get_num_threads=lambda: 7, set_num_threads=events.append)
    assert arrays.blas().lib_controllers  # there is a BLAS to limit
    monkeypatch.setattr(arrays, "blas", lambda: SimpleNamespace(lib_controllers=[library]))
    with pytest.raises(KeyError), arrays.single_threaded_blas():
        with arrays.single_threaded_blas():
            pass
        assert events == [1]
        raise KeyError
    assert events == [1, 7]
