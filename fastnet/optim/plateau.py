"""A rate that falls when a figure of the run's history stops improving."""

import math
from collections.abc import Mapping
from typing import Any

from fastnet.optim._checks import at_least_zero, positive
from fastnet.optim.schedule import Schedule

LEAST_CHANGE = 1e-8  # a smaller one is not made (PyTorch's eps)


class ReduceOnPlateau(Schedule):
    """lr, multiplied by `factor` (never below min_lr) after more than `patience` epochs in a row without improvement.

    An epoch improves when `metric`, a field of its record, is better than the best so far by the share `threshold` of
    it. An accuracy is to rise, everything else to fall; a NaN is no improvement. This is PyTorch's ReduceLROnPlateau
    with threshold_mode "rel" and no cooldown. The test images' figures are refused: a rate chosen by them has a test
    accuracy that is no estimate of anything.

    `observe(record)` after each epoch; `state()` and `load_state()` carry it over a restart.
    """

    def __init__(self, lr: float, metric: str, factor: float, patience: int, threshold: float, min_lr: float) -> None:
        super().__init__("reduce_on_plateau", {"lr": lr, "metric": metric, "factor": factor, "patience": patience,
                                               "threshold": threshold, "min_lr": min_lr}, lambda step: self.lr)
        positive(self.name, lr=lr, factor=factor)
        at_least_zero(self.name, patience=patience, threshold=threshold, min_lr=min_lr)
        if factor >= 1:
            raise ValueError(f"{self.name}: factor must be below 1 but is {factor}")
        if min_lr > lr:
            raise ValueError(f"{self.name}: min_lr ({min_lr}) is larger than lr ({lr})")
        if metric.startswith("test"):
            raise ValueError(f"{self.name}: metric must be a validation or training figure but is {metric!r}")
        self.metric, self.factor, self.patience, self.threshold = metric, factor, patience, threshold
        self.min_lr, self.lr = min_lr, lr
        self.best: float | None = None
        self.bad_epochs = 0

    def observe(self, record: Mapping[str, Any]) -> None:
        """Take note of an epoch's record. Raises ValueError, naming what it holds, where the metric is missing."""
        value = record.get(self.metric)
        if not isinstance(value, (int, float)):
            there = [name for name, found in record.items() if isinstance(found, (int, float))]
            raise ValueError(f"{self.name}: the record has no {self.metric!r}; it has {', '.join(there)}")
        if self._improves(value):
            self.best, self.bad_epochs = float(value), 0
            return
        self.bad_epochs += 1
        if self.bad_epochs > self.patience:
            lower = max(self.lr * self.factor, self.min_lr)
            if self.lr - lower > LEAST_CHANGE:
                self.lr = lower
            self.bad_epochs = 0

    def _improves(self, value: float) -> bool:
        if self.best is None:
            return not math.isnan(value)
        if "accuracy" in self.metric:
            return value > self.best * (1 + self.threshold)
        return value < self.best * (1 - self.threshold)

    def state(self) -> dict[str, Any]:
        """What `load_state` needs, as JSON."""
        return {"lr": self.lr, "best": self.best, "bad_epochs": self.bad_epochs}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Go on from `state()`. Raises ValueError for anything else."""
        if set(state) != set(self.state()):
            raise ValueError(f"{self.name}: a state has {', '.join(self.state())}, but this has "
                             f"{', '.join(map(str, state)) or 'nothing'}")
        lr, best, bad_epochs = (state[key] for key in ("lr", "best", "bad_epochs"))
        if not (isinstance(lr, float | int) and (best is None or isinstance(best, float | int))
                and type(bad_epochs) is int and bad_epochs >= 0):
            raise ValueError(f"{self.name}: a state has a rate, the best figure and a number of epochs, but this has "
                             f"{', '.join(str(value)[:40] for value in (lr, best, bad_epochs))}")
        positive(self.name, **{"lr of the state": lr})
        self.lr, self.best, self.bad_epochs = lr, best, bad_epochs


def reduce_on_plateau(lr: float, metric: str = "validation_loss", factor: float = 0.1, patience: int = 5,
                      threshold: float = 1e-4, min_lr: float = 1e-6) -> ReduceOnPlateau:
    """See `ReduceOnPlateau`. Raises ValueError for values out of range."""
    return ReduceOnPlateau(lr, metric, factor, patience, threshold, min_lr)
