"""What this machine offers: versions, threads, BLAS, GPU, and which backend would run."""

import importlib.util
import os
import platform
from importlib import metadata

from fastnet import devices
from fastnet.arrays import blas
from fastnet.kernels.cuda import _nvrtc
from fastnet.paths import cache_folder

PACKAGES = ("fastnet", "numpy", "numba", "scipy", "matplotlib", "safetensors", "threadpoolctl", "cupy", "numba-cuda",
            "torch")


def describe() -> list[tuple[str, str]]:
    """(what, value) pairs, in the order in which to print them."""
    rows = [("python", f"{platform.python_version()} on {platform.system()} {platform.machine()}")]
    rows += [(name, version) for name in PACKAGES if (version := _version(name))]
    rows.append(("cores", str(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count())))
    if importlib.util.find_spec("numba"):
        import numba

        from fastnet.kernels.cpu._jit import kernel_cache

        rows += [("numba threads", str(numba.get_num_threads())), ("kernel cache", str(kernel_cache()))]
    rows += [("BLAS", f"{lib['internal_api']} {lib.get('version', '')} ({lib['prefix']}), one thread inside fastnet")
             for lib in blas().info()]
    rows += [("data cache", str(cache_folder() / "cifar10")), ("GPU", gpu()),
             ("CUDA compiler", _nvrtc.version()),
             ("NumPy arrays run on", "cpu (Numba)" if importlib.util.find_spec("numba") else "reference (no Numba)")]
    return rows


def gpu() -> str:
    """The first GPU's name and driver, or why there is none."""
    try:
        return devices.gpu(devices.import_cupy())
    except (ImportError, devices.DeviceError) as error:
        return f"none: {error}"


def _version(name: str) -> str | None:
    for package in (name, *(f"{name}-cuda{v}x" for v in (12, 13) if name == "cupy")):
        try:
            return metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return None
