"""Compilation of the kernels: one decorator, one cache folder, one thread-pool rule.

Numba's own cache notices a change in the file of a function but not in the helpers it calls, so the cache
folder's name carries a hash of every source that compiled code may depend on.

No fast-math flags. `nnan` and `ninf` would make `isnan` always false, and a NaN would go unseen. `contract` lets the
compiler fuse a product with a sum, and it does so differently in the vector body of a loop and in its tail: the bits
would depend on where the threads split a loop. Nearly all of these loops wait for memory anyway.
"""

import functools
import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numba
import numpy as np

from fastnet import paths
from fastnet.arrays import rehearsing

FLOATS = frozenset(map(np.dtype, (np.float32, np.float64)))
PARALLEL_WORK = 1 << 15  # simple operations: some 5 microseconds on one thread, three times what a launch costs


@functools.cache
def kernel_cache() -> Path:
    """The folder of compiled kernels; a temporary one where the user's cache cannot be written."""
    digest = hashlib.sha256(numba.__version__.encode())
    # The functions too: kernels take constants from them, which the compiler freezes.
    functions = Path(paths.__file__).parent / "functions"
    for source in sorted([*Path(__file__).parent.glob("*.py"), *functions.glob("*.py")]):
        digest.update(source.name.encode() + source.read_bytes())
    return paths.writable(paths.cache_folder() / f"kernels-{digest.hexdigest()[:16]}", "fastnet-kernels-")


def kernel(**options: Any) -> Callable:
    """`numba.njit` with this library's settings: cached, NumPy's division rules."""
    return lambda function: _compiled(function, "serial", **options)


def parallel_kernel(cost: int = 1) -> Callable:
    """A kernel whose `prange` loops run on all threads when there is work enough; see `ParallelKernel`."""
    return lambda function: ParallelKernel(function, cost)


class ParallelKernel:
    """One function with `prange` loops, compiled at first use for one thread, for all of them, or both.

    Starting the threads costs as much as `PARALLEL_WORK` simple operations, and where other processes hold a core it
    costs far more: every loop then waits for a thread that is not running. So little work stays on one thread. The
    choice depends on the sizes of the arrays alone, never on how many threads there are: the bits do not either.

    Called directly, the work is the size of the first array times `cost`, the weight of one entry in simple
    operations; `sized(work)` is for calls where that says nothing.
    """

    def __init__(self, function: Callable, cost: int) -> None:
        self.serial = _compiled(function, "serial")
        self.parallel = _compiled(function, "parallel", parallel=True)
        self._cost = cost

    def __call__(self, *arguments: Any) -> Any:
        return self.sized(arguments[0].size * self._cost)(*arguments)

    def sized(self, work: int) -> Callable:
        """The variant for this many simple operations."""
        if rehearsing():
            return _not_run
        return self.parallel if work >= PARALLEL_WORK else self.serial


def _not_run(*arguments: Any) -> float:
    return 0.0  # a loss, where the kernel returns one


def native(function: Callable, *signature: Any) -> Any:
    """`function` compiled for these types of arguments, to be called through its `address`; it returns nothing."""
    return _compiled(function, "native", functools.partial(numba.cfunc, numba.types.void(*signature)))


def _compiled(function: Callable, variant: str, compiler: Callable = numba.njit, **options: Any) -> Any:
    # Numba's cache does not tell the variants of one function apart, hence a folder for each.
    previous = numba.config.CACHE_DIR
    numba.config.CACHE_DIR = str(kernel_cache() / variant)
    try:
        return compiler(cache=True, error_model="numpy", nogil=True, **options)(function)
    finally:
        numba.config.CACHE_DIR = previous


def is_float(*arrays: Any) -> bool:
    """True when all arrays are of one and the same type, float32 or float64."""
    dtype = arrays[0].dtype
    return dtype in FLOATS and all(a.dtype == dtype for a in arrays)
