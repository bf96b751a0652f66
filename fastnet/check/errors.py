"""How far a gradient is from its oracle, and where.

    error = max |a - n| / max |a|          a analytic, n numeric, both maxima over the whole array

A ratio taken entry by entry would judge the smallest entries by their rounding; a mean would hide one wrong entry
among many right ones. The worst index is given with the error, so that a message can say where to look.
"""

import math

import numpy as np


class GradientError(AssertionError):
    """A gradient, or another part of an op's contract, is wrong. The message says which, where and by how much."""


# The largest error that passes, by the size in bytes of an entry. In float64 differences of fourth order reach
# about 1e-11 and the complex step 1e-15. In 16 bits differences are noise, so there are none.
BOUNDS: dict[str, dict[int, float]] = {
    "value": {8: 1e-12, 4: 1e-5, 2: 5e-3},
    "differences": {8: 1e-7, 4: 2e-3},
    "complex step": {8: 1e-12, 4: 1e-5, 2: 5e-3},
}


def relative_error(analytic: np.ndarray, numeric: np.ndarray, largest: float | None = None) -> float:
    """max|analytic - numeric| / max|analytic|; 0 where both are zero everywhere, infinite where anything is not finite.

    `largest` replaces max|analytic| where only some entries of a larger array are compared.
    Raises ValueError where the shapes differ.
    """
    return worst(analytic, numeric, largest)[0]


def worst(analytic: np.ndarray, numeric: np.ndarray,
          largest: float | None = None) -> tuple[float, tuple[int, ...], float, float]:
    """The relative error, the index of its worst entry (the first that is not finite, if any), and both values there.

    Raises ValueError where the shapes differ.
    """
    analytic, numeric = np.asarray(analytic), np.asarray(numeric)
    if analytic.shape != numeric.shape:
        raise ValueError(f"relative_error: the shapes differ, {analytic.shape} and {numeric.shape}")
    if analytic.size == 0:
        return 0.0, (), 0.0, 0.0
    largest = float(np.max(np.abs(analytic))) if largest is None else largest
    finite = np.isfinite(analytic) & np.isfinite(numeric)
    # Infinities of one sign would give a difference of NaN and a warning; they count as wrong anyway.
    distance = np.where(finite, np.abs(np.where(finite, analytic, 0) - np.where(finite, numeric, 0)), np.inf)
    index = np.unravel_index(int(np.argmax(distance)), distance.shape)
    error = float(distance[index])
    if not math.isfinite(largest):
        error = math.inf
    elif error > 0:
        error = error / largest if largest > 0 else math.inf
    return error, tuple(int(i) for i in index), float(analytic[index]), float(numeric[index])
