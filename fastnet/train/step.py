"""One training step: forward, backward, update."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from fastnet.arrays import Array, array_module
from fastnet.nn.layer import Context
from fastnet.nn.losses import check_loss, forward_backward
from fastnet.nn.sequential import Sequential
from fastnet.optim.optimizers import Optimizer, State
from fastnet.optim.penalties import Quadratic
from fastnet.optim.schedules import Schedule, constant
from fastnet.train.nonfinite import NonFiniteError, explain


class TrainStep:
    """`loss = step(x, labels)` updates the model once and returns the mean loss before the update, without penalty.

    The rate is schedule(number of updates so far), or the optimizer's `lr` where there is no schedule. Raises
    ValueError where there is neither, and for an unknown loss or option of it. `accumulate` runs each batch in that
    many pieces.
    """

    def __init__(self, model: Sequential, optimizer: Optimizer, schedule: Schedule | None = None, *,
                 penalty: Quadratic | None = None, loss: str = "softmax_cross_entropy",
                 loss_options: Mapping[str, Any] | None = None, seed: int = 0, accumulate: int = 1) -> None:
        check_loss(loss, loss_options)
        if accumulate < 1:
            raise ValueError(f"TrainStep: accumulate must be at least 1 but is {accumulate}")
        if schedule is None:
            if optimizer.lr is None:
                raise ValueError(f"TrainStep: no learning rate; give one to the optimizer "
                                 f"({type(optimizer).__name__}(lr=0.1)) or give a schedule")
            schedule = constant(optimizer.lr)
        self.model, self.optimizer, self.schedule, self.penalty = model, optimizer, schedule, penalty
        self.loss, self.loss_options, self.seed = loss, dict(loss_options or {}), seed
        self.accumulate = accumulate
        self.count = 0  # updates done
        self.state: State = optimizer.start(model.store.vector)
        self.logits: Array = None  # of the last step, before its update
        self._statistics = list(model.statistics().values())

    def __call__(self, x: Array, labels: Array, samples: Array | None = None, epoch: int | None = None) -> Array:
        """One update on x (N, H, W, C) or (N, D), floating and normalised, labels (N,) integers.

        `samples` (N,) and `epoch` key the random numbers of dropout; without them the place in the batch and the
        step count do. Raises TypeError or ValueError for a malformed batch and NonFiniteError for a loss that is not
        finite, both before anything is changed.
        """
        store = self.model.store
        context = Context(training=True, seed=self.seed, epoch=self.count if epoch is None else epoch,
                          samples=np.arange(len(x)) if samples is None else samples)
        x = self.model.prepare(x)
        kept = [running.copy() for running in self._statistics]  # which the forward pass moves
        try:
            value, self.logits = forward_backward(self.model, x, labels, context, self.loss,
                                                  self.loss_options, self.accumulate)
            if not bool(array_module(value).isfinite(value)):
                raise NonFiniteError(self.count, explain(self.model, x, context), x, labels, context.samples)
        except BaseException:
            for running, before in zip(self._statistics, kept, strict=True):
                running[...] = before
            raise
        self.optimizer.update(store.vector, store.gradient, self.state, step=self.count, lr=self.schedule(self.count),
                              decay=self.penalty.decay if self.penalty else 0.0, penalised=store.penalised)
        self.count += 1
        return value

    def penalty_value(self) -> float:
        """The penalty on the weights as they are now; loss + penalty is the cost."""
        store = self.model.store
        return self.penalty.value(store.vector[: store.penalised]) if self.penalty else 0.0
