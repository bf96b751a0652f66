"""What the library knows about arrays: which library made one, its precision, its checks.

Everything else runs on NumPy and CuPy arrays alike by asking `array_module`.
"""

import contextlib
import functools
import math
import sys
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from fastnet.arena import arena

Array = Any  # numpy.ndarray or cupy.ndarray; the two share an interface but no base class


@dataclass(frozen=True)
class Deferred:
    """A number that a kernel finds in a GPU's memory when it runs: numbers[at] + plus, `numbers` in float64.

    For launches that are recorded and replayed (`fastnet.graphs`): a number that is passed to a kernel is the same in
    every replay, one that stands in memory need not be.
    """

    numbers: Array
    at: int
    plus: float = 0.0

    def __add__(self, x: float) -> "Deferred":
        return replace(self, plus=self.plus + x)


def array_module(x: Array) -> Any:
    """The library (`numpy`, `cupy`) that `x` belongs to.

    Raises TypeError for anything that is not an array.
    """
    if isinstance(x, (np.ndarray, np.generic)):
        return np
    if is_cupy(x):
        return sys.modules["cupy"]
    if hasattr(x, "__array_namespace__"):
        return x.__array_namespace__()
    raise TypeError(f"an array is needed, got {type(x).__name__}")


def is_cupy(x: Any) -> bool:
    """Whether x is a CuPy array, which lives on a GPU."""
    return type(x).__module__.partition(".")[0] == "cupy"


# Devices as DLPack numbers them: those whose memory the CPU can read (CUDA and ROCm share some), and others.
HOST_DEVICES = (1, 3, 11, 13)
GPUS = {2: "CUDA", 8: "Metal", 10: "ROCm", 14: "oneAPI"}


def from_elsewhere(name: str, x: Any, library: Any = np) -> Any:
    """An array of another library (what has `__dlpack__`, such as a torch tensor) as a NumPy array on the same memory.

    One in a GPU's memory becomes an array of `library`, where that is CuPy. NumPy's and CuPy's arrays, and what is no
    array, are returned as they are. Raises TypeError for an array in a GPU's memory while `library` is NumPy, and for
    one that cannot be looked into (bfloat16, a tensor that requires gradients).
    """
    if isinstance(x, (np.ndarray, np.generic)) or is_cupy(x) or not hasattr(x, "__dlpack__"):
        return x
    kind = f"{type(x).__module__.partition('.')[0]}.{type(x).__name__}"
    try:
        device = int(x.__dlpack_device__()[0])
        if device in HOST_DEVICES:
            return np.from_dlpack(x)
        if library is not np:
            return library.from_dlpack(x)
    except (BufferError, RuntimeError, TypeError, ValueError, AttributeError) as error:
        raise TypeError(f"{name} is a {kind} of {getattr(x, 'dtype', 'unknown type')} that NumPy cannot take over: "
                        f"{error}") from None
    raise TypeError(f"{name} is a {kind} in the memory of a GPU ({GPUS.get(device, f'DLPack device {device}')}), but "
                    "the model is in main memory: copy it there first")


def to_numpy(x: Array) -> np.ndarray:
    """`x` as a NumPy array: itself if it is one, else a copy on the host."""
    if isinstance(x, np.ndarray):
        return x
    if hasattr(x, "get"):
        return x.get()
    return np.asarray(x)


def move(x: Array, library: Any) -> Array:
    """`x` as an array of `library`: itself if it is one, else a copy by way of main memory."""
    if array_module(x) is library:
        return x
    host = to_numpy(x)
    return host if library is np else library.asarray(host)


def assign(target: Array, values: Array) -> None:
    """Write `values`, of any library, into all of `target`."""
    target[...] = move(values, array_module(target))


LINE = 64  # bytes of a cache line, and of the widest vectors
LARGE = 1 << 16  # bytes of an array whose alignment shows

_stand_in: ContextVar[Callable[..., Array] | None] = ContextVar("fastnet_stand_in", default=None)


