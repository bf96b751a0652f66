"""Emulated device arrays: strict arrays whose memory has a watched border and a library of its own name.

They refuse to be mixed with NumPy's arrays and with plain strict ones. Whatever `empty` and its like make starts as
NaN; memory that a result of NumPy lies in is copied into watched memory at once.
"""

import ctypes
import math
import types
import weakref
from typing import Any

import numpy as np
import strict_arrays
from strict_arrays import StrictArray

from emulator import recording
from emulator.build import emulator as library


def watched(shape: Any, dtype: Any) -> np.ndarray:
    """An array of NaN (all bits set) that ends, but for less than 16 bytes, where touching memory is a fault."""
    dtype = np.dtype(dtype)
    shape = (shape,) if isinstance(shape, (int, np.integer)) else tuple(shape)
    nbytes = math.prod(shape) * dtype.itemsize
    at = library().fn_allocate(nbytes)
    if not at:
        raise MemoryError(f"{nbytes} bytes of emulated memory")
    memory = (ctypes.c_char * nbytes).from_address(at)
    weakref.finalize(memory, library().fn_free, at).atexit = False
    recording.keep(memory)
    return np.frombuffer(memory, np.uint8).view(dtype).reshape(shape) if nbytes else np.empty(shape, dtype)


class EmulatedArray(StrictArray):
    """A strict array of the library `emulated`."""

    def __array_namespace__(self, api_version=None):
        return NAMESPACE

    def __getattr__(self, name: str) -> Any:
        found = super().__getattr__(name)
        return _lifted(name, found) if callable(found) else _emulated(found)

    def get(self) -> np.ndarray:
        recording.refuse("get")
        return super().get()

    @property
    def pointer(self) -> int:
        return self._raw.ctypes.data

    @property
    def data(self) -> Any:
        """What CuPy has: the memory, whose `ptr` is where the array starts."""
        return types.SimpleNamespace(ptr=self.pointer)

    def __repr__(self):
        return f"Emulated{self._raw!r}"


def _emulated(x: Any) -> Any:
    """Results of strict arrays as emulated ones."""
    if type(x) is StrictArray:
        raw = x._raw
        if raw.base is None:  # its own memory, and so unwatched
            watched_raw = watched(raw.shape, raw.dtype)
            watched_raw[...] = raw
            raw = watched_raw
        return EmulatedArray(raw)
    if isinstance(x, tuple):
        return tuple(map(_emulated, x))
    return x


def _lifted(name, function):
    def call(*args, **kwargs):
        recording.refuse(name)
        for x in (*args, *kwargs.values()):
            if type(x) is StrictArray:
                raise TypeError("a strict array is mixed with an emulated one (on a GPU this would fail)")
        found = function(*args, **kwargs)
        if recording.active() and name in recording.VIEWS and found._raw.base is None:
            raise recording.RecordingError(f"{name} makes a copy")
        return _emulated(found)
    return call


def _lifted_function(name, found):
    as_it_is = name.startswith("__") or isinstance(found, type) or not callable(found)
    return found if as_it_is else _lifted(name, found)


for _name, _method in vars(StrictArray).items():
    if callable(_method) and _name not in ("__init__", "__getattr__", "__array__", "__array_function__", "__repr__",
                                           "__array_namespace__", "get"):
        setattr(EmulatedArray, _name, _lifted(_name, _method))


class _Namespace(type(strict_arrays.NAMESPACE)):  # type: ignore[misc]
    """NumPy's functions on emulated arrays."""

    __name__ = "emulated"

    def __getattribute__(self, name: str) -> Any:
        return _lifted_function(name, super().__getattribute__(name))

    def __getattr__(self, name: str) -> Any:
        return _lifted_function(name, super().__getattr__(name))

    @staticmethod
    def empty(shape, dtype=float):
        return StrictArray(watched(shape, dtype))

    @staticmethod
    def empty_like(x, dtype=None):
        return StrictArray(watched(x.shape, x.dtype if dtype is None else dtype))


NAMESPACE = _Namespace()


def emulated(x: np.ndarray | None) -> EmulatedArray | None:
    """An emulated copy of a NumPy array; None stays None."""
    return None if x is None else NAMESPACE.asarray(np.array(x))
