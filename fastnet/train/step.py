"""One training step: forward, backward, update."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from fastnet import backend
from fastnet.arrays import Array, array_module, require_labels, to_numpy
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
from fastnet.train.nonfinite import NonFiniteError, explain
from fastnet.train.passes import GraphedPasses, Passes
from fastnet.train.scaling import LEAST, LossScale


class TrainStep:
    """`loss = step(x, labels)` updates the model once and returns the mean loss before the update, without penalty.

    The rate is schedule(number of updates so far), or the optimizer's `lr` where there is no schedule; `rates` gives
    factors of it for some parameters ({"linear1.*": 0.1}, see `fastnet.optim.rates`). `penalty` is one or several.
    Layers run as one from then on where that is faster (`fastnet.nn.fuse`).
    `accumulate` runs each batch in that many pieces. A float16 model has its loss scaled (`scaling`, else None): a step
    whose gradients overflow counts, but changes nothing. With `graph` the passes of a model on a GPU are one CUDA graph
    (`fastnet.train.passes`, which says what may then not change). Raises ValueError where there is no rate, for an
    unknown loss or option of it, for a pattern in `rates` that matches nothing, and for a graph elsewhere.
    """

    def __init__(self, model: Sequential, optimizer: Optimizer, schedule: Schedule | None = None, *,
                 penalty: Penalty | Sequence[Penalty] | None = None, rates: Mapping[str, float] | None = None,
                 loss: str = "softmax_cross_entropy", loss_options: Mapping[str, Any] | None = None, seed: int = 0,
                 accumulate: int = 1, graph: bool = False) -> None:
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
        self._passes: Passes = GraphedPasses(model, self._forward_backward) if graph else self._forward_backward

    def __call__(self, x: Array, labels: Array, samples: Array | None = None, epoch: int | None = None) -> Array:
        """One update on x (N, H, W, C) or (N, D), floating and normalised, labels (N,) integers.

        They may be any library's that has `__dlpack__` (torch tensors, say); x of the model's type is not copied unless
        the model is on a GPU and x is not. The loss is a NumPy array (): it is read from a GPU once a step, before the
        update, which then goes on while the caller does other things.
        `samples` (N,) and `epoch` key the random numbers of dropout; without them the place in the batch and the
        step count do. Raises TypeError or ValueError for a malformed batch, ValueError for a rate that is none, and
        NonFiniteError for a loss that is not finite, all before anything is changed.
        """
        lr = self._rate()
        x, labels, context = self.batch(x, labels, samples, epoch)
        kept = self.model.running.copy()  # which the forward pass moves
        try:
            value, whole = self._gradients(x, labels, context)
        except BaseException:
            self.model.running[...] = kept
            raise
        if whole:
            self._update(lr)
        else:
            self.model.running[...] = kept
        self.count += 1
        return value

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
            raise NonFiniteError(self.count, f"the gradients overflow {self.model.dtype}", x, labels, context.samples)
        return value, whole

    def _forward_backward(self, x: Array, labels: Array, context: Context, scale: float) -> tuple[Array, Array]:
        return forward_backward(self.model, x, labels, context, self.loss, self.loss_options, self.accumulate, scale)

    def _checked_passes(self, x: Array, labels: Array, context: Context, scale: float) -> Array:
        value, self.logits = self._passes(x, labels, context, scale)
        value = to_numpy(value)
        if not np.isfinite(value):
            if labels.dtype.kind in "iu":  # kernels on a GPU do not look: it would make the host wait
                require_labels(self.loss, labels, *self.logits.shape)
            raise NonFiniteError(self.count, explain(self.model, x, context), x, labels, context.samples)
        return value

    def _rate(self) -> float:
        lr = self.schedule(self.count)
        if not (lr >= 0 and math.isfinite(lr)):
            raise ValueError(f"step {self.count}: the learning rate is {lr} by {self.schedule!r}, but it must be "
                             f"a finite number of at least 0")
        return lr

    def _update(self, lr: float) -> None:
        store, penalty = self.model.store, self.penalty or Penalty()
        updates = self.count if self.scaling is None else self.count - self.scaling.skipped
        for start, stop, factor in self._runs:
            here = slice(start, stop)
            w, penalised = store.vector[here], min(max(store.penalised - start, 0), stop - start)
            self.optimizer.update(w, store.gradient[here], {key: vector[here] for key, vector in self.state.items()},
                                  step=updates, lr=lr * factor, regularization=Regularization(
                                      penalty.decay, penalty.l1, penalty.shrink, penalised))
            if penalty.proximal and penalised:
                threshold = lr * factor * self.optimizer.gain * penalty.proximal
                backend.call("soft_threshold", w[:penalised], threshold=threshold)

    def penalty_value(self) -> float:
        """The penalty on the weights as they are now; loss + penalty is the cost."""
        store = self.model.store
        return self.penalty.value(store.vector[: store.penalised]) if self.penalty else 0.0
