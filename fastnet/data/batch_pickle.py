"""Read a CIFAR-10 batch file, which is a Python pickle, without letting it run anything.

A pickle is a program. This reader admits only the names that NumPy writes into such a file, and puts records of ours
in their place, which keep their arguments and do nothing: no NumPy code runs on what a stranger wrote. Opcodes are
counted first, so that a small file cannot ask for much memory. The arrays are made at the end, from checked bytes.

Format: the data set's page (Krizhevsky 2009, https://www.cs.toronto.edu/~kriz/cifar.html) for the dictionary;
NumPy's `ndarray.__reduce__` (versions 1 and 2, and the buffer form of pickle protocol 5) for the array in it.
"""

import io
import pickle
import pickletools
from typing import Any

import numpy as np

MAX_OPCODES = 200_000  # a real file has some 30,000: two or three for each of 10,000 file names, one for each label
PIXELS = 3072


class _Record:
    """Stands where a pickle calls a function or makes an object: keeps the arguments and the state given to it."""

    __slots__ = ("args", "state")

    def __init__(self, *args: Any) -> None:
        self.args, self.state = args, None

    def __setstate__(self, state: Any) -> None:
        self.state = state


class _Reconstruct(_Record):
    __slots__ = ()


class _FromBuffer(_Record):
    __slots__ = ()


class _NdarrayName(_Record):
    __slots__ = ()


class _Dtype(_Record):
    __slots__ = ()


class _Encode(_Record):
    __slots__ = ()


# numpy.core became numpy._core in NumPy 2.
_ADMITTED: dict[tuple[str, str], type[_Record]] = {
    ("numpy.core.multiarray", "_reconstruct"): _Reconstruct,
    ("numpy._core.multiarray", "_reconstruct"): _Reconstruct,
    ("numpy.core.numeric", "_frombuffer"): _FromBuffer,
    ("numpy._core.numeric", "_frombuffer"): _FromBuffer,
    ("numpy", "ndarray"): _NdarrayName,
    ("numpy", "dtype"): _Dtype,
    ("_codecs", "encode"): _Encode,  # how protocols 0-2 write bytes from Python 3
}


class _Refused(ValueError):
    """The file is understood, and is not a CIFAR-10 batch."""


class _Reader(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> type[_Record]:
        if (module, name) not in _ADMITTED:
            wanted = ascii(f"{module}.{name}"[:80])[1:-1]
            raise _Refused(f"wants to import {wanted}; it is not a CIFAR-10 file and was not run")
        return _ADMITTED[module, name]


def read(content: bytes, rows: int, file: str) -> tuple[np.ndarray, np.ndarray]:
    """Pixels (rows, 3072) uint8, three planes a row, and labels (rows,) int64 of the batch file `content`.

    Files of Python 2 and re-pickled ones of Python 3 are read alike. Labels are not checked against the classes here.
    Raises ValueError, naming `file`, for anything else.
    """
    try:
        _count_opcodes(content)
        batch = _Reader(io.BytesIO(content), encoding="bytes").load()
        if type(batch) is not dict:
            raise _Refused("holds no dictionary")
        batch = {_text(key): value for key, value in batch.items()}
        return _pixels(batch.get("data"), rows), _labels(batch.get("labels"), rows)
    except _Refused as error:
        raise ValueError(f"cifar10: {file} {error}") from None
    except Exception as error:
        raise ValueError(f"cifar10: {file} cannot be read as a CIFAR-10 batch, it is damaged or another file "
                         f"({type(error).__name__})") from error


def _count_opcodes(content: bytes) -> None:
    for count, (opcode, argument, _) in enumerate(pickletools.genops(content)):
        # The unpickler makes its memo as long as the largest index that a file names.
        if count > MAX_OPCODES or (opcode.name in ("PUT", "LONG_BINPUT") and (argument or 0) > MAX_OPCODES):
            raise _Refused("is a larger pickle than any CIFAR-10 batch and was not run")


def _text(name: Any) -> Any:
    if type(name) is _Encode:
        return name.args[0]
    return name.decode("latin-1") if type(name) is bytes else name


def _pixels(data: Any, rows: int) -> np.ndarray:
    if type(data) is _Reconstruct and data.state is not None:
        _, shape, dtype, columns_first, raw = data.state
    elif type(data) is _FromBuffer:
        raw, dtype, shape, order = data.args
        columns_first = order in ("F", b"F")
    else:
        raise _Refused("has no array 'data'")
    if type(raw) is _Encode:
        raw = raw.args[0].encode("latin-1")
    if type(dtype) is not _Dtype or _text(dtype.args[0]) not in ("u1", "|u1"):
        raise _Refused("holds data that are not uint8")
    if shape != (rows, PIXELS):
        plain = len(shape) <= 8 and all(type(n) is int for n in shape)  # else it could be too long to print
        raise _Refused(f"holds data of shape {shape if plain else '?'}, but ({rows}, {PIXELS}) is needed")
    if len(raw) != rows * PIXELS:
        raise _Refused(f"holds {len(raw)} bytes of data, but ({rows}, {PIXELS}) has {rows * PIXELS}")
    flat = np.frombuffer(raw, np.uint8)
    return flat.reshape(PIXELS, rows).T if columns_first else flat.reshape(rows, PIXELS)


def _labels(labels: Any, rows: int) -> np.ndarray:
    if type(labels) is not list or any(type(label) is not int for label in labels):
        raise _Refused("has no list 'labels' of whole numbers")
    if len(labels) != rows:
        raise _Refused(f"has {len(labels)} labels, but {rows} are needed")
    return np.array(labels, np.int64)
