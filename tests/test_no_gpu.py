"""A GPU, its driver or CuPy that is missing, broken or too old: one line says so."""

import sys
import types

import pytest

import fastnet as fn
from fastnet import devices, environment


class CUDARuntimeError(RuntimeError):
    """As CuPy's."""


CUDARuntimeError.__module__ = "cupy_backends.cuda.api.runtime"


class OutOfMemoryError(MemoryError):
    """As CuPy's."""


OutOfMemoryError.__module__ = "cupy.cuda.memory"


def raising(text):
    def fail(*_):
        raise CUDARuntimeError(text)
    return fail


@pytest.fixture
def fake_cupy(monkeypatch):
    """`fake_cupy(...)` puts a module called cupy in place, whose runtime answers or raises as it is told."""
    def put(**answers):
        runtime = types.SimpleNamespace(**({
            "CUDARuntimeError": CUDARuntimeError, "driverGetVersion": lambda: 13000,
            "runtimeGetVersion": lambda: 13000, "getDeviceCount": lambda: 1,
            "getDeviceProperties": lambda device: {"name": b"Test GPU", "major": 9, "minor": 0}} | answers))
        cupy = types.ModuleType("cupy")
        cupy.cuda = types.SimpleNamespace(runtime=runtime)
        monkeypatch.setitem(sys.modules, "cupy", cupy)
        find = devices.importlib.util.find_spec
        monkeypatch.setattr(devices.importlib.util, "find_spec", lambda name: name == "cupy" or find(name))
        return cupy
    return put


BROKEN = [
    ({"driverGetVersion": lambda: 0}, "no NVIDIA driver is installed"),
    ({"driverGetVersion": lambda: 12080},
     "the NVIDIA driver is for CUDA 12.8, too old for this CuPy, which is for CUDA 13.0: update the driver, or install "
     "the CuPy of the driver's version"),
    ({"getDeviceCount": lambda: 0}, "there is no NVIDIA GPU"),
    ({"getDeviceCount": raising("cudaErrorNoDevice: no CUDA-capable device is detected")},
     "there is no usable NVIDIA GPU (cudaErrorNoDevice: no CUDA-capable device is detected)"),
    ({"driverGetVersion": raising("cudaErrorInsufficientDriver: driver too old")},
     "there is no usable NVIDIA GPU (cudaErrorInsufficientDriver: driver too old)"),
    ({"getDeviceProperties": lambda device: {"name": b"Old GPU", "major": 7, "minor": 5}},
     "Old GPU is sm_75, but sm_80 (Ampere, 2020) or later is needed"),
]


@pytest.mark.parametrize(("answers", "message"), BROKEN, ids=[message[:30] for _, message in BROKEN])
@pytest.mark.parametrize("command", [["train", "mlp2", "--data", "shapes10"], ["check", "relu"],
                                     ["lr-range", "mlp2", "--data", "shapes10"]], ids=lambda c: c[0])
def test_a_gpu_that_cannot_be_used(run, fake_cupy, answers, message, command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    fake_cupy(**answers)
    assert run(*command, "--device", "cuda") == (2, "", f"fastnet {command[0]}: {message}\n")
    assert environment.gpu() == f"none: {message}" and not list(tmp_path.iterdir())
    with pytest.raises(devices.DeviceError):
        fn.build("mlp2", device="cuda")


def test_a_gpu_that_can_be_used(fake_cupy, run):
    cupy = fake_cupy()
    assert devices.library("cuda") is cupy
    status, out, _ = run("env")
    assert status == 0 and "Test GPU, sm_90, driver for CUDA 13.0\n" in out


def test_cupy_missing_or_broken(run, monkeypatch, without):
    monkeypatch.setattr(devices.importlib.util, "find_spec", lambda name: None)
    status, out, err = run("check", "relu", "--device", "cuda")
    assert (status, out) == (2, "")
    assert err == "fastnet check: CuPy is not installed (pip install 'fastnet[cuda12]' or 'fastnet[cuda13]')\n"
    assert environment.gpu().startswith("none: CuPy is not installed")
    monkeypatch.undo()
    monkeypatch.setattr(devices.importlib.util, "find_spec", lambda name: object())
    without("cupy")
    status, out, err = run("check", "relu", "--device", "cuda")
    assert (status, out, err) == (2, "", "fastnet check: CuPy is installed but cannot be imported (cupy)\n")


@pytest.mark.parametrize(("error", "message"), [
    (OutOfMemoryError("Out of memory allocating 8,589,934,592 bytes (allocated so far: 0 bytes)."),
     "out of memory (Out of memory allocating 8,589,934,592 bytes (allocated so far: 0 bytes).); a smaller batch, or "
     "one in more parts (accumulate), needs less"),
    (MemoryError(), "out of memory (MemoryError); a smaller batch, or one in more parts (accumulate), needs less"),
    (CUDARuntimeError("\ncudaErrorLaunchFailure: unspecified launch failure\nmore"),
     "the GPU or CuPy failed: cudaErrorLaunchFailure: unspecified launch failure"),
    (RuntimeError("CuPy failed to load libnvrtc.so.13: OSError: no such file"),
     "CuPy failed to load libnvrtc.so.13: OSError: no such file; CuPy needs CUDA's libraries too (pip install "
     "'cupy-cuda12x[ctk]' or 'cupy-cuda13x[ctk]')"),
])
def test_a_gpu_that_fails_at_work(run, monkeypatch, error, message):
    def fail(*arguments, **options):
        raise error

    monkeypatch.setattr("fastnet.check.check_ops", fail)
    assert run("check", "relu") == (2, "", f"fastnet check: {message}\n")
    monkeypatch.setenv("FASTNET_TRACEBACK", "1")
    with pytest.raises(type(error)):
        run("check", "relu")


@pytest.mark.parametrize("error", [IndexError("5"), RuntimeError("5")])
def test_mistakes_of_ours_are_not_hidden(run, monkeypatch, error):
    def fail(*arguments, **options):
        raise error

    monkeypatch.setattr("fastnet.check.check_ops", fail)
    with pytest.raises(type(error)):
        run("check", "relu")
