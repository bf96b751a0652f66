"""The learning-rate range test: raise the rate step by step and watch where the loss falls, and where it breaks.

Source: Smith, "Cyclical learning rates for training neural networks", 2017, section 3.3; with the geometric raise and
the smoothed loss that are common since.
"""

import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fastnet.arrays import single_threaded_blas
from fastnet.data import Batches, Dataset, Standardization
from fastnet.nn.sequential import Sequential
from fastnet.optim.optimizers import Optimizer
from fastnet.optim.schedules import exponential
from fastnet.train.nonfinite import NonFiniteError
from fastnet.train.step import TrainStep

SMOOTHING = 0.9  # weight of the old mean; divided by 1 - SMOOTHING^t, so that it starts without a bias
BREAK = 2.0  # the test ends when the smoothed loss is this many times its least


@dataclass(frozen=True)
class LrRange:
    """The rate of each step, the loss of its batch, the smoothed loss.

    `suggestion` is a tenth of the rate at the least smoothed loss. The rate at which the loss is least is already at
    the brink; a third to a tenth of it is a good largest rate.
    """

    rates: list[float]
    losses: list[float]
    smoothed: list[float]

    @property
    def suggestion(self) -> float:
        return self.rates[min(range(len(self.smoothed)), key=self.smoothed.__getitem__)] / 10


def lr_range_test(model: Sequential, data: Dataset, optimizer: Optimizer, *, lr_min: float = 1e-5, lr_max: float = 10.0,
                  steps: int = 200, batch_size: int = 100, penalty: Any = None, loss: str = "softmax_cross_entropy",
                  loss_options: Mapping[str, Any] | None = None, seed: int = 0,
                  normalization: str = "channel") -> LrRange:
    """Train a copy of `model` for up to `steps` steps with rates from lr_min to lr_max; the model is not changed.

    Ends early when the loss breaks away. Raises ValueError for rates that do not rise, and as `fit` does.
    """
    if steps < 2:
        raise ValueError(f"lr_range_test: steps must be at least 2 but is {steps}")
    if not 0 < lr_min < lr_max < float("inf"):
        raise ValueError(f"lr_range_test: 0 < lr_min < lr_max is needed, but they are {lr_min} and {lr_max}")
    schedule = exponential(lr_min, (lr_max / lr_min) ** (1 / (steps - 1)), unit="step")
    step = TrainStep(model.copy(), optimizer, schedule, penalty=penalty, loss=loss, loss_options=loss_options,
                     seed=seed)
    standardization = Standardization.fit(data.train.images, normalization)
    batches = Batches(data.train, standardization, batch_size, seed=seed, dtype=model.dtype, device=model.device)
    found = LrRange([], [], [])
    mean = 0.0
    with single_threaded_blas():
        endless = ((epoch, batch) for epoch in itertools.count() for batch in batches.epoch(epoch))
        for epoch, (x, labels, samples) in itertools.islice(endless, steps):
            try:
                value = float(step(x, labels, samples, epoch))
            except NonFiniteError:
                break
            mean = SMOOTHING * mean + (1 - SMOOTHING) * value
            found.rates.append(schedule(step.count - 1))
            found.losses.append(value)
            found.smoothed.append(mean / (1 - SMOOTHING**step.count))
            if found.smoothed[-1] > BREAK * min(found.smoothed):
                break
    return found
