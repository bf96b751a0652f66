"""Centered differences of an implementation's own forward pass.

With F(t) = <u, f(x + t e_j)> and steps h and 2h, Richardson's extrapolation of the two centered differences is

    F'(0) = (8 (F(h) - F(-h)) - (F(2h) - F(-2h))) / (12 h) + O(h^4)

Truncation h^4 and rounding eps/h balance at h = eps^(1/5) (7e-4 in float64), where both are about eps^(4/5): 3e-13
instead of the 4e-11 of two points. The outputs are subtracted before they are weighed by u, so that the entries
which do not depend on x_j contribute no rounding at all.

Source: Fornberg, "Generation of finite difference formulas on arbitrarily spaced grids", 1988, table 1.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from fastnet.arrays import Array, array_module, to_numpy


def step(value: float, dtype: Any) -> float:
    """The step for one entry: eps^(1/5) of its type, in proportion to entries larger than 1."""
    return float(np.finfo(dtype).eps) ** 0.2 * max(1.0, abs(value))


def differences(forward: Callable, arrays: Sequence[Array], options: dict[str, Any], u: np.ndarray,
                argument: int, coordinates: np.ndarray) -> np.ndarray:
    """d<u, f>/dx_j for the flat indices j in `coordinates` of `arrays[argument]`, as float64 (len(coordinates),).

    `forward(*arrays, **options)` returns `(y, cache)`; u has y's shape. The arrays given are not modified.
    """
    given = arrays[argument]
    put = array_module(given).asarray
    x = to_numpy(given)

    def output(j: int, value: float) -> np.ndarray:
        moved = x.copy()
        moved.flat[j] = value
        y, _ = forward(*arrays[:argument], put(moved), *arrays[argument + 1 :], **options)
        return to_numpy(y).astype(np.float64)

    slopes = np.empty(len(coordinates))
    for i, j in enumerate(coordinates):
        at, h = float(x.flat[j]), step(float(x.flat[j]), x.dtype)
        with np.errstate(invalid="ignore"):  # of outputs that overflowed; not a number counts as wrong
            near = output(j, at + h) - output(j, at - h)
            far = output(j, at + 2 * h) - output(j, at - 2 * h)
        slopes[i] = np.vdot(u, 8 * near - far) / (12 * h)
    return slopes
