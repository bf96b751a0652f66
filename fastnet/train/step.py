"""One training step: forward, backward, update."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from fastnet import backend
from fastnet.arrays import Array, Deferred, array_module, require_labels, to_numpy
from fastnet.functions._update import Regularization
from fastnet.nn.fuse import fuse
from fastnet.nn.layer import Context
from fastnet.nn.losses import check_loss, forward_backward
from fastnet.nn.sequential import Sequential
from fastnet.optim import rates as per_parameter
from fastnet.optim.optimizers import Optimizer, State
from fastnet.optim.penalties import Penalty, combined
from fastnet.optim.schedule import Schedule
from fastnet.optim.schedules import constant
from fastnet.train.average import WeightAverage
from fastnet.train.graphed import GraphedStep, Reading, obstacle
from fastnet.train.nonfinite import NonFiniteError, explain
from fastnet.train.scaling import LEAST, LossScale
from fastnet.train.sums import Sums


class TrainStep:
    """`loss = step(x, labels)` updates the model once and returns the mean loss before the update, without penalty.

    The rate is schedule(number of updates so far), or the optimizer's `lr` where there is no schedule; `rates` gives
    factors of it for some parameters ({"linear1.*": 0.1}, see `fastnet.optim.rates`). `penalty` is one or several.
    Layers run as one from then on where that is faster (`fastnet.nn.fuse`).
    `accumulate` runs each batch in that many pieces. A float16 model has its loss scaled (`scaling`, else None): a step
    whose gradients overflow counts, but changes nothing. `average` takes in the weights after every step.
    With `graph` a step of a model on a GPU is one CUDA graph (`fastnet.train.graphed`, which says what may then not
    change), and `launch` and `read` do without a reading after every step. Raises ValueError where there is no rate,
    for an unknown loss or option of it, for a pattern in `rates` that matches nothing, and where there are no graphs.
    """

    def __init__(self, model: Sequential, optimizer: Optimizer, schedule: Schedule | None = None, *,
                 penalty: Penalty | Sequence[Penalty] | None = None, rates: Mapping[str, float] | None = None,
                 loss: str = "softmax_cross_entropy", loss_options: Mapping[str, Any] | None = None, seed: int = 0,
                 accumulate: int = 1, average: WeightAverage | None = None, graph: bool = False) -> None:
        check_loss(loss, loss_options)
        if accumulate < 1:
            raise ValueError(f"TrainStep: accumulate must be at least 1 but is {accumulate}")
        if schedule is None:
            if optimizer.lr is None:
                raise ValueError(f"TrainStep: no learning rate; give one to the optimizer "
                                 f"({type(optimizer).__name__}(lr=0.1)) or give a schedule")
            schedule = constant(optimizer.lr)
        self.model, self.optimizer, self.schedule, self.penalty = model, optimizer, schedule, combined(penalty)
        self.rates = dict(rates or {})
        fuse(model)
        self.loss, self.loss_options, self.seed = loss, dict(loss_options or {}), seed
        self.accumulate = accumulate
        self.count = 0  # updates done
        self.state: State = optimizer.start(model.store.vector)
        self._runs = per_parameter.runs(model.store.places, model.store.vector.size, rates)
        self.logits: Array = None  # of the last step, before its update
        self.scaling = LossScale() if model.dtype == np.float16 else None
        self.average = average
        self._graphed: GraphedStep | None = None
        if graph:
            if reason := obstacle(model, optimizer):
                raise ValueError(f"TrainStep: {reason}")
            self._graphed = GraphedStep(model, self._passes, self._deferred_update, 2 * len(self._runs),
                                        bool(self.scaling))

    def __call__(self, x: Array, labels: Array, samples: Array | None = None, epoch: int | None = None) -> Array:
        """One update on x (N, H, W, C) or (N, D), floating and normalised, labels (N,) integers.

        They may be any library's that has `__dlpack__` (torch tensors, say); x of the model's type is not copied unless
        the model is on a GPU and x is not. The loss is a NumPy array (): it is read from a GPU once a step, before the
        update, which then goes on while the caller does other things.
        `samples` (N,) and `epoch` key the random numbers of dropout; without them the place in the batch and the
        step count do. Raises TypeError or ValueError for a malformed batch, ValueError for a rate that is none, and
        NonFiniteError for a loss that is not finite, all before anything is changed.
        """
        if self._graphed is not None:
            self.launch(x, labels, samples, epoch, Sums())
            found = self.read()
            if found.halted is not None:
                raise self.failure(found, x, labels, samples, epoch)
            return np.array(found.loss, self.model.store.dtype)
        lr = self._rate()
        x, labels, context = self.batch(x, labels, samples, epoch)
        kept = self.model.running.copy()  # which the forward pass moves
        try:
            value, whole = self._gradients(x, labels, context)
        except BaseException:
            self.model.running[...] = kept
            raise
        if whole:
            self._update(self._numbers(lr), self.count if self.scaling is None else self.count - self.scaling.skipped)
        else:
            self.model.running[...] = kept
        if self.average:
            self.average.update()
        self.count += 1
        return value

    @property
    def launches(self) -> bool:
        """Whether steps may be launched without a reading after each."""
        return self._graphed is not None

    def launch(self, x: Array, labels: Array, samples: Array | None, epoch: int | None, sums: Sums) -> None:
        """One update, without waiting for it: its loss and hits join `sums` when `read` is called.

        A loss that is not finite shows there too: that step and those launched after it then have changed nothing.
        Raises what a call raises for a malformed batch or rate.
        """
        if self._graphed is None:
            raise ValueError("TrainStep: only with graph=True can a step be launched without reading its loss")
        lr = self._rate()
        x, labels, context = self.batch(x, labels, samples, epoch)
        self._graphed.open(sums, self.scaling, self.average.decay if self.average else 0.0)
        self.logits = self._graphed(x, labels, context, self.count, self._numbers(lr))
        self.count += 1

    def read(self) -> Reading:
        """Wait for the steps launched since the last reading, and sum up what they found.

        Where one of them halted the run, `count` goes back to it, and `failure` says why.
        """
        if self._graphed is None:
            raise ValueError("TrainStep: nothing is launched without graph=True")
        found = self._graphed.read()
        if found.halted is not None:
            self.count = found.halted
        return found

    def failure(self, found: Reading, x: Array, labels: Array, samples: Array | None, epoch: int | None
                ) -> NonFiniteError:
        """What was wrong with the batch that halted the run. Raises ValueError for labels that are no classes."""
        x, labels, context = self.batch(x, labels, samples, epoch)
        if np.isfinite(found.loss):
            return self._overflow(x, labels, context)
        return self._not_finite(x, labels, context)

    def batch(self, x: Array, labels: Array, samples: Array | None = None,
              epoch: int | None = None) -> tuple[Array, Array, Context]:
        """(x, labels, context) as the passes of the next step take them."""
        x, labels, samples = (self.model.prepare(x), self.model.accept("labels", labels),
                              self.model.accept("samples", samples))
        context = Context(training=True, seed=self.seed, epoch=self.count if epoch is None else epoch,
                          samples=array_module(x).arange(len(x)) if samples is None else samples)
        return x, labels, context

    def _gradients(self, x: Array, labels: Array, context: Context) -> tuple[Array, bool]:
        """The loss, and whether the gradients, in their places now, are fit for an update."""
        if self.scaling is None:
            return self._checked_passes(x, labels, context, 1.0), True
        with np.errstate(over="ignore", invalid="ignore"):  # what overflows is looked for
            value = self._checked_passes(x, labels, context, self.scaling.scale)
            whole = self.scaling.unscale(self.model.store.gradient)
        if not whole and self.scaling.scale < LEAST:
            raise self._overflow(x, labels, context)
        return value, whole

    def _passes(self, x: Array, labels: Array, context: Context, scale: float | Array) -> tuple[Array, Array]:
        return forward_backward(self.model, x, labels, context, self.loss, self.loss_options, self.accumulate, scale)

    def _checked_passes(self, x: Array, labels: Array, context: Context, scale: float) -> Array:
        value, self.logits = self._passes(x, labels, context, scale)
        value = to_numpy(value)
        if not np.isfinite(value):
            raise self._not_finite(x, labels, context)
        return value

    def _not_finite(self, x: Array, labels: Array, context: Context) -> NonFiniteError:
        if labels.dtype.kind in "iu":  # kernels on a GPU do not look: it would make the host wait
            require_labels(self.loss, labels, len(x), self.logits.shape[1])
        return NonFiniteError(self.count, explain(self.model, x, context), x, labels, context.samples)

    def _overflow(self, x: Array, labels: Array, context: Context) -> NonFiniteError:
        return NonFiniteError(self.count, f"the gradients overflow {self.model.dtype}", x, labels, context.samples)

    def _rate(self) -> float:
        lr = self.schedule(self.count)
        if not (lr >= 0 and math.isfinite(lr)):
            raise ValueError(f"step {self.count}: the learning rate is {lr} by {self.schedule!r}, but it must be "
                             f"a finite number of at least 0")
        return lr

    def _numbers(self, lr: float) -> list[float]:
        """What an update needs of a step's rate: of each run of parameters the rate, and the proximal threshold."""
        proximal = self.penalty.proximal if self.penalty else 0.0
        return [number for _, _, factor in self._runs
                for number in (lr * factor, lr * factor * self.optimizer.gain * proximal)]

    def _update(self, numbers: Sequence[Any], updates: Any) -> None:
        """By `_numbers` and the count of updates before this one, all of them numbers or all deferred."""
        store, penalty = self.model.store, self.penalty or Penalty()
        for (start, stop, _), lr, threshold in zip(self._runs, numbers[::2], numbers[1::2], strict=True):
            here = slice(start, stop)
            w, penalised = store.vector[here], min(max(store.penalised - start, 0), stop - start)
            self.optimizer.update(w, store.gradient[here], {key: vector[here] for key, vector in self.state.items()},
                                  step=updates, lr=lr, regularization=Regularization(
                                      penalty.decay, penalty.l1, penalty.shrink, penalised))
            if penalty.proximal and penalised:
                backend.call("soft_threshold", w[:penalised], threshold=threshold)

    def _deferred_update(self, numbers: Sequence[Deferred], updates: Deferred, decay: Deferred) -> None:
        self._update(numbers, updates)
        if self.average:
            self.average.update(decay)

    def penalty_value(self) -> float:
        """The penalty on the weights as they are now; loss + penalty is the cost."""
        store = self.model.store
        return self.penalty.value(store.vector[: store.penalised]) if self.penalty else 0.0