@contextlib.contextmanager
def rehearsal(make: Callable[..., Array]) -> Iterator[None]:
    """Inside the block kernels compute nothing, and what they would fill is made by `make(shape, dtype)`.

    For `fastnet.shadows`: the code that decides what is allocated and kept runs as ever, on arrays without memory.
    """
    token = _stand_in.set(make)
    try:
        yield
    finally:
        _stand_in.reset(token)


def rehearsing() -> bool:
    """Whether compiled kernels are to be left out."""
    return _stand_in.get() is not None


def empty(shape: int | tuple[int, ...], dtype: Any) -> Array:
    """An uninitialised NumPy array for a kernel's result; a large one comes from the arena and starts on a cache line.

    It is an array like any other, and safe to keep and to hand out: its memory is used again when the last view of it
    is gone.
    """
    stand_in = _stand_in.get()
    if stand_in is not None:
        return stand_in(shape, dtype)
    dtype = np.dtype(dtype)
    nbytes = (shape if isinstance(shape, int) else math.prod(shape)) * dtype.itemsize
    if nbytes < LARGE:
        return np.empty(shape, dtype)
    memory = arena()
    y = None if memory is None else memory.empty(shape, dtype, nbytes)
    return _aligned(np.empty(nbytes + LINE, np.uint8), shape, dtype) if y is None else y


def given(into: Array | None, shape: int | tuple[int, ...], dtype: Any) -> Array:
    """Where a kernel writes a result: `into`, or a new array where that is None."""
    return empty(shape, dtype) if into is None else into


def zeros(shape: int | tuple[int, ...], dtype: Any) -> Array:
    """A NumPy array of zeros for a kernel's sums."""
    y = empty(shape, dtype)
    if not rehearsing():
        y.fill(0)
    return y


def contiguous(x: Array) -> Array:
    """`x` with its entries side by side in C's order, at least one-dimensional: itself, or a copy."""
    if not isinstance(x, (np.ndarray, np.generic)):
        return x.contiguous()
    if x.nbytes < LARGE or x.flags.c_contiguous:
        return np.ascontiguousarray(x)
    y = empty(x.shape, x.dtype)
    y[...] = x
    return y


def release() -> None:
    """Hand the memory of the arena that no array is using back to the system, as `fit` does at its end."""
    memory = arena()
    if memory is not None:
        memory.release()


def zeros_aligned(size: int, dtype: Any, library: Any = np) -> Array:
    """A zeroed vector of `size` entries that starts on a 64-byte boundary (one cache line, one AVX-512 load)."""
    dtype = np.dtype(dtype)
    if library is not np:
        return library.zeros(size, dtype=dtype)  # CuPy's start on 512
    if rehearsing():
        return zeros(size, dtype)
    return _aligned(np.zeros(size * dtype.itemsize + LINE, np.uint8), size, dtype)


