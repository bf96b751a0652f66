"""What the numerical methods say about one gradient, and the comparison of a gradient with it.

The numbers are computed once; any gradient, also one corrupted on purpose, is then compared with them in the same
way.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from fastnet.arrays import Array
from fastnet.check.complex_step import as_complex, complex_step, directional
from fastnet.check.differences import differences
from fastnet.check.errors import BOUNDS, worst

# A gradient whose entries all lie below this many units of rounding, in proportion to dy, is zero but for rounding:
# 1e-14 in float64 (16-bit storage is summed in float32). Differences divide rounding by their step, hence the second
# factor.
_ROUNDING = 45
_DIFFERENCES_ROUNDING = 1e4


class Finding(NamedTuple):
    """One method's verdict on one gradient: the error, its bound, and the worst entry."""

    method: str
    error: float
    bound: float
    at: tuple[int, ...]
    analytic: float
    numeric: float

    @property
    def wrong(self) -> bool:
        return not self.error <= self.bound  # so that a NaN is wrong


@dataclass(frozen=True)
class Evidence:
    """The numerical derivatives of <u, f> with respect to one argument; None where a method could not run."""

    coordinates: np.ndarray  # flat indices, the entries that were differentiated one by one
    differences: np.ndarray | None
    complex_step: np.ndarray | None
    direction: np.ndarray | None  # v, of the argument's shape
    derivative: float  # <u, J v>
    itemsize: int  # bytes of an entry in the arithmetic that is checked
    scale: float  # the length of u

    def compare(self, gradient: np.ndarray) -> list[Finding]:
        """Every method's verdict on `gradient` (float64, of the argument's shape)."""
        largest = float(np.max(np.abs(gradient), initial=0.0))
        here = gradient.reshape(-1)[self.coordinates]
        findings = []
        for method, numeric in (("differences", self.differences), ("complex step", self.complex_step)):
            if numeric is None:
                continue
            error, at, a, n = worst(here, numeric, largest)
            if self.is_zero(gradient) and np.max(np.abs(numeric), initial=0.0) <= self._negligible(method):
                error = 0.0  # zero by algebra: a ratio of two roundings says nothing
            index = tuple(int(i) for i in np.unravel_index(self.coordinates[at[0]], gradient.shape)) if at else ()
            findings.append(Finding(method, error, BOUNDS[method][self.itemsize], index, a, n))
        if self.direction is not None:
            findings.append(self._adjoint(gradient))
        return findings

    def is_zero(self, gradient: np.ndarray) -> bool:
        """Whether the gradient is zero, exactly or but for rounding, in proportion to the length of u."""
        return bool(np.max(np.abs(gradient), initial=0.0) <= self._negligible("complex step"))

    def seen(self, gradient: np.ndarray) -> np.ndarray:
        """Which entries lie above the noise: were one of them lost, some method's error would pass its bound.

        Bools of gradient's shape. The complex step and differences resolve their bound times the largest entry, where
        they looked; the adjoint test its bound times |v| |g|, everywhere.
        """
        size = np.abs(gradient)
        if self.is_zero(gradient):
            return np.zeros(gradient.shape, bool)
        floor = np.full(gradient.shape, np.inf)
        if self.direction is not None:
            length = np.linalg.norm(self.direction) * np.linalg.norm(gradient)
            floor = BOUNDS["complex step"][self.itemsize] * length / np.abs(self.direction)
        for method, numeric in (("differences", self.differences), ("complex step", self.complex_step)):
            if numeric is not None:
                here = floor.reshape(-1)
                here[self.coordinates] = np.minimum(here[self.coordinates],
                                                    BOUNDS[method][self.itemsize] * np.max(size, initial=0.0))
        return size > floor

    def wrong(self, gradient: np.ndarray) -> bool:
        return any(finding.wrong for finding in self.compare(gradient))

    def _adjoint(self, gradient):
        # Relative to |v| |g|, which rounding is in proportion to; <v, g> itself can be small by chance.
        product = float(np.vdot(self.direction, gradient))
        length = float(np.linalg.norm(self.direction))  # type: ignore[arg-type]
        distance, norm = abs(product - self.derivative), length * float(np.linalg.norm(gradient))
        if self.is_zero(gradient) and distance <= self._negligible("complex step") * length:
            error = 0.0
        else:
            error = distance / norm if norm > 0 else np.inf
        return Finding("adjoint test", error, BOUNDS["complex step"][self.itemsize], (), product, self.derivative)

    def _negligible(self, method):
        eps = {8: 2.0**-52, 4: 2.0**-23, 2: 2.0**-23}[self.itemsize]
        return _ROUNDING * eps * self.scale * (_DIFFERENCES_ROUNDING if method == "differences" else 1)


def gather(forward: Callable, oracle: Callable | None, arrays: Sequence[Array], options: dict[str, Any],
           u: np.ndarray, argument: int, *, entries: int, itemsize: int, rng: np.random.Generator) -> Evidence:
    """Differentiate `forward` by differences and `oracle` (None: no complex step) with respect to one argument.

    Up to `entries` entries, drawn at random, are differentiated one by one.
    """
    shape = tuple(arrays[argument].shape)
    size = int(np.prod(shape))
    coordinates = np.arange(size) if size <= entries else np.sort(rng.choice(size, entries, replace=False))
    by_differences = by_complex_step = direction = None
    derivative = 0.0
    if itemsize in BOUNDS["differences"]:
        by_differences = differences(forward, arrays, options, u, argument, coordinates)
    if oracle is not None:
        by_complex_step = complex_step(oracle, arrays, options, u, argument, coordinates)
        direction = signed(rng, shape)
        derivative = directional(oracle, as_complex(arrays), options, u, argument, direction)
    return Evidence(coordinates, by_differences, by_complex_step, direction, derivative, itemsize,
                    float(np.linalg.norm(u)))


def signed(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Random numbers of size 0.5 to 1.5 and random sign: every entry has a weight that can be seen."""
    return rng.choice([-1.0, 1.0], shape) * rng.uniform(0.5, 1.5, shape)
