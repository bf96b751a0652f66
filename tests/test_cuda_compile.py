"""Every CUDA source compiles for every type and target, without a warning, in registers alone. No GPU is needed."""

import json
import re
import sys
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
from cuda_log import SOURCES, TABLE, TARGETS, kernels

from fastnet.kernels.cuda import _launch, _nvrtc

pytest.importorskip("cuda.bindings.nvrtc", reason="the extra gpu-test is not installed")
REGISTERS = json.loads(TABLE.read_text())
RUNS = [pytest.param(source, storage, target, id=f"{source.stem}-{storage}-{target}")
        for source in SOURCES for storage in _launch.types(source) for target in TARGETS]


@pytest.mark.parametrize(("source", "storage", "target"), RUNS)
def test_compiles_into_registers(source, storage, target):
    """No spills, no stack frame, and no more registers than the table says (cuda_log.py writes it)."""
    log = _nvrtc.compiled(source, storage, target).log
    assert "warning" not in log
    found = kernels(log)
    assert set(found) == set(_launch.declarations(source))
    for name, (registers, frame, spills) in found.items():
        assert (frame, spills) == (0, 0), f"{name} keeps {frame} bytes on the stack and spills {spills}"
        assert registers <= REGISTERS[name], f"{name} takes {registers} registers"
        threads = _launch.declarations(source)[name].threads
        assert registers * threads <= 65536, f"{name}: a block of {threads} threads does not fit"


def test_the_table_names_what_exists():
    assert sorted(REGISTERS) == sorted(name for source in SOURCES for name in _launch.declarations(source))


SPILLS = """#include "common.cuh"
extern "C" __global__ void __launch_bounds__(1024) spills(float* x) {
    float v[96];
    for (int i = 0; i < 96; i++) v[i] = x[i * 7];
    for (int j = 0; j < 96; j++) for (int i = 0; i < 96; i++) v[i] = v[i] * v[(i + 1) % 96] + v[j];
    for (int i = 0; i < 96; i++) x[i * 5] = v[i];
}
"""


def test_spills_are_seen(tmp_path):
    (tmp_path / "spills.cu").write_text(SPILLS)
    _, frame, spills = kernels(_nvrtc.compiled(tmp_path / "spills.cu", "float", "sm_90a").log)["spills"]
    assert frame + spills > 0


def test_what_does_not_compile_says_so(tmp_path):
    (tmp_path / "broken.cu").write_text('#include "common.cuh"\nFN_KERNEL(32) broken(T* x) { x[0] = y; }\n')
    with pytest.raises(RuntimeError, match=r'(?s)^broken.cu does not compile for half and sm_90a:.*"y" is undefined'):
        _nvrtc.compiled(tmp_path / "broken.cu", "half", "sm_90a")
    with pytest.raises(RuntimeError, match="sm_12"):
        _nvrtc.compiled(_launch.FOLDER / "relu.cu", "float", "sm_12")


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("FASTNET_CACHE", str(tmp_path))
    _nvrtc.folder.cache_clear()
    yield tmp_path
    _nvrtc.folder.cache_clear()


def test_a_cache_that_cannot_be_written(cache, monkeypatch):
    (cache / "cuda").write_text("no folder")
    assert _nvrtc.folder().name.startswith("fastnet-cuda-")
    _nvrtc.folder().rmdir()


def test_cubins_are_compiled_once(cache, monkeypatch):
    source = _launch.FOLDER / "relu.cu"
    path = _nvrtc.cached_cubin(source, "float", "sm_90a")
    assert path.read_bytes()[:4] == b"\x7fELF"
    monkeypatch.setattr(_nvrtc, "compiled", None)
    assert _nvrtc.cached_cubin(source, "float", "sm_90a") == path
    assert [p.name for p in path.parent.iterdir()] == [path.name]
    for other in ({"common.cuh": ""}, {}):  # the name follows the headers
        with monkeypatch.context() as m, pytest.raises(TypeError):
            m.setattr(_nvrtc, "headers", lambda other=other: other)
            _nvrtc.cached_cubin(source, "float", "sm_90a")


class Raw:
    """Stands in for a kernel that CuPy has loaded."""

    max_dynamic_shared_size_bytes = 48 << 10

    def __init__(self):
        self.calls = []

    def __call__(self, *arguments, shared_mem):
        self.calls.append((*arguments, shared_mem))


def test_launches_by_cupy(cache, monkeypatch):
    """With a stand-in for CuPy: which file it loads, and what it is called with."""
    cupy, raw, loaded = ModuleType("cupy"), Raw(), []
    cupy.cuda = SimpleNamespace(Device=lambda: SimpleNamespace(compute_capability="90"))
    cupy.RawModule = lambda path: loaded.append(path) or SimpleNamespace(get_function=lambda name: raw)
    monkeypatch.setitem(sys.modules, "cupy", cupy)
    kernel = _launch.Kernel("linear", "linear_forward")
    array = type("ndarray", (), {"__module__": "cupy", "dtype": np.dtype("f"),
                                 "flags": SimpleNamespace(c_contiguous=True)})
    x, w, y = array(), array(), array()
    kernel(7, x, w, None, y, 3, 4, 5)
    kernel((1, 2), x, w, None, y, 3, 4, 5, shared=100_000)
    path, = loaded
    assert re.fullmatch(r".*/cuda/linear-float-sm_90a-\w{16}\.cubin", path)
    (grid, block, arguments, shared), second = raw.calls
    assert (grid, block, shared, second[0], second[3]) == ((7, 1, 1), (256,), 0, (1, 2, 1), 100_000)
    assert arguments[:2] == [x, w]
    assert [type(a) for a in arguments[2:]] == [np.uintp, array, np.int64, np.int64, np.int64]
    assert raw.max_dynamic_shared_size_bytes == 100_000


@pytest.mark.parametrize(("capability", "target"), [("80", "sm_80"), ("86", "sm_86"), ("90", "sm_90a"),
                                                    ("120", "sm_120")])
def test_targets(capability, target):
    assert _nvrtc.architecture(capability) == target


def test_the_library_itself_is_missing(monkeypatch):
    """As on a machine with the Python package alone, or with a driver and no compiler."""
    def missing():
        raise RuntimeError("Failure finding\nlibnvrtc.so")
    from cuda.bindings import nvrtc

    assert _nvrtc.version() == "NVRTC 13.0"
    _nvrtc._nvrtc.cache_clear()
    monkeypatch.setattr(nvrtc, "nvrtcVersion", missing)
    assert "(Failure finding libnvrtc.so): pip install" in _nvrtc.version()


def test_without_nvrtc(without, monkeypatch):
    _nvrtc._nvrtc.cache_clear()
    for name in [name for name in sys.modules if name.partition(".")[0] == "cuda"]:
        monkeypatch.delitem(sys.modules, name)
    without("cuda")
    assert _nvrtc.version().startswith("none: CUDA kernels are compiled by NVRTC, which is missing")
    with pytest.raises(ImportError, match=r"compiled by NVRTC, which is missing \(cuda\.bindings\)"):
        _nvrtc.compiled(_launch.FOLDER / "relu.cu", "float", "sm_90a")
