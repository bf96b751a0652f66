"""`fit`: the loop around the step.

A run that resumes, in the middle of an epoch too, ends with the bits of one that was never stopped.
"""

import contextlib
import functools
import math
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fastnet.arrays import Array, array_module, release, single_threaded_blas, to_numpy
from fastnet.data import Batches, Dataset, Standardization
from fastnet.data.augmentation import Augmentation
from fastnet.nn.sequential import Sequential
from fastnet.optim.optimizers import Optimizer
from fastnet.optim.schedules import SCHEDULES, Schedule, from_settings
from fastnet.train import checkpoint, record
from fastnet.train.average import WeightAverage
from fastnet.train.curves import draw_curves
from fastnet.train.evaluation import evaluate
from fastnet.train.graphed import has_graphs, obstacle
from fastnet.train.interrupt import DeferredInterrupt
from fastnet.train.lock import exclusive
from fastnet.train.nonfinite import NonFiniteError
from fastnet.train.preparation import check_data, check_metrics, describe
from fastnet.train.progress import Progress
from fastnet.train.state import RunState
from fastnet.train.step import TrainStep
from fastnet.train.stopping import EarlyStopping
from fastnet.train.sums import Sums

POLL_SECONDS = 2.0  # how old a loss on the progress bar may be where reading one makes a GPU wait


@dataclass
class Run:
    """A finished run: the model, how its images are standardised, one record an epoch, and the result."""

    model: Sequential
    standardization: Standardization
    history: list[dict[str, Any]]
    result: dict[str, Any]
    out: Path | None = None


def fit(model: Sequential, data: Dataset, optimizer: Optimizer, schedule: Schedule | None = None, *, epochs: int,
        batch_size: int = 100, penalty: Any = None, loss: str = "softmax_cross_entropy",
        loss_options: Mapping[str, Any] | None = None, seed: int = 0, normalization: str = "channel",
        augmentation: Augmentation | None = None, rates: Mapping[str, float] | None = None, accumulate: int = 1,
        average: float | None = None, early_stopping: EarlyStopping | None = None, out: str | Path | None = None,
        resume: bool = False, checkpoint_seconds: float = 30.0, graph: bool = True,
        verbose: bool = True, observer: Callable[..., Array] | None = None) -> Run:
    """Train `model` on data.train, evaluate on data.validation after every epoch and on data.test at the end.

    normalization       'channel' or 'pixel': what the standardisation constants, from the training images, are per
    augmentation        how training images are varied (`fastnet.data.Augmentation`)
    rates               {pattern of parameter names: factor of the learning rate}
    accumulate          pieces that each batch goes through in; the gradients are the whole batch's
    average             decay of a moving average of the weights, which all evaluations and the final model then have
    early_stopping      stop when validation no longer improves, and return the best epoch's model
    out                 the run directory to write (config, history, checkpoint, curves, result); None writes nothing
    resume              continue the run in `out` from its checkpoint; all settings but `epochs` must be the run's
    checkpoint_seconds  a checkpoint is written after every epoch and whenever this much time has passed since the last
    graph               on a GPU: each step is one CUDA graph (`fastnet.train.graphed`), and losses are read after the
                        first step, once an epoch, and for a checkpoint or the bar. A loss that is not finite is found
                        then; its step and those after it have changed nothing. Not where an observer takes the steps
    verbose             a progress bar on a terminal, a line an epoch elsewhere
    observer            takes the steps, to see what they do: `observer(step, x, labels, samples, epoch)` has to return
                        what step(x, labels, samples, epoch) does (`fastnet.lab.Recorder` and `Activity` are such)

    Raises ValueError or TypeError for bad arguments before anything is trained or written, NonFiniteError (a
    FloatingPointError) when the loss stops being finite, with the batch saved, BlockingIOError when another process
    trains in `out`, KeyboardInterrupt after Ctrl-C, when the state has been saved.
    """
    if epochs < 1:
        raise ValueError(f"fit: epochs must be at least 1 but is {epochs}")
    check_data(model, data)
    check_metrics(data, early_stopping, schedule)
    if schedule and hasattr(schedule, "observe") and schedule.name in SCHEDULES:  # without an earlier run's state
        schedule = from_settings(schedule.name, schedule.settings)
    step = TrainStep(model, optimizer, schedule, penalty=penalty, loss=loss, loss_options=loss_options, seed=seed,
                     rates=rates, accumulate=accumulate, graph=graph and observer is None and _graphs(model, optimizer),
                     average=None if average is None else WeightAverage(model, average))
    standardization = Standardization.fit(data.train.images, normalization)
    batches = Batches(data.train, standardization, batch_size, seed=seed, dtype=model.dtype, augmentation=augmentation,
                      device=model.device, unmade=True)
    if accumulate > (least := len(data.train) % batch_size or batch_size):
        raise ValueError(f"fit: accumulate is {accumulate}, but the smallest batch of an epoch has only {least} images")
    state = RunState(step, early_stopping)
    loop = _Loop(state, data, standardization, batches, epochs, checkpoint_seconds)
    loop.observer = observer
    config = loop.config = describe(state, data, batches, epochs, normalization, augmentation)
    if out is None:
        if resume:
            raise ValueError("fit: resume needs the run directory (out)")
        return loop.run(None, verbose)
    folder = Path(out)
    record.open_directory(folder, resume)
    with exclusive(folder):
        if resume:
            state.restore(folder / record.CHECKPOINT, config)
            if step.count > epochs * len(batches):
                raise ValueError(f"--resume: {step.count} steps are done, more than the {epochs * len(batches)} of "
                                 f"{epochs} epochs")
        record.write_json(folder / record.CONFIG, config)
        return loop.run(folder, verbose)


