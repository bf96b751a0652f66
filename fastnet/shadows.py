"""Arrays without memory, for counting what a pass would need: the layers' and the kernels' own code runs on them.

A `Shadow` has a shape and a type, and no numbers. What shares memory in NumPy shares a block here: a view keeps the
block of its array, everything else makes a new one. A `Ledger` knows which blocks there are; a block is struck out
when the last shadow on it goes, as NumPy frees memory when the last array goes.

Shadows call themselves NumPy arrays, so that they go through the same kernels. They can do what layers, kernels and
optimizers ask of large arrays; anything else is a TypeError, never a guess.
"""

import contextlib
import itertools
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.lib.mixins import NDArrayOperatorsMixin

from fastnet.arrays import rehearsal

Shape = int | tuple[int, ...]


class Ledger:
    """The blocks that are alive, {number: bytes}, and those that were at the fullest moment (`at_peak`).

    `place` is what the bookkeeper says is being done; `place_at_peak` is what was being done then.
    """

    def __init__(self) -> None:
        self.alive: dict[int, int] = {}
        self.at_peak: dict[int, int] = {}
        self.place = self.place_at_peak = ""
        self._numbers = itertools.count()
        self._total = self._most = 0

    def empty(self, shape: Shape, dtype: Any) -> "Shadow":
        """A new array of `shape` and `dtype`, as `numpy.empty` makes one."""
        form = np.broadcast_to(np.zeros((), dtype), shape)
        return Shadow(form, _Block(self, form.nbytes), True)

    @contextlib.contextmanager
    def rehearsal(self) -> Iterator[None]:
        """Inside the block kernels compute nothing, and their results are shadows of this ledger."""
        with rehearsal(self.empty):
            yield

    @contextlib.contextmanager
    def at(self, place: str) -> Iterator[None]:
        """Inside the block `place` is what is being done."""
        before, self.place = self.place, place
        try:
            yield
        finally:
            self.place = before

    def add(self, nbytes: int) -> int:
        """Note a new block; return its number."""
        number = next(self._numbers)
        self.alive[number] = nbytes
        self._total += nbytes
        if self._total > self._most:
            self._most, self.at_peak, self.place_at_peak = self._total, dict(self.alive), self.place
        return number

    def strike(self, number: int) -> None:
        """Strike out a block."""
        self._total -= self.alive.pop(number)


class _Block:
    """Memory that a shadow and its views share; it goes with the last of them."""

    def __init__(self, ledger: Ledger, nbytes: int) -> None:
        self.ledger, self._number = ledger, ledger.add(nbytes)

    def __del__(self) -> None:
        self.ledger.strike(self._number)


class Shadow(NDArrayOperatorsMixin):
    """An array without memory on a block. `form` is an array of its shape and type whose entries are all one."""

    __hash__ = None  # type: ignore[assignment]

    def __init__(self, form: np.ndarray, block: _Block, is_contiguous: bool) -> None:
        self._form, self._block, self._is_contiguous = form, block, is_contiguous
        self.shape, self.dtype, self.ndim, self.size = form.shape, form.dtype, form.ndim, form.size
        self.itemsize, self.nbytes = form.itemsize, form.nbytes

    def _new(self, shape: Shape, dtype: Any = None) -> "Shadow":
        return self._block.ledger.empty(shape, self.dtype if dtype is None else dtype)

    @property
    def flags(self) -> "Shadow":
        return self

    @property
    def c_contiguous(self) -> bool:
        return self._is_contiguous

    def __len__(self) -> int:
        return len(self._form)

    def __iter__(self) -> Iterator["Shadow"]:
        return (self[i] for i in range(len(self)))

    def __bool__(self) -> bool:
        raise TypeError("a shadow has no numbers")

    def __array__(self, *arguments: Any, **options: Any) -> np.ndarray:
        raise TypeError("a shadow has no numbers")

    def __array_namespace__(self, *, api_version: str | None = None) -> Any:
        return np

    # Views.

    def __getitem__(self, key: Any) -> "Shadow":
        form = np.asarray(self._form[key])
        # Parts of the first axis lie in one piece.
        whole = key is Ellipsis or isinstance(key, int) or (isinstance(key, slice) and key.step is None)
        return Shadow(form, self._block, self._is_contiguous and whole)

    def reshape(self, *shape: Any) -> "Shadow":
        form = self._form.reshape(*shape)
        return Shadow(form, self._block, True) if self._is_contiguous else self._new(form.shape)

    def transpose(self, *axes: int) -> "Shadow":
        return Shadow(self._form.transpose(*axes), self._block, False)

    def swapaxes(self, first: int, second: int) -> "Shadow":
        return Shadow(self._form.swapaxes(first, second), self._block, False)

    # New arrays.

    def __setitem__(self, key: Any, value: Any) -> None:
        np.broadcast_to(np.zeros(()), self[key].shape)

    def contiguous(self) -> "Shadow":
        """What `numpy.ascontiguousarray` is for arrays."""
        return self if self._is_contiguous else self._new(self.shape)

    def copy(self) -> "Shadow":
        return self._new(self.shape)

    def astype(self, dtype: Any, copy: bool = True) -> "Shadow":
        return self._new(self.shape, dtype) if copy or np.dtype(dtype) != self.dtype else self

    def sum(self, axis: int) -> "Shadow":
        return self._new(tuple(size for i, size in enumerate(self.shape) if i != axis % self.ndim))

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *inputs: Any, out: Any = None, **options: Any) -> Any:
        if method != "__call__" or ufunc.nout != 1 or options:
            return NotImplemented
        if out is not None:
            return out[0]
        arrays = [x for x in inputs if hasattr(x, "shape")]
        dtype = ufunc(*(np.ones((), x.dtype) if hasattr(x, "shape") else x for x in inputs)).dtype
        return self._new(np.broadcast_shapes(*(x.shape for x in arrays)), dtype)

    def __array_function__(self, function: Any, types: Any, arguments: Any, options: Any) -> Any:
        if function not in _FUNCTIONS:
            raise TypeError(f"numpy.{function.__name__} is not known for shadows: add it to fastnet/shadows.py")
        return _FUNCTIONS[function](*arguments, **options)


def _concatenate(arrays: Any, axis: int = 0) -> Shadow:
    shape = list(arrays[0].shape)
    shape[axis] = sum(a.shape[axis] for a in arrays)
    return arrays[0]._new(tuple(shape))


def _pad(x: Shadow, widths: Any) -> Shadow:
    return x._new(tuple(size + before + after for size, (before, after) in zip(x.shape, widths, strict=True)))


def _repeat(x: Shadow, count: int, axis: int) -> Shadow:
    return x._new(tuple(size * count if i == axis else size for i, size in enumerate(x.shape)))


def _like(x: Shadow, shape: Any = None, order: str = "K") -> Shadow:
    return x._new(x.shape if shape is None else shape)


_FUNCTIONS: dict[Any, Callable[..., Shadow]] = {
    np.concatenate: _concatenate, np.pad: _pad, np.repeat: _repeat, np.zeros_like: _like, np.empty_like: _like}
