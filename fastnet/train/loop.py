"""`fit`: the loop around the step.

All random numbers are functions of (seed, epoch, sample), so the state of a run is its arrays and a step count: a
run that resumes, in the middle of an epoch too, ends with the bits of one that was never stopped.
"""

import json
import operator
import signal
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from fastnet.arrays import single_threaded_blas, to_numpy
from fastnet.data import Batches, Dataset, Standardization
from fastnet.nn.sequential import Sequential
from fastnet.optim.optimizers import Optimizer
from fastnet.optim.penalties import Quadratic
from fastnet.optim.schedules import Schedule
from fastnet.train import checkpoint, record
from fastnet.train.evaluation import evaluate
from fastnet.train.progress import Progress
from fastnet.train.step import TrainStep


@dataclass
class Run:
    """A finished run: the model, how its images are standardised, one record an epoch, and the result."""

    model: Sequential
    standardization: Standardization
    history: list[dict[str, Any]]
    result: dict[str, Any]
    out: Path | None = None


@dataclass
class _Epoch:
    """Sums over the part of the current epoch that is done; they are kept in the checkpoint."""

    loss: float = 0.0
    correct: int = 0
    seen: int = 0
    seconds: float = 0.0

    def add(self, loss: float, logits: np.ndarray, labels: np.ndarray) -> None:
        self.loss += loss * len(labels)
        self.correct += int((logits.argmax(axis=1) == labels).sum())
        self.seen += len(labels)


@dataclass
class _State:
    """What, with the model and the step, makes up a run in progress."""

    history: list[dict[str, Any]] = field(default_factory=list)
    epoch: _Epoch = field(default_factory=_Epoch)


