"""What the CUDA kernels' Python sides share about arrays: which they take, and how results are made."""

from fastnet.arrays import Deferred, accumulator, array_module
from fastnet.kernels.cuda._launch import ENGINES, storage


def on_device(*arrays):
    """Whether all arrays that are not None live where kernels run."""
    return all(a is None or array_module(a).__name__ in ENGINES for a in arrays)


def supported(x, *parameters):
    """Whether x is of a storage type and the parameters that are not None are of the type its sums are kept in."""
    return (on_device(x, *parameters) and storage(x.dtype) is not None
            and all(p is None or p.dtype == accumulator(x.dtype) for p in parameters))


def empty(like, shape=None, dtype=None):
    """An uninitialised array of the library of `like`, and of its shape and type unless others are given."""
    return array_module(like).empty(like.shape if shape is None else shape, like.dtype if dtype is None else dtype)


def contiguous(x):
    """x with its entries side by side: itself, or a copy; None stays None."""
    return x if x is None or x.flags.c_contiguous else array_module(x).ascontiguousarray(x)


def aligned(x):
    """A contiguous x that starts at an address divisible by 16: itself, or a copy."""
    return x if x.data.ptr % 16 == 0 else x.copy()


def number(x):
    """A number that may be deferred as kernels take it: (where it stands or None, itself or what is added to that)."""
    return (x.numbers[x.at : x.at + 1], x.plus) if isinstance(x, Deferred) else (None, x)
