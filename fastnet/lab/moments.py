"""Mean and variance of each channel over any number of batches, in float64.

    n = n_a + n_b        d = mean_b - mean_a
    mean = mean_a + d n_b/n
    m2   = m2_a + m2_b + d^2 n_a n_b/n          (sum of squared deviations; the variance is m2/n)

So the variance is the mean of the batches' variances plus the variance of their means, each batch counting as its
size: the law of total variance, and no difference of large numbers.

Source: Chan, Golub & LeVeque, "Updating formulae and a pairwise algorithm for computing sample variances", 1979.
"""

import numpy as np

from fastnet.arrays import Array, array_module, to_numpy

CHUNK = 1 << 19  # numbers widened at a time: 4 MiB


class Moments:
    """`add` arrays (..., C); then `count` values a channel, `mean` (C,) and `variance` (C,), the population's."""

    def __init__(self) -> None:
        self.count = 0
        self._mean: Array = 0.0
        self._squares: Array = 0.0  # sum of squared deviations from the mean

    def add(self, x: Array) -> None:
        rows = x.reshape(-1, x.shape[-1])
        step = max(1, CHUNK // rows.shape[1])
        for start in range(0, len(rows), step):
            part = rows[start : start + step].astype(np.float64)
            mean = part.mean(axis=0)
            part -= mean
            part *= part
            self._merge(len(part), mean, part.sum(axis=0))

    def _merge(self, count: int, mean: Array, squares: Array) -> None:
        total = self.count + count
        away = mean - self._mean
        self._mean = self._mean + away * (count / total)
        self._squares = self._squares + squares + away * away * (self.count * count / total)
        self.count = total

    @property
    def mean(self) -> np.ndarray:
        return to_numpy(self._mean)

    @property
    def variance(self) -> np.ndarray:
        return to_numpy(self._squares) / self.count


def norm(x: Array) -> float:
    """The Euclidean norm of all entries, summed in float64."""
    wide = x.reshape(-1).astype(np.float64)
    return float(array_module(x).sqrt((wide * wide).sum()))
