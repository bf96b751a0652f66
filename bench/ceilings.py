"""What this machine can do at best: the rate of a large matrix product and that of a copy, on a number of threads."""

import os
import platform
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from fastnet.arrays import blas


def machine() -> str:
    """The processor's name and how many cores there are."""
    try:
        names = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
        name = names[0].partition(":")[2].strip()
    except (OSError, IndexError):
        name = platform.processor() or platform.machine()
    return f"{name}, {os.cpu_count()} cores"


def gemm_rate(threads: int, size: int = 2048) -> float:
    """Floating-point operations a second of a float32 matrix product by the BLAS that NumPy uses."""
    a, b = np.ones((2, size, size), np.float32)
    c = np.empty_like(a)
    with blas().limit(limits=threads):
        return 2 * size**3 / _best(lambda: np.dot(a, b, out=c))


def copy_rate(threads: int, megabytes: int = 256) -> float:
    """Bytes a second, read and written, of a copy far larger than the caches."""
    from fastnet.bench._copy import copy

    a = np.ones(megabytes << 18, np.float32)
    b = np.empty_like(a)
    return 2 * a.nbytes / _best(lambda: copy(a, b, threads))


def _best(call: Callable[[], object], repeats: int = 5) -> float:
    call()
    times = []
    for _ in range(repeats):
        started = time.perf_counter()
        call()
        times.append(time.perf_counter() - started)
    return min(times)
