"""A training step as one CUDA graph: the passes, the judgement of them, the update and the average of the weights.

No number comes back to the host before it asks for one (`read`), and all that changes from step to step stands in the
device's memory: a step's number, epoch and rates are written there before it is launched, what follows from its loss
and gradients is found there (`fastnet.functions.judge_step`). So a recording is good for all steps with batches of one
form (`fastnet.unmade.form`). What is baked into it: shapes, the data set that batches are made of, the seed, the
settings of layers, optimizer and penalties.
"""

import sys
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np

from fastnet import backend, graphs, unmade
from fastnet.arrays import Array, Deferred, array_module, assign, to_numpy
from fastnet.functions import judge_step as slots
from fastnet.nn.layer import Context
from fastnet.nn.sequential import Sequential
from fastnet.optim.optimizers import OPTIMIZERS, Optimizer
from fastnet.train import scaling
from fastnet.train.scaling import LossScale
from fastnet.train.sums import Sums

WARM_UPS = 2  # the first compiles, the second finds the memory of the first: what it needs more, a recording would too

Passes = Callable[[Array, Array, Context, float | Array], tuple[Array, Array]]  # (x, labels, context, scale) -> loss...
Update = Callable[[Sequence[Deferred], Deferred, Deferred], None]  # (numbers, updates before it, decay of the average)


class Reading(NamedTuple):
    """What a host learns: the last step's loss, and the step that halted the run, if one did."""

    loss: float
    halted: int | None


@dataclass
class _Form:
    """Batches of one form: where the kernels read them, and their recording, once there is one."""

    warm_ups: int = 0
    batch: list[Any] = field(default_factory=list)  # x (made or not), labels, samples
    logits: Array = None
    replay: Callable[[], None] | None = None


def has_graphs(model: Sequential) -> bool:
    """Whether work on the model's device can be recorded."""
    return array_module(model.store.vector).__name__ in graphs.RECORDERS


def obstacle(model: Sequential, optimizer: Optimizer) -> str | None:
    """Why there cannot be graphs of this model's steps, as far as is known before one was tried; None where there can.

    An optimizer of one's own may do anything with a rate that is not a number yet.
    """
    if not has_graphs(model):
        return f"there are no graphs on device {model.device!r}"
    if type(optimizer) not in OPTIMIZERS.values():
        return f"{type(optimizer).__name__} is not one of the optimizers whose updates can be recorded"
    return None


