"""Arrays that behave as CuPy's do where code goes wrong: nothing turns them into NumPy arrays silently.

A `StrictArray` wraps a NumPy array. NumPy's functions and operators refuse it, and so does mixing it with a plain
array; its own operators and the functions of its namespace work. Reductions and single entries are 0-d arrays, not
scalars. `get()` and `asarray` are the explicit ways out and in, as on a GPU; `bool`, `int` and `float` of one entry
are allowed (there they wait for the device).
"""

import operator
from typing import Any

import numpy as np

_REFUSED = "a strict array is not converted to NumPy silently (on a GPU this would fail): use get()"


class StrictArray:
    """A NumPy array that only its own namespace may touch."""

    __array_ufunc__ = None  # ndarray and NumPy scalars leave their operators to ours
    __hash__ = None  # type: ignore[assignment]

    def __init__(self, raw: np.ndarray):
        self._raw = raw

    def __array__(self, dtype=None, copy=None):
        raise TypeError(_REFUSED)

    def __array_function__(self, function, types, args, kwargs):
        raise TypeError(f"numpy.{function.__name__}: {_REFUSED}")

    def __array_namespace__(self, api_version=None):
        return NAMESPACE

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # no buffers, no interfaces
            raise AttributeError(name)
        found = getattr(self._raw, name)
        return _wrapped_function(found) if callable(found) else wrap(found)

    def __getitem__(self, index):
        index = unwrap(index)
        found = self._raw[index]
        if isinstance(found, np.generic):  # on a GPU one entry is a view too
            found = self._raw[(*index, ...) if isinstance(index, tuple) else (index, ...)]
        return wrap(found)

    def __setitem__(self, index, value):
        self._raw[unwrap(index)] = unwrap(value)

    def __len__(self):
        return len(self._raw)

    def __iter__(self):
        return (self[i] for i in range(len(self)))

    def __repr__(self):
        return f"Strict{self._raw!r}"

    def get(self) -> np.ndarray:
        """A copy as a NumPy array."""
        return self._raw.copy()


class _Namespace:
    """NumPy's functions on strict arrays."""

    __name__ = "strict_arrays"

    def __getattr__(self, name: str) -> Any:
        found = getattr(np, name)
        return _wrapped_function(found) if callable(found) and not isinstance(found, type) else found

    @staticmethod
    def asarray(x, dtype=None):
        # A plain array is copied, as it is to a GPU.
        return StrictArray(np.array(x, dtype) if isinstance(x, np.ndarray) else np.asarray(unwrap(x), dtype))

    array = asarray

    @staticmethod
    def erf(x):
        import scipy.special

        return wrap(scipy.special.erf(unwrap(x)))


NAMESPACE = _Namespace()


def strict(x: np.ndarray | None) -> StrictArray | None:
    """A strict copy of a NumPy array; None stays None."""
    return None if x is None else StrictArray(np.array(x))


def unwrap(x: Any) -> Any:
    """The NumPy arrays inside; TypeError for one that was not wrapped."""
    if isinstance(x, StrictArray):
        return x._raw
    if isinstance(x, np.ndarray):
        raise TypeError("a NumPy array is mixed with a strict array (on a GPU this would fail)")
    if isinstance(x, (tuple, list)):
        return type(x)(map(unwrap, x))
    return x


def wrap(x: Any) -> Any:
    if isinstance(x, (np.ndarray, np.generic)):
        return StrictArray(np.asarray(x))
    if isinstance(x, (tuple, list)):
        return tuple(map(wrap, x))
    return x


def _wrapped_function(function):
    def call(*args, **kwargs):
        return wrap(function(*map(unwrap, args), **{k: unwrap(v) for k, v in kwargs.items()}))
    return call


def _binary(function, reflected=False):
    def call(self, other):
        other = unwrap(other)
        return wrap(function(other, self._raw) if reflected else function(self._raw, other))
    return call


def _unary(function, wrapped=True):
    return (lambda self: wrap(function(self._raw))) if wrapped else (lambda self: function(self._raw))


def _in_place(function):
    def call(self, other):
        self._raw = function(self._raw, unwrap(other))
        return self
    return call


for _name in ("add", "sub", "mul", "truediv", "floordiv", "mod", "pow", "matmul", "and", "or", "xor", "lshift",
              "rshift"):
    _function = getattr(operator, f"{_name}_" if _name in ("and", "or") else _name)
    setattr(StrictArray, f"__{_name}__", _binary(_function))
    setattr(StrictArray, f"__r{_name}__", _binary(_function, reflected=True))
    setattr(StrictArray, f"__i{_name}__", _in_place(getattr(operator, f"i{_name}")))
for _name in ("lt", "le", "gt", "ge", "eq", "ne"):
    setattr(StrictArray, f"__{_name}__", _binary(getattr(operator, _name)))
for _name in ("neg", "pos", "abs", "invert"):
    setattr(StrictArray, f"__{_name}__", _unary(getattr(operator, _name)))
for _name, _convert in (("bool", bool), ("int", int), ("float", float), ("complex", complex),
                        ("index", operator.index)):
    setattr(StrictArray, f"__{_name}__", _unary(_convert, wrapped=False))