def fit(model: Sequential, data: Dataset, optimizer: Optimizer, schedule: Schedule | None = None, *, epochs: int,
        batch_size: int = 100, penalty: Quadratic | None = None, loss: str = "softmax_cross_entropy",
        loss_options: Mapping[str, Any] | None = None, seed: int = 0, normalization: str = "channel",
        out: str | Path | None = None, resume: bool = False, checkpoint_seconds: float = 30.0,
        verbose: bool = True) -> Run:
    """Train `model` on data.train, evaluate on data.validation after every epoch and on data.test at the end.

    normalization       'channel' or 'pixel': what the standardisation constants, from the training images, are per
    out                 the run directory to write (config, history, checkpoint, curves, result); None writes nothing
    resume              continue the run in `out` from its checkpoint; all settings but `epochs` must be the run's
    checkpoint_seconds  a checkpoint is written after every epoch and whenever this much time has passed since the last
    verbose             a progress bar on a terminal, a line an epoch elsewhere

    Raises ValueError or TypeError for bad arguments before anything is trained or written, FloatingPointError when
    the loss stops being finite, KeyboardInterrupt after Ctrl-C, when the state has been saved.
    """
    if epochs < 1:
        raise ValueError(f"fit: epochs must be at least 1 but is {epochs}")
    _check_data(model, data)
    step = TrainStep(model, optimizer, schedule, penalty=penalty, loss=loss, loss_options=loss_options, seed=seed)
    standardization = Standardization.fit(data.train.images, normalization)
    batches = Batches(data.train, standardization, batch_size, seed=seed, dtype=model.dtype)
    config = _config(step, data, epochs, batch_size, normalization)
    state = _State()
    folder = Path(out) if out is not None else None
    if resume and folder is None:
        raise ValueError("fit: resume needs the run directory (out)")
    if folder is not None:
        record.open_directory(folder, resume)
        if resume:
            state = _restore(folder, step, config)
            if step.count > epochs * len(batches):
                raise ValueError(f"--resume: {step.count} steps are done, more than the {epochs * len(batches)} of "
                                 f"{epochs} epochs")
        record.write_json(folder / record.CONFIG, config)

    def save() -> None:
        if folder is not None:
            _save(folder, step, state, config)

    with Progress(model.model_name or "model", epochs, len(batches), step.count, verbose) as progress, \
            single_threaded_blas(), _DeferredInterrupt() as interrupt:
        saved = time.monotonic()
        while step.count < epochs * len(batches):
            epoch, done = divmod(step.count, len(batches))
            started = time.perf_counter()
            for x, labels, samples in batches.epoch(epoch, done):
                value = float(step(x, labels, samples, epoch))
                if not np.isfinite(value):
                    raise FloatingPointError(f"the loss is {value} at step {step.count - 1} (epoch {epoch + 1}, "
                                             f"learning rate {step.schedule(step.count - 1):g})")
                state.epoch.add(value, to_numpy(step.logits), labels)
                progress.step(value)
                if interrupt.requested or time.monotonic() - saved > checkpoint_seconds:
                    if step.count % len(batches):  # at the end of an epoch its record comes first
                        state.epoch.seconds += time.perf_counter() - started
                        started = time.perf_counter()
                        save()
                        saved = time.monotonic()
                    if interrupt.requested:
                        break
            state.epoch.seconds += time.perf_counter() - started
            if step.count % len(batches) == 0:
                line = _end_of_epoch(step, state, data, standardization, step.count // len(batches))
                if step.count == epochs * len(batches):
                    line |= _test(step, data, standardization)
                save()
                saved = time.monotonic()
                if folder is not None:
                    record.write_history(folder, state.history)
                progress.epoch(line)
            if interrupt.requested and step.count < epochs * len(batches):
                raise KeyboardInterrupt
    if "test_accuracy" not in state.history[-1]:  # resumed to end where it was stopped
        state.history[-1] |= _test(step, data, standardization)
    result = _result(step, state, data)
    if folder is not None:
        record.write_history(folder, state.history)
        record.write_json(folder / record.RESULT, result)
        draw_curves(folder)
    return Run(model, standardization, state.history, result, folder)


def draw_curves(folder: Path) -> Path:
    """Draw curves.png of a run directory from its record alone; return its path."""
    from fastnet import plots
    from fastnet.optim.schedules import from_settings

    config, history = record.read_json(folder / record.CONFIG), record.read_history(folder)
    try:
        schedule = from_settings(config["schedule"]["name"], config["schedule"]["settings"])
        rates = [schedule(t) for t in range(history[-1]["step"])]
        title = f"{config['model']['name']} on {config['data']['name']}, seed {config['seed']}"
        plots.training_curves(history, rates, folder / record.CURVES, title=title)
    except (LookupError, TypeError) as error:
        raise ValueError(f"{folder} holds no whole record of a run ({type(error).__name__}: {error})") from None
    return folder / record.CURVES


def _check_data(model: Sequential, data: Dataset) -> None:
    """Raise ValueError where images or labels do not fit the model, or none are there to train on or to test with."""
    for name, split in (("training", data.train), ("validation", data.validation), ("test", data.test)):
        if len(split):
            classes = model.output_shape(split.images.shape[1:])[-1]
            low, high = split.labels.min(), split.labels.max()
            if low < 0 or high >= classes:
                raise ValueError(f"fit: the {name} labels are {low}..{high}, but the model has {classes} classes, so "
                                 f"they must be in 0..{classes - 1}")
        elif name != "validation":
            raise ValueError(f"fit: there are no {name} images")


def _config(step: TrainStep, data: Dataset, epochs: int, batch_size: int, normalization: str) -> dict[str, Any]:
    model = step.model
    config = {
        "model": {"name": model.model_name or "custom", "seed": model.seed, "dtype": model.dtype.name, **model.settings,
                  "layers": [f"{layer.name}: {layer!r}" for layer in model.layers]},
        "data": data.identity,
        "normalization": normalization,
        "epochs": epochs,
        "batch_size": batch_size,
        "seed": step.seed,
        "loss": {"name": step.loss, **step.loss_options},
        "optimizer": {"name": step.optimizer.name, **step.optimizer.settings()},
        "schedule": {"name": step.schedule.name, "settings": step.schedule.settings},
        "penalty": step.penalty.settings() if step.penalty else None,
    }
    return json.loads(json.dumps(config))  # tuples become lists, as they will when it is read back


def _end_of_epoch(step: TrainStep, state: _State, data: Dataset, standardization: Standardization,
                  number: int) -> dict[str, Any]:
    """Append the epoch's record. The training figures are means over its batches, each before its update."""
    sums, penalty = state.epoch, step.penalty_value()
    train_loss = sums.loss / sums.seen
    line: dict[str, Any] = {
        "epoch": number, "step": step.count, "lr": step.schedule(step.count - 1),
        "train_loss": train_loss, "train_cost": train_loss + penalty, "train_accuracy": sums.correct / sums.seen,
        "penalty": penalty, "seconds": sums.seconds,
    }
    if len(data.validation):
        started = time.perf_counter()
        found = evaluate(step.model, data.validation, standardization, loss=step.loss, loss_options=step.loss_options)
        line |= {"validation_loss": found.loss, "validation_cost": found.loss + penalty,
                 "validation_accuracy": found.accuracy, "evaluation_seconds": time.perf_counter() - started}
    state.history.append(line)
    state.epoch = _Epoch()
    return line


def _test(step: TrainStep, data: Dataset, standardization: Standardization) -> dict[str, Any]:
    found = evaluate(step.model, data.test, standardization, loss=step.loss, loss_options=step.loss_options)
    return {"test_loss": found.loss, "test_accuracy": found.accuracy}


def _result(step: TrainStep, state: _State, data: Dataset) -> dict[str, Any]:
    last = state.history[-1]
    return {
        "model": step.model.model_name or "custom", "parameters": step.model.num_parameters(),
        "test_accuracy": last["test_accuracy"], "test_loss": last["test_loss"],
        "validation_accuracy": last.get("validation_accuracy"), "train_loss": last["train_loss"],
        "epochs": last["epoch"], "steps": step.count, "seed": step.seed,
        "seconds": sum(line["seconds"] + line.get("evaluation_seconds", 0) for line in state.history),
        "train_seconds": sum(line["seconds"] for line in state.history),
        "data": data.identity, "versions": record.versions(),
    }


def _save(folder: Path, step: TrainStep, state: _State, config: dict[str, Any]) -> None:
    arrays = {f"model/{name}": a for name, a in {**step.model.parameters(), **step.model.statistics()}.items()}
    for key, vector in step.state.items():
        arrays |= {f"optimizer.{key}/{name}": view for name, view in step.model.store.views(vector).items()}
    checkpoint.save(folder / record.CHECKPOINT, {name: to_numpy(a) for name, a in arrays.items()}, {
        "step": step.count, "epoch": vars(state.epoch), "history": state.history, "config": config,
        "versions": record.versions()})


def _restore(folder: Path, step: TrainStep, config: dict[str, Any]) -> _State:
    """Put the checkpoint's arrays into the model and the optimizer's state. Raises ValueError where they do not fit."""
    path = folder / record.CHECKPOINT
    arrays, metadata = checkpoint.load(path)
    try:
        old = metadata["config"]
        if changed := record.differences({**old, "epochs": None}, {**config, "epochs": None}):
            raise ValueError(f"--resume: the settings are not the run's: {'; '.join(changed)}")
        state = _State(list(metadata["history"]), _Epoch(**metadata["epoch"]))
        step.count = operator.index(metadata["step"])
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path} is not a checkpoint of a run ({type(error).__name__}: {error})") from None
    groups: dict[str, dict[str, np.ndarray]] = {"model": {}, **{f"optimizer.{key}": {} for key in step.state}}
    for name, value in arrays.items():
        group, _, rest = name.partition("/")
        if group not in groups:
            raise ValueError(f"{path}: {name} belongs to nothing in this run")
        groups[group][rest] = value
    step.model.load_state(groups["model"])
    for key, vector in step.state.items():
        views, found = step.model.store.views(vector), groups[f"optimizer.{key}"]
        if {name: v.shape for name, v in views.items()} != {name: v.shape for name, v in found.items()}:
            raise ValueError(f"{path}: the optimizer's {key} does not belong to this model")
        for name, view in views.items():
            view[...] = found[name]
    return state


class _DeferredInterrupt:
    """Ctrl-C inside the block sets `requested` instead of tearing a step apart; a second one interrupts at once."""

    def __init__(self) -> None:
        self.requested = False
        self._previous: Any = None

    def __enter__(self) -> "_DeferredInterrupt":
        if threading.current_thread() is threading.main_thread():
            self._previous = signal.signal(signal.SIGINT, self._request)
        return self

    def _request(self, *_: Any) -> None:
        if self.requested:
            raise KeyboardInterrupt
        self.requested = True

    def __exit__(self, *_: Any) -> None:
        if self._previous is not None:
            signal.signal(signal.SIGINT, self._previous)
