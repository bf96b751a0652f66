"""Penalties on the weights, and the conversions between the forms in use.

| form | cost added to the loss | gradient | where |
|---|---|---|---|
| L2(lambda) | lambda sum w^2 | 2 lambda w | reports R1-R3 |
| WeightDecay(wd) | wd/2 sum w^2 | wd w | PyTorch's weight_decay, reports R4 and R5 |
| scikit-learn's alpha | alpha/(2n) sum w^2, n samples a batch | alpha/n w | MLPClassifier |

They apply to weights only; biases, gamma and beta are left out unless a parameter says otherwise.
"""

from typing import Any

import numpy as np

from fastnet.arrays import Array


class Quadratic:
    """decay/2 sum w^2, whose gradient decay w is added to that of the loss."""

    def __init__(self, decay: float) -> None:
        if not 0 <= decay < float("inf"):
            raise ValueError(f"{type(self).__name__}: the strength must be a number of at least 0 but is {decay}")
        self.decay = decay

    def value(self, penalised: Array) -> float:
        """The cost of the vector of penalised weights, summed in float64."""
        wide = penalised.astype(np.float64, copy=False)
        return 0.5 * self.decay * float(wide @ wide)

    def settings(self) -> dict[str, Any]:
        """How the run's record names it."""
        return {"name": type(self).__name__, "decay": self.decay}


class L2(Quadratic):
    """strength sum w^2, with no factor 1/2. Raises ValueError for a negative strength."""

    def __init__(self, strength: float) -> None:
        super().__init__(weight_decay_from_l2(strength))


class WeightDecay(Quadratic):
    """wd/2 sum w^2. Raises ValueError for a negative wd."""


def weight_decay_from_l2(strength: float) -> float:
    """The wd whose gradient is that of lambda sum w^2."""
    return 2 * strength


def l2_from_weight_decay(wd: float) -> float:
    """The lambda of lambda sum w^2 whose gradient is wd w."""
    return wd / 2


def weight_decay_from_sklearn(alpha: float, batch_size: int) -> float:
    """The wd of scikit-learn's MLPClassifier(alpha=alpha), which divides by the samples of the batch."""
    return alpha / batch_size

