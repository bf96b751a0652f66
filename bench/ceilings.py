"""What this machine can do at best: the rate of a large matrix product and that of a copy, on a number of threads."""

import time
from collections.abc import Callable
from typing import NamedTuple

import numba
import numpy as np

from fastnet.arrays import blas


class Rates(NamedTuple):
    """Floating-point operations a second of a matrix product, bytes a second of a copy."""

    gemm: float
    copy: float

    def __str__(self) -> str:
        return f"matrix product {self.gemm / 1e9:.0f} GFLOP/s, copy {self.copy / 1e9:.1f} GB/s"


def rates(threads: int) -> Rates:
    """Both, measured now."""
    return Rates(gemm_rate(threads), copy_rate(threads))


def gemm_rate(threads: int, size: int = 2048) -> float:
    """Floating-point operations a second of a float32 matrix product by the BLAS that NumPy uses."""
    a, b = np.ones((2, size, size), np.float32)
    c = np.empty_like(a)
    with blas().limit(limits=threads):
        return 2 * size**3 / _best(lambda: np.dot(a, b, out=c))


def copy_rate(threads: int, megabytes: int = 256) -> float:
    """Bytes a second, read and written, of a copy far larger than the caches."""
    a = np.ones(megabytes << 18, np.float32)
    b = np.empty_like(a)
    before = numba.get_num_threads()
    numba.set_num_threads(threads)
    try:
        return 2 * a.nbytes / _best(lambda: _copy(a, b))
    finally:
        numba.set_num_threads(before)


@numba.njit(parallel=True, cache=True)
def _copy(a, b):
    for i in numba.prange(a.size):
        b[i] = a[i]


def _best(call: Callable[[], object], repeats: int = 5) -> float:
    call()
    times = []
    for _ in range(repeats):
        started = time.perf_counter()
        call()
        times.append(time.perf_counter() - started)
    return min(times)
