"""Where a model lives: the names of devices, and the library whose arrays are there.

    cpu     NumPy, in main memory
    cuda    CuPy, on the first NVIDIA GPU

Nothing else asks for a device by its name: whoever holds an array asks `arrays.array_module`.
"""

import importlib.util
from collections.abc import Callable
from typing import Any

import numpy as np

OLDEST = (8, 0)  # compute capability: the first whose tensor cores take bfloat16, which the kernels are written for


class DeviceError(RuntimeError):
    """A device that is not there or cannot be used; says why in one line."""


def library(device: str) -> Any:
    """The library (`numpy`, `cupy`) whose arrays live on `device`.

    Raises ValueError for an unknown name, ImportError where CuPy is missing, DeviceError where there is no usable GPU.
    """
    if device not in LIBRARIES:
        raise ValueError(f"device {device!r} is not known; choose from {', '.join(LIBRARIES)}")
    return LIBRARIES[device]()


def gpu(cupy: Any) -> str:
    """The first GPU's name, its architecture and what its driver is for. Raises DeviceError where it cannot be used."""
    runtime = cupy.cuda.runtime
    try:
        driver, built_for = runtime.driverGetVersion(), runtime.runtimeGetVersion()
        if driver == 0:
            raise DeviceError("no NVIDIA driver is installed")
        if driver // 1000 < built_for // 1000:
            raise DeviceError(f"the NVIDIA driver is for CUDA {_version(driver)}, too old for this CuPy, which is for "
                              f"CUDA {_version(built_for)}: update the driver, or install the CuPy of the driver's "
                              "version")
        if runtime.getDeviceCount() == 0:
            raise DeviceError("there is no NVIDIA GPU")
        found = runtime.getDeviceProperties(0)
    except runtime.CUDARuntimeError as error:
        raise DeviceError(f"there is no usable NVIDIA GPU ({_one_line(error)})") from None
    name, capability = found["name"].decode(), (found["major"], found["minor"])
    if capability < OLDEST:
        raise DeviceError(f"{name} is {_architecture(capability)}, but {_architecture(OLDEST)} (Ampere, 2020) or later "
                          "is needed")
    return f"{name}, {_architecture(capability)}, driver for CUDA {_version(driver)}"


def fault(error: BaseException) -> str | None:
    """What went wrong in the work on a GPU, in one line; None for an exception that is not of that kind."""
    if isinstance(error, MemoryError):  # CuPy's own is one too, and the advice is the same in main memory
        return f"out of memory ({_one_line(error)}); a smaller batch, or one in more parts (accumulate), needs less"
    text = _one_line(error)
    if text.startswith("CuPy failed to load "):  # a bare RuntimeError
        return f"{text}; CuPy needs CUDA's libraries too (pip install 'cupy-cuda12x[ctk]' or 'cupy-cuda13x[ctk]')"
    if type(error).__module__.partition(".")[0] in ("cupy", "cupy_backends"):
        return f"the GPU or CuPy failed: {text}"
    return None


def import_cupy() -> Any:
    """CuPy itself. Raises ImportError, in one line, where it is missing or broken."""
    if importlib.util.find_spec("cupy") is None:
        raise ImportError("CuPy is not installed (pip install 'fastnet[cuda12]' or 'fastnet[cuda13]')")
    try:
        import cupy
    except ImportError as error:
        raise ImportError(f"CuPy is installed but cannot be imported ({_one_line(error)})") from None
    return cupy


def _cuda() -> Any:
    cupy = import_cupy()
    gpu(cupy)
    return cupy


def _architecture(capability: tuple[int, int]) -> str:
    return f"sm_{capability[0]}{capability[1]}"


def _version(number: int) -> str:
    return f"{number // 1000}.{number % 1000 // 10}"


def _one_line(error: BaseException) -> str:
    # The compiler's messages have many lines and CuPy's own may be empty.
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)


LIBRARIES: dict[str, Callable[[], Any]] = {"cpu": lambda: np, "cuda": _cuda}
