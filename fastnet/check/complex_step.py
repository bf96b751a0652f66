"""Exact derivatives of a forward pass that accepts complex numbers.

    <u, J v> = Im <u, f(x + i h v)> / h + O(h^2)          h = 1e-30

Nothing is subtracted, so h can be so small that the error h^2 is far below rounding. With v = e_j this is one entry
of the gradient. With a random v it is the adjoint test <u, J v> = <v, J^T u>, which sees every entry of an array of
any size in one forward pass.

Source: Squire & Trapp, "Using complex variables to estimate derivatives of real functions", 1998.
"""

import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from fastnet.arrays import Array, to_numpy

H = 1e-30


def as_complex(arrays: Sequence[Array]) -> list[Array]:
    """Copies on the host, every floating array as complex128; integer and absent ones as they are."""
    host = [None if a is None else np.array(to_numpy(a)) for a in arrays]
    return [a.astype(np.complex128) if a is not None and a.dtype.kind == "f" else a for a in host]


def takes_complex(forward: Callable, arrays: Sequence[Array], options: dict[str, Any]) -> bool:
    """Whether `forward` runs on complex arrays and hands complex numbers on."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # NumPy only warns where an imaginary part is dropped
            y, _ = forward(*as_complex(arrays), **options)
    except Exception:  # whatever a forward pass raises on numbers that it was not written for
        return False
    return bool(np.iscomplexobj(y))


def directional(forward: Callable, arrays: Sequence[Array], options: dict[str, Any], u: np.ndarray,
                argument: int, direction: np.ndarray) -> float:
    """<u, J v>: the derivative of <u, f> along `direction`, of the shape of `arrays[argument]`.

    The floating arrays are complex, as `as_complex` makes them. They are not modified.
    """
    moved = list(arrays)
    moved[argument] = arrays[argument] + 1j * H * direction
    y, _ = forward(*moved, **options)
    return float(np.vdot(u, np.asarray(y).imag)) / H


def complex_step(forward: Callable, arrays: Sequence[Array], options: dict[str, Any], u: np.ndarray,
                 argument: int, coordinates: np.ndarray) -> np.ndarray:
    """d<u, f>/dx_j for the flat indices j in `coordinates` of `arrays[argument]`, as float64 (len(coordinates),)."""
    values: list[Array] = as_complex(arrays)
    direction = np.zeros(np.shape(values[argument]))
    slopes = np.empty(len(coordinates))
    for i, j in enumerate(coordinates):
        direction.flat[j] = 1
        slopes[i] = directional(forward, values, options, u, argument, direction)
        direction.flat[j] = 0
    return slopes
