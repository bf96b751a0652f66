"""Early stopping: when a validation figure has not improved for a while, end, and go back to the best epoch."""

import math
from collections.abc import Mapping
from typing import Any

from fastnet.arrays import Array


class EarlyStopping:
    """Stop after `patience` epochs without an improvement of `metric` by more than `min_delta`.

    `metric` is a field of the run's history. A loss or cost is minimised, an accuracy maximised. The figures of the
    test images are refused: an epoch chosen by them has a test accuracy that is no estimate of anything.
    Raises ValueError for values out of range.
    """

    def __init__(self, patience: int = 10, *, metric: str = "validation_loss", min_delta: float = 0.0) -> None:
        if patience < 1:
            raise ValueError(f"EarlyStopping: patience must be at least 1 epoch but is {patience}")
        if not metric.startswith(("validation_", "train_")):
            raise ValueError(f"EarlyStopping: metric must be a validation or training figure but is {metric!r}")
        if not min_delta >= 0:
            raise ValueError(f"EarlyStopping: min_delta must not be negative but is {min_delta}")
        self.patience, self.metric, self.min_delta = patience, metric, min_delta
        self.start()

    def start(self) -> None:
        """Forget the run before: a new one begins."""
        self.best_epoch = 0
        self.best_value = math.inf  # of the figure to be minimised: an accuracy counts with a minus
        self.best_state: dict[str, Array] = {}

    def improved(self, line: Mapping[str, Any]) -> bool:
        """Whether the epoch of this history line is the best so far. Raises ValueError if it has no such figure."""
        if self.metric not in line:
            raise ValueError(f"EarlyStopping: the run's history has no {self.metric} (without validation images?)")
        value = -line[self.metric] if self.metric.endswith("accuracy") else line[self.metric]
        if value < self.best_value - self.min_delta:
            self.best_value, self.best_epoch = value, line["epoch"]
            return True
        return False

    def finished(self, epoch: int) -> bool:
        """Whether epoch number `epoch` is the last."""
        return epoch - self.best_epoch >= self.patience

    def settings(self) -> dict[str, Any]:
        return {"patience": self.patience, "metric": self.metric, "min_delta": self.min_delta}
