"""Compilation of the kernels: one decorator, one cache folder, one thread-pool rule.

Numba's own cache notices a change in the file of a function but not in the helpers it calls, so the cache
folder's name carries a hash of every kernel source. The sets of fast-math flags leave out `nnan` and `ninf`:
with them `isnan` is always false and a NaN would go unseen.
"""

import functools
import hashlib
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numba

from fastnet.paths import cache_folder

FLOATS = ("float32", "float64")
CONTRACT = frozenset({"contract", "nsz"})
REASSOCIATE = frozenset({"contract", "nsz", "reassoc", "arcp"})


@functools.cache
def kernel_cache() -> Path:
    """The folder of compiled kernels; a temporary one where the user's cache cannot be written."""
    digest = hashlib.sha256(numba.__version__.encode())
    here = Path(__file__).parent
    for source in sorted(here.glob("*.py")):
        digest.update(source.name.encode() + source.read_bytes())
    folder = cache_folder() / f"kernels-{digest.hexdigest()[:16]}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return folder
    except OSError:
        return Path(tempfile.mkdtemp(prefix="fastnet-kernels-"))


def kernel(parallel: bool = False, fastmath: frozenset[str] = CONTRACT, **options: Any) -> Callable:
    """`numba.njit` with this library's settings: cached, NumPy's division rules, an explicit fast-math set."""

    def compiled(function: Callable) -> Any:
        previous = numba.config.CACHE_DIR
        numba.config.CACHE_DIR = str(kernel_cache())
        try:
            return numba.njit(cache=True, parallel=parallel, fastmath=set(fastmath), error_model="numpy",
                              nogil=True, **options)(function)
        finally:
            numba.config.CACHE_DIR = previous

    return compiled


def is_float(*arrays: Any) -> bool:
    """True when all arrays are of one and the same type, float32 or float64."""
    dtype = arrays[0].dtype
    return dtype.name in FLOATS and all(a.dtype == dtype for a in arrays)