def _aligned(raw: np.ndarray, shape: int | tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """The array that starts on the first cache line in `raw`, which has `LINE` bytes more than it needs."""
    return np.ndarray(shape, dtype, raw, -raw.ctypes.data % LINE)


def accumulator(dtype: Any) -> np.dtype:
    """The type sums are kept in: float32 for 16-bit storage, otherwise the storage type itself."""
    dtype = np.dtype(dtype)
    return np.dtype(np.float32) if dtype.itemsize == 2 else dtype


def floating(dtype: Any) -> np.dtype:
    """The floating type of that name, `bfloat16` too, which NumPy has from the package ml_dtypes.

    Raises ImportError where that is missing, ValueError for any type but a floating one and complex128 (which the
    complex step needs), TypeError for what names no type.
    """
    if isinstance(dtype, str) and dtype == "bfloat16":
        try:
            import ml_dtypes
        except ImportError:
            raise ImportError("bfloat16 needs the package ml_dtypes, which is not installed (pip install "
                              "'fastnet[bfloat16]')") from None
        return np.dtype(ml_dtypes.bfloat16)
    found = np.dtype(dtype)
    if not is_floating(found) or (found.kind == "c" and found != np.complex128):
        raise ValueError(f"dtype must be floating (float32, float64, bfloat16 or float16) but is {found}")
    return found


def is_floating(dtype: np.dtype) -> bool:
    """Whether the type holds floating or complex numbers; bfloat16 is of no kind that NumPy knows."""
    return dtype.kind in "fc" or (dtype.kind == "V" and dtype.name == "bfloat16")


def erf(x: Array) -> Array:
    """The error function, elementwise; complex arguments too (NumPy arrays only)."""
    xp = array_module(x)
    if xp is np:
        import scipy.special

        return scipy.special.erf(x)
    if xp.__name__ == "cupy":
        import cupyx.scipy.special

        return cupyx.scipy.special.erf(x)
    return xp.erf(x)


def require_float(op: str, **named: Array | None) -> None:
    """Raise TypeError unless every named array holds floating (or, for checking, complex) numbers."""
    for name, x in named.items():
        if x is None:
            continue
        _require_array(op, name, x)
        if not is_floating(x.dtype):
            raise TypeError(f"{op}: {name} is {x.dtype}, but floating-point numbers are needed "
                            f"(convert it: {name}.astype('float32'))")


def require_labels(op: str, labels: Array, batch_size: int, classes: int) -> None:
    """Raise TypeError or ValueError unless `labels` is (batch_size,) integers in 0..classes-1."""
    _require_array(op, "labels", labels)
    if labels.dtype.kind not in "iu":
        raise TypeError(f"{op}: labels are {labels.dtype}, but integers are needed")
    if labels.shape != (batch_size,):
        raise ValueError(f"{op}: labels have shape {tuple(labels.shape)}, but the batch has {batch_size} rows, "
                         f"so ({batch_size},) is needed")
    if batch_size == 0:
        raise ValueError(f"{op}: the batch is empty, so the mean loss is not defined")
    wrong = (labels < 0) | (labels >= classes)
    if bool(wrong.any()):
        index = int(wrong.argmax())
        raise ValueError(f"{op}: label {int(labels[index])} at index {index} is outside 0..{classes - 1}")


def _require_array(op: str, name: str, x: Any) -> None:
    if not hasattr(x, "dtype"):
        raise TypeError(f"{op}: {name} must be an array but is a {type(x).__name__}")


def one_hot(labels: Array, classes: int, dtype: Any, off: float = 0) -> Array:
    """(N, classes) of `dtype` with 1 in each label's column and `off` in the others."""
    hot = labels[:, None] == array_module(labels).arange(classes)
    return hot.astype(dtype) * (1 - off) + off


@functools.cache
def blas() -> Any:
    """The controller of the BLAS libraries' threads."""
    # One controller for the life of the process: making one scans every loaded library.
    import scipy.linalg.cython_blas  # noqa: F401  (the BLAS that Numba calls; it must be loaded to be found)
    import threadpoolctl

    return threadpoolctl.ThreadpoolController().select(user_api="blas")


_blas_depth = 0


@contextlib.contextmanager
def single_threaded_blas() -> Iterator[None]:
    """Keep every BLAS on one thread inside the block.

    The kernels are parallel themselves, the two thread pools would fight for the cores, and a threaded BLAS
    changes the bits of its result with the number of threads.
    """
    global _blas_depth
    if _blas_depth:
        yield
        return
    # Not blas().limit(...), which asks each library for all that it knows: that shows in a step of half a millisecond.
    libraries = blas().lib_controllers
    before = [library.get_num_threads() for library in libraries]
    for library in libraries:
        library.set_num_threads(1)
    _blas_depth += 1
    try:
        yield
    finally:
        _blas_depth -= 1
        for library, threads in zip(libraries, before, strict=True):
            library.set_num_threads(threads)
