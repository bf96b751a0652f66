"""How a model's weights are distributed, layer by layer, and how many of them are zero."""

from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

import numpy as np

from fastnet.arrays import to_numpy
from fastnet.nn.sequential import Sequential


@dataclass(frozen=True)
class WeightHistogram:
    """One array of weights: counts (B,) int64 between edges (B+1,), and what a histogram does not show.

    `outside` values lie beyond the edges. `zeros` are exactly 0, `near_zero` at most `tolerance` away from it (the
    exact ones among them).
    """

    name: str
    size: int
    edges: np.ndarray
    counts: np.ndarray
    outside: int
    zeros: int
    near_zero: int
    tolerance: float
    mean: float
    std: float
    largest: float  # of the absolute values


def weight_histograms(model: Sequential, *, bins: int = 101, limit: float | None = None, tolerance: float = 1e-3,
                      parameters: str | Sequence[str] | None = None) -> list[WeightHistogram]:
    """The histogram of every array that `parameters` name, of all weights (what a penalty applies to) by default.

    bins       of equal width; an odd number has one around zero
    limit      edges go from -limit to limit, by default as far as the array's largest weight; one limit for all makes
               models comparable
    tolerance  of `near_zero`

    Raises ValueError for bins below 1, a limit that is not positive, a negative tolerance, weights that are not finite,
    and a pattern without a match.
    """
    if bins < 1 or not (limit is None or 0 < limit < np.inf) or not tolerance >= 0:
        raise ValueError("weight_histograms: bins must be at least 1, limit positive and tolerance at least 0, but "
                         f"they are {bins}, {limit} and {tolerance}")
    patterns = [parameters] if isinstance(parameters, str) else parameters
    arrays = model.parameters()
    for pattern in patterns or ():
        if not any(fnmatchcase(name, pattern) for name in arrays):
            raise ValueError(f"weight_histograms: {pattern!r} matches no parameter; there are {', '.join(arrays)}")
    chosen = [name for name, parameter in model.store
              if (parameter.penalised if patterns is None else any(fnmatchcase(name, p) for p in patterns))]
    return [_histogram(name, to_numpy(arrays[name]).astype(np.float64).ravel(), bins, limit, tolerance)
            for name in chosen]


def _histogram(name: str, values: np.ndarray, bins: int, limit: float | None, tolerance: float) -> WeightHistogram:
    sizes = abs(values)
    largest = float(sizes.max())
    if not np.isfinite(largest):
        raise ValueError(f"weight_histograms: {name} is not finite")
    reach = limit or largest or 1.0
    counts, edges = np.histogram(values, bins, (-reach, reach))
    return WeightHistogram(name, values.size, edges, counts, values.size - int(counts.sum()), int((sizes == 0).sum()),
                           int((sizes <= tolerance).sum()), tolerance, float(values.mean()), float(values.std()),
                           largest)
