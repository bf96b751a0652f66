"""The machine, the card, the versions, and whether the libraries can do what the other stages count on."""

import shutil
import subprocess
from importlib import metadata
from typing import Any

import numpy as np

from fastnet import environment
from fastnet.arrays import floating
from fastnet.bench.gpu.watchdog import Report
from fastnet.bench.machine import machine

PACKAGES = ("cuda-bindings", "nvidia-cuda-nvrtc", "ml_dtypes", "triton", "pytest", "tqdm", "pooch")
PROPERTIES = ("multiProcessorCount", "l2CacheSize", "sharedMemPerBlockOptin", "regsPerMultiprocessor",
              "totalGlobalMem")
QUERY = ("name,driver_version,compute_cap,memory.total,memory.used,clocks.sm,clocks.max.sm,clocks.mem,power.draw,"
         "power.limit,temperature.gpu,ecc.mode.current")


def run(report: Report, settings: dict[str, Any]) -> None:
    """A row for each fact, and one for each thing that must work."""
    if report.begin("versions"):
        report.row(what="machine", value=machine())
        report.row(what="g++", value=shutil.which("g++") or "missing")
        for name in PACKAGES:
            report.row(what=name, value=_version(name))
    if report.begin("environment"):
        for what, value in environment.describe():
            report.row(what=what, value=value)
    for name, check in CHECKS.items():
        if settings["device"] == "cuda" and report.begin(name):
            report.row(what=name, value=check())


def _nvidia_smi() -> str:
    done = subprocess.run(["nvidia-smi", f"--query-gpu={QUERY}", "--format=csv"], capture_output=True, text=True,
                          timeout=20, check=True)
    heads, values = (line.split(", ") for line in done.stdout.splitlines()[:2])
    return ", ".join(f"{head.strip()} {value.strip()}" for head, value in zip(heads, values, strict=True))


def _properties() -> str:
    import cupy

    found = cupy.cuda.runtime.getDeviceProperties(0)
    return ", ".join(f"{key} {found.get(key)}" for key in PROPERTIES)


def _bfloat16() -> str:
    """There and back, and an addition, of numbers that bfloat16 holds exactly."""
    import cupy

    x = np.arange(8).astype(floating("bfloat16"))
    there = cupy.asarray(x)
    back = (there + there).get()
    if back.dtype != x.dtype or (back.astype("f") != 2 * x.astype("f")).any():
        raise AssertionError(f"{x} added to itself is {back}")
    return "arrays of bfloat16 are taken"


def _kernel() -> str:
    """A kernel of ours, compiled here."""
    import cupy

    from fastnet import backend

    y, _ = backend.run("relu", cupy.asarray(np.float32([-1, 2])))
    if y.get().tolist() != [0, 2]:
        raise AssertionError(f"relu of -1 and 2 is {y}")
    return "relu.cu is compiled, launched and right"


def _torch() -> str:
    import torch

    name = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"
    return f"CUDA {torch.version.cuda}, cuDNN {torch.backends.cudnn.version()}, {name}"


CHECKS = {"nvidia-smi": _nvidia_smi, "properties": _properties, "bfloat16": _bfloat16, "kernel": _kernel,
          "PyTorch": _torch}


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "missing"
