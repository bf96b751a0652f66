"""Single ops, forward and backward together: ours beside the reference and PyTorch, at the sizes of the networks.

The error is that of our float32 results (y and every gradient) against the reference in float64,
relative to the largest entry of each array: what a fast algorithm costs in precision. PyTorch's results must be those
too, or it is not timed.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from fastnet import backend
from fastnet.arrays import single_threaded_blas
from fastnet.bench.profile import needed
from fastnet.bench.result import FLOAT32, number
from fastnet.bench.sizes import Call
from fastnet.nn.summary import align
from fastnet.timer import Timing, alternate

AGREEMENT_BATCH = 8  # more have entries so close to the kink of a ReLU that float32 puts them on its other side
AGREEMENT = 2e-2  # of the largest entry, in float32; one such entry makes 5e-3 of a dgamma


class OpResult(NamedTuple):
    """One op at one size: seconds by rival, operations and bytes of both passes, the largest relative error."""

    name: str
    timings: Mapping[str, Timing]
    operations: int
    bytes: int
    error: float

    def best(self, *rivals: str) -> float:
        return min((self.timings[r].median for r in rivals if r in self.timings), default=math.nan)

    def fraction(self, gemm: float, copy: float) -> float:
        """Of the ceiling that binds: the time at these rates, of operations and of bytes a second, over ours."""
        return max(self.operations / gemm, self.bytes / copy) / self.best("cpu")


def both_passes(call: Call, dy: np.ndarray, implementation: str) -> Callable[[], dict[str, Any]]:
    """A function that returns {`y` or the argument: y or its gradient} by one implementation."""
    def run() -> dict[str, Any]:
        with backend.use(implementation), single_threaded_blas():
            y, back = backend.run(call.op, *call.arrays.values(), **call.size.options)
            return {"y": y, **dict(zip(backend.arguments(call.op), back(dy), strict=True))}

    return run


def cotangent(call: Call) -> np.ndarray:
    """A random dy in the type of y; 1 for a loss."""
    with backend.use("reference"):
        y, _ = backend.run(call.op, *call.arrays.values(), **call.size.options)
    return np.ones((), y.dtype) if y.ndim == 0 else np.random.default_rng(1).standard_normal(y.shape).astype(y.dtype)


def measure(call: Call, *, torch: bool = True, seconds: float = 0.5, least: int = 3) -> OpResult:
    """Time one op. Raises AssertionError where PyTorch computes something else."""
    dy = cotangent(call)
    few = call if call.size.w else call.few(AGREEMENT_BATCH)  # fewer samples might take another algorithm for a product
    few_dy = cotangent(few)
    exact = both_passes(few.astype(np.float64), few_dy.astype(np.float64), "reference")()
    rivals: dict[str, Callable[[], object]] = {name: both_passes(call, dy, name) for name in ("cpu", "reference")}
    error = _error(exact, both_passes(few, few_dy, "cpu")())
    if torch:
        from fastnet.bench import peer_ops

        if call.op in peer_ops.COUNTERPARTS:
            for variant in FLOAT32[: 1 + (len(call.size.x) == 4)]:
                rivals[variant] = peer_ops.both_passes(call, dy, variant)
                found = peer_ops.named(few, peer_ops.both_passes(few, few_dy, variant)())
                apart = 0.0 if call.op in peer_ops.RANDOM else _error(exact, found)
                if not apart <= AGREEMENT:
                    raise AssertionError(f"{call.label}: PyTorch's results differ by {apart:.1e} of the largest entry")
    operations, nbytes = needed(both_passes(call, dy, "cpu"))
    return OpResult(call.label, alternate(rivals, seconds, least), operations, nbytes, error)


def table(results: list[OpResult], gemm: float, copy: float) -> str:
    """The results as text, beside the ceilings at these rates of operations and bytes a second."""
    rows = [("op", "ours, ms", "reference / ours", "PyTorch / ours", "GFLOP/s", "GB/s", "of ceiling", "error")]
    for r in results:
        ours = r.best("cpu")
        rows.append((r.name, f"{1e3 * ours:.3f}", number(r.best("reference") / ours), number(r.best(*FLOAT32) / ours),
                     f"{r.operations / ours / 1e9:.0f}" if r.operations else "-", f"{r.bytes / ours / 1e9:.1f}",
                     f"{r.fraction(gemm, copy):.0%}", f"{r.error:.0e}"))
    return align(rows, right=tuple(range(1, 8)))


def _error(exact: Mapping[str, Any], found: Mapping[str, Any]) -> float:
    """The largest difference in units of the array's largest entry.

    One entry in 100,000 is left out: what lies beside the kink of a ReLU falls on either side by its last bit.
    """
    worst = 0.0
    for key, value in found.items():
        if value is not None and (size := float(np.abs(exact[key]).max())) > 0:
            apart = np.abs(exact[key] - value).ravel()
            last = apart.size - 1 - apart.size // 100_000
            worst = max(worst, float(np.partition(apart, last)[last]) / size)
    return worst
