"""The band that training runs at several learning rates span, and these runs.

Source: Santurkar et al., "How does batch normalization help optimization?", 2018, figure 4; as report R5 has it: full
trainings at fixed rates, and at each step the least and the largest value over them.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fastnet.data import Dataset
from fastnet.lab.recorder import Recorder, Recording
from fastnet.nn.sequential import Sequential
from fastnet.optim.optimizers import Optimizer
from fastnet.optim.schedules import constant
from fastnet.train.loop import fit
from fastnet.train.nonfinite import NonFiniteError


@dataclass(frozen=True)
class Band:
    """Least and largest value at each step, (T,) float64, over the curves that are finite there; NaN where none is.

    `curves` counts them; `diverged` has {name of the curve: its first step that is missing or not finite}.
    """

    steps: np.ndarray
    low: np.ndarray
    high: np.ndarray
    curves: np.ndarray
    diverged: dict[str, int]


@dataclass(frozen=True)
class RateRun:
    """One training: what was recorded, an epoch's record each, and the result; where it diverged the last is None."""

    rate: float
    recording: Recording
    history: list[dict[str, Any]]
    result: dict[str, Any] | None


def band(curves: Mapping[Any, Sequence[float] | np.ndarray], steps: Sequence[int] | np.ndarray | None = None) -> Band:
    """The band of several curves {name: values at each step}, of which some may end early.

    `steps` numbers the values (default 0, 1, ...). Raises ValueError for no curves and for steps that do not fit the
    longest.
    """
    if not curves:
        raise ValueError("band: there are no curves")
    length = max(len(curve) for curve in curves.values())
    numbers = np.arange(length) if steps is None else np.asarray(steps, np.int64)
    if len(numbers) != length:
        raise ValueError(f"band: there are {len(numbers)} steps but {length} values in the longest curve")
    values = np.full((len(curves), length), np.nan)
    for row, curve in zip(values, curves.values(), strict=True):
        row[: len(curve)] = curve
    finite = np.isfinite(values)
    some = finite.any(axis=0)
    low = np.where(some, np.where(finite, values, np.inf).min(axis=0, initial=np.inf), np.nan)
    high = np.where(some, np.where(finite, values, -np.inf).max(axis=0, initial=-np.inf), np.nan)
    diverged = {str(name): int(numbers[np.argmin(row)]) for name, row in zip(curves, finite, strict=True)
                if not row.all()}
    return Band(numbers, low, high, finite.sum(axis=0), diverged)


def rate_runs(make_model: Callable[[], Sequential], data: Dataset, optimizer: Optimizer, rates: Sequence[float], *,
              parameters: str = "*", step_sizes: Sequence[float] = (), reevaluate: bool = True, every: int = 1,
              out: str | Path | None = None, **settings: Any) -> list[RateRun]:
    """Train a new model at each of the constant `rates`, with a `Recorder` looking on.

    `make_model()` makes the model, the same each time. `settings` (epochs, batch_size, seed, ...) are `fit`'s, `out`
    the folder below which each run gets a directory `lr-RATE`. A run whose loss stops being finite is a finding: it
    ends there. For R5's experiments: rates (0.15, 0.1, 0.075, 0.05), SGD(), and then

        band({run.rate: run.recording.losses for run in runs})               # and of .same_batch, .smoothness
    """
    if not rates or len(set(rates)) < len(rates):
        raise ValueError(f"rate_runs: different rates are needed, but they are {list(rates)}")
    found = []
    for rate in rates:
        recorder = Recorder(parameters=parameters, step_sizes=step_sizes, reevaluate=reevaluate, every=every)
        history, result = [], None
        try:
            run = fit(make_model(), data, optimizer, constant(rate), observer=recorder,
                      out=None if out is None else Path(out) / f"lr-{rate:g}", **settings)
            history, result = run.history, run.result
        except NonFiniteError:
            pass
        found.append(RateRun(rate, recorder.recording(), history, result))
    return found
