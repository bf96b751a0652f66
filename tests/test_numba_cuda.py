"""The kernels in Numba-CUDA without a GPU: right in the simulator, and compiled as they have to be for a card.

The simulator checks neither types nor what the compiler makes of roundings, and the compiler does not run anything.
"""

import os
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
from emulator.arrays import EmulatedArray, emulated
from test_augmentation import arguments

from fastnet import backend

pytest.importorskip("numba_cuda", reason="the extra gpu-test is not installed")
from numba.cuda import compile_ptx
from numba.cuda.typing.typeof import typeof

from fastnet.kernels.cuda import _numba

HERE = Path(__file__).parent


def test_in_the_simulator():
    """In one process: the simulator is chosen where Numba is imported first."""
    done = subprocess.run([sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", HERE / "simulated_numba.py"],
                          cwd=HERE.parent, env={**os.environ, "NUMBA_ENABLE_CUDASIM": "1"}, capture_output=True,
                          text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert int(re.search(r"^(\d+) passed in", done.stdout, re.M)[1]) == 6


@pytest.fixture
def compiled(monkeypatch):
    """Kernel's name -> PTX for a card of capability 9.0, of whatever is launched on emulated arrays in the test."""
    load = pytest.importorskip("cuda.pathfinder").load_nvidia_dynamic_lib
    try:
        load("nvvm")
    except RuntimeError:
        pytest.skip("no NVVM, which is in the extra gpu-test")
    found = {}

    def launch(kernel, grid, threads, *given):
        types = tuple(typeof(a._raw if isinstance(a, EmulatedArray) else a) for a in given)
        found[kernel.py_func.__name__], _ = compile_ptx(kernel.py_func, types, cc=(9, 0))

    monkeypatch.setattr(_numba, "launch", launch)
    monkeypatch.setitem(_numba.LIBRARIES, "emulated", None)
    monkeypatch.setitem(backend.ORDER, "emulated", ("cuda", "reference"))
    return found


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_images_are_rounded_as_the_reference_s(compiled, dtype):
    """In the type of the constants, the difference and the product each rounded once."""
    images, indices, _, mean, scale = map(emulated, arguments(dtype=dtype))
    backend.call("standardize_batch", images, indices, mean, scale, dtype=dtype)
    ptx, = compiled.values()
    other = {"float32": "f64", "float64": "f32"}[dtype]
    assert not re.search(rf"\.{other}\b|\.approx|\.full|\.ftz", ptx)
    assert re.search(r"\bsub\S*\.f(32|64)", ptx) and re.search(r"\bmul\S*\.f(32|64)", ptx)
    assert not re.search(r"\bfma\S*\.f(32|64)", ptx)


def test_launches_by_cupy(monkeypatch):
    """With stand-ins for CuPy and Numba: which arrays go in, on which stream. Numba's settings stay."""
    cupy, stream, launched = ModuleType("cupy"), SimpleNamespace(ptr=0), []
    cupy.cuda = SimpleNamespace(get_current_stream=lambda: stream)
    monkeypatch.setitem(sys.modules, "cupy", cupy)
    monkeypatch.setattr(_numba, "cuda", SimpleNamespace(as_cuda_array=lambda x, sync: ("taken", sync),
                                                        external_stream=lambda pointer: ("stream", pointer)))
    array = type("ndarray", (), {"__module__": "cupy"})()

    class Kernel:
        def __getitem__(self, how):
            assert _numba.config.CUDA_LOW_OCCUPANCY_WARNINGS == 0
            return lambda *given: launched.append((how, given))

    _numba._stream.cache_clear()
    _numba.launch(Kernel(), 7, 32, array, np.float32(2), True, 3)
    stream.ptr = 99
    _numba.launch(Kernel(), 8, (2, 3), array)
    _numba._stream.cache_clear()
    assert launched == [((7, 32, 0), (("taken", False), np.float32(2), True, 3)),
                        ((8, (2, 3), ("stream", 99)), (("taken", False),))]
    assert _numba.config.CUDA_LOW_OCCUPANCY_WARNINGS == 1
    assert _numba.supported(array)
    assert not _numba.supported(array, np.ones(3))


def test_without_numba_cuda():
    """What Numba itself has under this name is not enough."""
    code = ("import sys; sys.meta_path = [f for f in sys.meta_path if type(f).__name__ != 'NumbaCudaFinder']; "
            "from fastnet.kernels.cuda import standardize_batch")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "ImportError: CUDA kernels in Python need the package numba-cuda, which is missing" in done.stderr
    assert "pip install 'fastnet[cuda12]'" in done.stderr