class GraphedStep:
    """Launches steps: from the third batch of a form on as one graph, before that kernel by kernel.

    Where a step turns out not to be recordable, a line on standard error says so (`unrecordable` has the reason) and
    it stays at launching its kernels one by one. Both ways have the same bits.
    `numbers` are as many as `update` takes. Raises ValueError where there is an `obstacle`.
    """

    def __init__(self, model: Sequential, passes: Passes, update: Update, numbers: int, scaled: bool) -> None:
        xp, dtype = array_module(model.store.vector), model.store.dtype
        self._model, self._passes, self._update = model, passes, update
        self._recorder = graphs.RECORDERS[xp.__name__]()
        self._given = xp.zeros(slots.GIVEN + numbers, dtype="float64")
        self._control = xp.zeros(slots.NUMBERS + numbers, dtype="float64")
        self._scale: float | Array = xp.ones((), dtype=dtype) if scaled else 1.0
        self._overflow: Array | None = xp.zeros(1, dtype="uint32") if scaled else None
        self._kept = model.running.copy()
        self._forms: dict[Hashable, _Form] = {}
        self._reader: tuple[Sums, LossScale | None] | None = None  # who gets what has been found since the last reading
        self.unrecordable: str | None = None

    def __call__(self, x: Array, labels: Array, context: Context, step: int, numbers: Sequence[float]) -> Array:
        """Launch step number `step` on a batch, after `open`. Returns the logits, good until the next call."""
        batch = [x, _whole(labels), _whole(context.samples)]
        assign(self._given, np.array([step, context.epoch, *numbers], np.float64))
        form = self._forms.setdefault(tuple(map(unmade.form, batch)), _Form())
        if form.replay is None and (form.warm_ups < WARM_UPS or self.unrecordable):
            form.warm_ups += 1
            return self._recorder.warm_up(lambda: self._work(context, *batch))
        if not form.batch:
            form.batch = [unmade.room(a) for a in batch]
        for fixed, given in zip(form.batch, batch, strict=True):
            fixed[...] = given
        if form.replay is None:
            try:
                form.logits, form.replay = self._recorder.record(lambda: self._work(context, *form.batch))
            except graphs.UnrecordableError as error:
                self.unrecordable = str(error)
                print(f"a training step is not recorded as a CUDA graph ({error}); its kernels are launched one by one",
                      file=sys.stderr, flush=True)
                return self._recorder.warm_up(lambda: self._work(context, *batch))
        form.replay()
        return form.logits

    def _work(self, context: Context, x: Array, labels: Array, samples: Array) -> Array:
        """All of a step but what the host gives it. Its calls of kernels are what is recorded."""
        model, numbers = self._model, self._given.size - slots.GIVEN
        if self._kept.size:
            backend.call("write", self._kept, model.running)
        loss, logits = self._passes(x, labels, replace(context, samples=samples, epoch=Deferred(
            self._given, slots.EPOCH)), self._scale)
        scaled: tuple[Array, ...] = ()
        if self._overflow is not None:
            backend.call("unscale", model.store.gradient, self._scale, self._overflow)
            scaled = self._overflow, self._scale
        backend.call("judge_step", self._control, self._given, loss, logits, labels if labels.dtype == np.int64 else
                     None, *scaled, patience=scaling.PATIENCE, least=scaling.LEAST)
        if self._kept.size:
            backend.call("take_back", model.running, self._kept, self._control[slots.NUMBERS : slots.NUMBERS + 1])
        self._update([Deferred(self._control, slots.NUMBERS + i) for i in range(numbers)],
                     Deferred(self._control, slots.UPDATES), Deferred(self._control, slots.DECAY))
        return logits

    def open(self, sums: Sums, scale: LossScale | None, decay: float) -> None:
        """Steps from here on go on from these sums and this scale, which `read` brings up to date.

        Nothing is done where that is so already: between two readings the host does not know them.
        """
        if self._reader is not None:
            if self._reader[0] is not sums:
                raise ValueError("TrainStep: read the steps that were launched before others are summed elsewhere")
            return
        self._reader = sums, scale
        control = np.zeros(self._control.size)
        control[[slots.HALTED, slots.LOSSES, slots.CORRECT, slots.DECAY]] = -1, sums.loss, int(sums.correct), decay
        if scale is not None:
            control[[slots.SCALE, slots.GOOD, slots.SKIPPED]] = scale.scale, scale.good, scale.skipped
            assign(self._scale, np.array(scale.scale, self._model.store.dtype))
        assign(self._control, control)

    def read(self) -> Reading:
        """Wait for the steps that were launched; what they found goes where `open` was told."""
        if self._reader is None:
            raise ValueError("TrainStep: nothing was launched since the last reading")
        control = to_numpy(self._control)
        (sums, scale), self._reader = self._reader, None
        sums.loss, sums.correct = float(control[slots.LOSSES]), int(control[slots.CORRECT])
        if scale is not None:
            scale.scale, scale.good, scale.skipped = (float(control[slots.SCALE]), int(control[slots.GOOD]),
                                                      int(control[slots.SKIPPED]))
        halted = int(control[slots.HALTED])
        return Reading(float(control[slots.LOSS]), None if halted < 0 else halted)


def _whole(labels: Array) -> Array:
    """Labels and ids as the kernels read them; floating targets stay."""
    return labels.astype(np.int64, copy=False) if labels.dtype.kind in "iu" else labels