def _graphs(model: Sequential, optimizer: Optimizer) -> bool:
    """Whether steps are to be graphs: where the device has such things. A line says so if they cannot be."""
    if not has_graphs(model):
        return False
    if reason := obstacle(model, optimizer):
        print(f"training goes without CUDA graphs: {reason}", file=sys.stderr, flush=True)
    return reason is None


class _Loop:
    """The parts of one `fit`, and the loop over them."""

    def __init__(self, state: RunState, data: Dataset, standardization: Standardization, batches: Batches,
                 epochs: int, checkpoint_seconds: float) -> None:
        self.state, self.step, self.model = state, state.step, state.step.model
        self.data, self.standardization, self.batches = data, standardization, batches
        self.epochs, self.checkpoint_seconds = epochs, checkpoint_seconds
        self.config: dict[str, Any] = {}
        self.folder: Path | None = None
        self.observer: Callable[..., Array] | None = None
        self._saved = time.monotonic()

    def run(self, folder: Path | None, verbose: bool) -> Run:
        self.folder = folder
        step, per_epoch = self.step, len(self.batches)
        name = self.model.model_name or "model"
        with Progress(name, self.epochs, per_epoch, step.count, verbose) as progress, single_threaded_blas(), \
                DeferredInterrupt() as interrupt:
            while step.count < self.epochs * per_epoch and not self._stopped():
                self._train_until_interrupted(interrupt, progress)
                if step.count % per_epoch == 0:
                    line = self._end_of_epoch()
                    self._save()
                    progress.epoch(line)
                if interrupt.requested and step.count < self.epochs * per_epoch:
                    raise KeyboardInterrupt
        return self._finish()

    def _train_until_interrupted(self, interrupt: "DeferredInterrupt", progress: Progress) -> None:
        """Train to the end of the epoch, or up to the step in which Ctrl-C came; then the state is saved."""
        state, step, per_epoch = self.state, self.step, len(self.batches)
        epoch, done = divmod(step.count, per_epoch)
        take = step if self.observer is None else functools.partial(self.observer, step)
        started = time.perf_counter()
        for x, labels, samples in self.batches.epoch(epoch, done):
            value: float | None = None
            if step.launches:
                step.launch(x, labels, samples, epoch, state.sums)
                state.sums.seen += len(labels)
            else:
                value = self._run(take, x, labels, samples, epoch)
            due = time.monotonic() - self._saved > self.checkpoint_seconds
            ending = interrupt.requested  # looked at once: what is saved has to be read before
            if step.launches and (due or ending or state.first_loss is None or step.count % per_epoch == 0
                                  or progress.due(POLL_SECONDS)):
                value = self._read()
            if state.first_loss is None and value is not None:
                state.first_loss = value
                progress.first_loss(value, self._expected_loss())
            progress.step(value)
            if (ending or due) and step.count % per_epoch:  # at the end of an epoch its record comes first
                state.sums.seconds += time.perf_counter() - started
                started = time.perf_counter()
                self._save()
            if ending:
                break
        state.sums.seconds += time.perf_counter() - started

    def _run(self, take: Callable[..., Array], x: Array, labels: Array, samples: Array, epoch: int) -> float:
        """A step, whose loss is read at once."""
        try:
            value = float(take(x, labels, samples, epoch))
        except NonFiniteError as error:
            self._keep(error)
            raise
        self.state.sums.add(value, self.step.logits, labels)
        return value

    def _read(self) -> float:
        """The loss of the last step that was launched. Where one has failed, its batch is made anew."""
        found = self.step.read()
        if found.halted is not None:
            epoch, done = divmod(found.halted, len(self.batches))
            batch = next(iter(self.batches.epoch(epoch, done)))
            error = self.step.failure(found, *batch, epoch)
            self._keep(error)
            raise error
        return found.loss

    def _end_of_epoch(self) -> dict[str, Any]:
        """Append the epoch's record. The training figures are means over its batches, each before its update."""
        state, step = self.state, self.step
        penalty, train_loss = step.penalty_value(), state.sums.loss / state.sums.seen
        line: dict[str, Any] = {
            "epoch": step.count // len(self.batches), "step": step.count, "lr": step.schedule(step.count - 1),
            "train_loss": train_loss, "train_cost": train_loss + penalty,
            "train_accuracy": int(state.sums.correct) / state.sums.seen, "penalty": penalty,
            "seconds": state.sums.seconds,
        }
        if step.scaling:
            line |= {"loss_scale": step.scaling.scale, "skipped_steps": step.scaling.skipped}
        if len(self.data.validation):
            started = time.perf_counter()
            with self._averaged():
                found = evaluate(self.model, self.data.validation, self.standardization, loss=step.loss,
                                 loss_options=step.loss_options)
                line |= {"validation_loss": found.loss, "validation_cost": found.loss + step.penalty_value(),
                         "validation_accuracy": found.accuracy, "evaluation_seconds": time.perf_counter() - started}
        state.history.append(line)
        state.sums = Sums()
        if state.stopping and state.stopping.improved(line):
            with self._averaged():
                state.stopping.best_state = self.model.state()
        if hasattr(step.schedule, "observe"):
            step.schedule.observe(line)
        return line

    def _finish(self) -> Run:
        """Give the model its final weights, evaluate it on the test images, write the result."""
        state, step = self.state, self.step
        if state.stopping and state.stopping.best_state:
            self.model.load_state(state.stopping.best_state)
        elif state.average:
            self.model.store.vector[...] = state.average.vector
        found = evaluate(self.model, self.data.test, self.standardization, loss=step.loss,
                         loss_options=step.loss_options)
        # A copy: the test figures belong to the end of this run, not to the epoch, if the run is made longer.
        history = [*state.history[:-1], {**state.history[-1], "test_loss": found.loss, "test_accuracy": found.accuracy}]
        last = history[-1]
        result = {
            "model": self.model.model_name or "custom", "parameters": self.model.num_parameters(),
            "test_accuracy": found.accuracy, "test_loss": found.loss,
            "validation_accuracy": last.get("validation_accuracy"), "train_loss": last["train_loss"],
            "first_loss": state.first_loss, "epochs": last["epoch"], "steps": step.count, "seed": step.seed,
            "seconds": sum(line["seconds"] + line.get("evaluation_seconds", 0) for line in history),
            "train_seconds": sum(line["seconds"] for line in history),
            "data": self.data.identity, "versions": state.versions,
        }
        if step.scaling:
            result["skipped_steps"] = step.scaling.skipped
        if state.stopping:
            best = history[state.stopping.best_epoch - 1]
            result |= {"best_epoch": state.stopping.best_epoch, "validation_accuracy": best.get("validation_accuracy"),
                       "train_loss": best["train_loss"]}
        if self.folder is not None:
            try:
                self._write_result(self.folder, history, result)
            except OSError as error:
                raise OSError(f"the run is done (test accuracy {found.accuracy:.4f}, test loss {found.loss:.4f}), but "
                              f"its result cannot be written to {self.folder} ({error.strerror or error}); --resume "
                              "does so again") from error
        release()
        return Run(self.model, self.standardization, history, result, self.folder)

    def _write_result(self, folder: Path, history: list[dict[str, Any]], result: dict[str, Any]) -> None:
        record.write_history(folder, history)
        arrays = {f"model/{name}": to_numpy(a) for name, a in self.model.state().items()}
        arrays |= {f"standardization/{name}": a for name, a in self.standardization.arrays().items()}
        checkpoint.save(folder / record.MODEL, arrays, {"config": self.config, "classes": list(self.data.classes),
                                                        "input_shape": list(self.data.train.images.shape[1:])})
        record.write_json(folder / record.RESULT, result)
        draw_curves(folder)

    def _stopped(self) -> bool:
        stopping, history = self.state.stopping, self.state.history
        # Never in the middle of an epoch: what was run of it would be lost.
        return bool(stopping and history and self.step.count % len(self.batches) == 0
                    and stopping.finished(history[-1]["epoch"]))

    def _averaged(self) -> contextlib.AbstractContextManager:
        return self.state.average.applied() if self.state.average else contextlib.nullcontext()

    def _expected_loss(self) -> float | None:
        """ln(classes): the loss of a model that knows nothing, if the loss is the cross-entropy."""
        return math.log(len(self.data.classes)) if self.step.loss == "softmax_cross_entropy" else None

    def _save(self) -> None:
        """Checkpoint and history. A disk that is full is no reason to lose the run: say so and go on."""
        weights = self.model.store.vector
        if self.folder is None or not bool(array_module(weights).isfinite(weights).all()):
            return  # the last update broke the weights; the next step will say so, and the good checkpoint stays
        what = "checkpoint"
        try:
            self.state.save(self.folder / record.CHECKPOINT, self.config)
            what = "history"
            record.write_history(self.folder, self.state.history)
        except OSError as error:
            with contextlib.suppress(OSError):  # standard error may be a file on that disk
                print(f"no {what} written at step {self.step.count} ({error.strerror or error}); the last one stays "
                      "and training goes on", file=sys.stderr, flush=True)
        self._saved = time.monotonic()

    def _keep(self, error: NonFiniteError) -> None:
        """Save the batch that gave a loss that is not finite, and say where."""
        if self.folder is None:
            return
        path = self.folder / record.NONFINITE
        try:
            checkpoint.save(path, {"x": to_numpy(error.x), "labels": to_numpy(error.labels),
                                   "samples": to_numpy(error.samples)}, {"step": error.step, "where": error.where})
            text = f"batch saved in {path}"
        except OSError as failure:
            text = f"batch not saved: {failure.strerror or failure}"
        error.args = (f"{error.args[0]} ({text})",)
