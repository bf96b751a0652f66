"""What the loop promises when things go on for long or go wrong: averages, early stopping, full disks, locks, NaN."""

import builtins
import contextlib
import dataclasses
import errno
import importlib.util
import json
import math
import os
import resource
import signal
import subprocess
import sys
import types
from pathlib import Path

import numpy as np
import pytest
from tiny import BATCH, bits, dataset, files, fit, interrupting, model, saved, scribbled, split, untimed

import fastnet as fn
from fastnet import backend, cli, plots
from fastnet.data import Batches, Standardization
from fastnet.nn.layer import Context
from fastnet.nn.losses import forward_backward
from fastnet.optim import schedules
from fastnet.optim.schedules import Schedule
from fastnet.train import checkpoint, lock, loop, record
from fastnet.train.average import WeightAverage
from fastnet.train.evaluation import Evaluation
from fastnet.train.nonfinite import NonFiniteError
from fastnet.train.stopping import EarlyStopping

STEPS = 9  # of a whole run of tiny.fit, three an epoch
CHECKPOINT = record.CHECKPOINT


@pytest.fixture(autouse=True)
def drawn(monkeypatch):
    """The rates that figures were drawn with; a figure itself takes longer than these runs."""
    rates_drawn = []
    monkeypatch.setattr(plots, "training_curves", lambda history, rates, path, *, title: (
        path.write_bytes(b"figure"), rates_drawn.append(rates)))
    return rates_drawn


class Hooked(fn.SGD):
    """SGD that calls `after[t]` behind update t, once."""

    def __init__(self, after=None, **settings):
        super().__init__(**({"momentum": 0.9} | settings))
        self.after = dict(after or {})

    def update(self, w, gradient, state, *, step, **options):
        super().update(w, gradient, state, step=step, **options)
        self.after.pop(step, lambda: None)()

    def settings(self):
        return {key: value for key, value in super().settings().items() if key != "after"}


def ctrl_c():
    signal.raise_signal(signal.SIGINT)


def in_parts(out, stops, settings):
    """A run, with `settings()` each time, that is interrupted after each of these updates, and ends."""
    for number, stop in enumerate(stops):
        with pytest.raises(KeyboardInterrupt):
            fit(out, Hooked({stop: ctrl_c}), model=scribbled() if number else model(), resume=number > 0, **settings())
    return fit(out, Hooked(), model=scribbled(), resume=True, **settings())


def metadata(out):
    return checkpoint.load(out / CHECKPOINT)[1]


def content(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


# --- weight averaging ---

def averaged_by_hand(decay, epochs=3):
    """A loop of one's own in float64: the model, the average after every epoch, and how to evaluate."""
    net, data = model(dtype="float64"), dataset()
    standardization = Standardization.fit(data.train.images, "channel")
    batches = Batches(data.train, standardization, BATCH, seed=5, dtype="float64")
    step = fn.TrainStep(net, Hooked(), schedules.triangular(1e-3, 0.05, half_cycle_steps=4), penalty=fn.L2(0.01),
                        seed=5)
    average, states = net.store.vector.copy(), []
    for epoch in range(epochs):
        for x, labels, samples in batches.epoch(epoch):
            step(x, labels, samples, epoch)
            average = decay * average + (1 - decay) * net.store.vector
        states.append(average.copy())
    return net, states, lambda m: fn.evaluate(m, data.validation, standardization)


@pytest.mark.parametrize("decay", [0.0, 0.5, 0.9])
def test_the_average_is_the_recurrence_and_is_what_is_evaluated(decay, tmp_path):
    run = fit(tmp_path / "run", Hooked(), model=model(dtype="float64"), average=decay)
    net, states, evaluate = averaged_by_hand(decay)
    weights = net.store.vector.copy()
    np.testing.assert_allclose(run.model.store.vector, states[-1], rtol=1e-12, atol=1e-15)  # the final model is it
    for line, state in zip(run.history, states, strict=True):
        twin = net.copy()
        twin.store.vector[...] = state
        if line is run.history[-1]:  # of earlier epochs the running statistics are not kept
            assert line["validation_loss"] == pytest.approx(evaluate(twin).loss, rel=1e-9)
    arrays, _ = checkpoint.load(tmp_path / "run" / CHECKPOINT)
    found = {"/".join(n.split("/")[1:]): a for n, a in arrays.items() if n.startswith("average/")}
    assert bits(found) == bits(run.model.parameters())
    # Training went on from the raw weights, not from the average.
    raw = net.store.views(weights)
    for name, value in raw.items():
        np.testing.assert_allclose(arrays[f"model/{name}"], value, rtol=1e-9, atol=1e-13, err_msg=name)
    assert (decay == 0) == np.allclose(weights, states[-1], rtol=1e-6)


def test_averaging_does_not_change_training():
    plain, averaged = fit(), fit(average=0.9)
    lines = [{k: v for k, v in line.items() if k.startswith("train_")} for run in (plain, averaged)
             for line in untimed(run.history)]
    assert lines[:3] == lines[3:]
    assert plain.history[0]["validation_loss"] != averaged.history[0]["validation_loss"]


def test_the_weights_come_back_bit_for_bit():
    net = model()
    average = WeightAverage(net, 0.5)
    assert bits(net.store.views(average.vector)) == bits(net.parameters())  # it starts as a copy
    net.store.vector[...] = np.random.default_rng(0).normal(size=net.store.vector.size)
    average.update()
    before, mean = net.store.vector.tobytes(), average.vector.tobytes()
    with average.applied():
        assert net.store.vector.tobytes() == mean != before
    assert net.store.vector.tobytes() == before
    with contextlib.suppress(KeyError), average.applied():
        raise KeyError
    assert net.store.vector.tobytes() == before and average.vector.tobytes() == mean


@pytest.mark.parametrize("decay", [-0.1, 1, math.nan])
def test_a_decay_that_is_none(decay):
    with pytest.raises(ValueError, match=r"the decay of the weight average must be in \[0, 1\) but is"):
        WeightAverage(model(), decay)


@pytest.mark.parametrize("size", [0, 1, 1000, 200_000])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_averaging_kernel_agrees_with_the_reference(size, dtype):
    rng = np.random.default_rng(size)
    average, w = (rng.normal(size=size).astype(dtype) for _ in range(2))
    results = []
    for implementation in ("reference", "cpu"):
        with backend.use(implementation):
            found = average.copy()
            backend.call("average_update", found, w, decay=0.99)
        results.append(found)
    np.testing.assert_allclose(results[1], results[0], rtol=4 * np.finfo(dtype).eps, atol=np.finfo(dtype).eps)
    assert size == 0 or (results[0] != average).any()


@pytest.mark.parametrize("stops", [[4], [0, 5, 7]], ids=str)
def test_an_averaged_run_resumes_with_the_same_bits(stops, tmp_path):
    whole = fit(tmp_path / "whole", Hooked(), average=0.9)
    parts = in_parts(tmp_path / "parts", stops, lambda: {"average": 0.9})
    assert bits(parts.model.state()) == bits(whole.model.state())
    assert saved(tmp_path / "parts") == saved(tmp_path / "whole")


# --- early stopping ---

class Scripted:
    """An evaluation whose validation figures are scripted, epoch by epoch; it keeps the bits of what it was shown."""

    def __init__(self, losses=None, accuracies=None):
        self.losses = losses or [1.0] * len(accuracies)
        self.accuracies = accuracies or [0.5] * len(self.losses)
        self.shown = []

    def __call__(self, net, part, standardization, **options):
        if len(part) == 30:  # the test images
            return Evaluation(2.5, 0.25, np.zeros(30))
        self.shown.append(bits(net.state()))
        at = len(self.shown) - 1
        return Evaluation(self.losses[at], self.accuracies[at], np.zeros(20))


@pytest.fixture
def script(monkeypatch):
    def use(*arguments, **named):
        scripted = Scripted(*arguments, **named)
        monkeypatch.setattr(loop, "evaluate", scripted)
        return scripted
    return use


@pytest.mark.parametrize(("figures", "stopping", "epochs", "best"), [
    ({"losses": [3, 2, 2.5, 2.4, 1, 0]}, EarlyStopping(2), 4, 2),
    ({"losses": [3, 2, 2.5, 1.9, 2, 2]}, EarlyStopping(2), 6, 4),
    ({"losses": [3, 2, 2, 2, 2, 2]}, EarlyStopping(3), 5, 2),  # as good is not better
    ({"losses": [3, 2.9, 2.8, 2.7, 1, 0]}, EarlyStopping(3, min_delta=0.5), 4, 1),
    ({"losses": [3, 2.9, 2.8, 2.4, 2.3, 2.2]}, EarlyStopping(3, min_delta=0.5), 6, 4),
    ({"accuracies": [0.1, 0.6, 0.5, 0.6, 0.9, 0.9]}, EarlyStopping(2, metric="validation_accuracy"), 4, 2),
    ({"losses": [6, 5, 4, 3, 2, 1]}, EarlyStopping(1, metric="validation_cost"), 6, 6),
    ({"losses": [math.nan] * 6}, EarlyStopping(2), 2, 0),  # nothing was good: the last epoch's model stays
])
def test_the_run_stops_and_the_best_epoch_comes_back(figures, stopping, epochs, best, script, tmp_path):
    scripted = script(**figures)
    run = fit(tmp_path / "run", epochs=6, early_stopping=stopping, penalty=None)
    assert [line["epoch"] for line in run.history] == list(range(1, epochs + 1))
    assert bits(run.model.state()) == scripted.shown[best - 1]
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert result["best_epoch"] == best and result["epochs"] == epochs and result["steps"] == 3 * epochs
    assert result["validation_accuracy"] == scripted.accuracies[best - 1]
    assert result["train_loss"] == run.history[best - 1]["train_loss"]
    arrays, _ = checkpoint.load(tmp_path / "run" / record.MODEL)
    assert bits({n.removeprefix("model/"): a for n, a in arrays.items() if n.startswith("model/")}) == (
        scripted.shown[best - 1])


def test_a_training_figure_may_decide():
    run = fit(early_stopping=EarlyStopping(1, metric="train_loss"), data=dataset(validation=0), epochs=4)
    losses = [line["train_loss"] for line in run.history]
    best = run.result["best_epoch"]
    assert losses[best - 1] == min(losses) and (len(losses) == 4 or losses[-1] >= losses[best - 1])


def test_with_averaging_the_average_of_the_best_epoch_comes_back(script):
    scripted = script([3, 2, 2.5, 2.4, 1])
    run = fit(epochs=5, early_stopping=EarlyStopping(2), average=0.9)
    assert bits(run.model.state()) == scripted.shown[1]  # evaluation saw the average
    script([3, 2, 2.5, 2.4, 1])
    assert bits(fit(epochs=5, early_stopping=EarlyStopping(2)).model.state()) != scripted.shown[1]


@pytest.mark.parametrize("stops", [[4], [6], [7], [5, 8], [10], [2, 11]], ids=str)
@pytest.mark.parametrize("average", [None, 0.9])
def test_a_resumed_run_keeps_its_best_epoch(stops, average, script, tmp_path):
    def settings():
        return {"epochs": 6, "early_stopping": EarlyStopping(2), "average": average}

    scripted = script([3, 2, 2.5, 2.4, 1, 0])
    whole = fit(tmp_path / "whole", Hooked(), **settings())
    best = scripted.shown[1]
    script([3, 2, 2.5, 2.4, 1, 0])
    if stops[-1] == 11:  # the last update before the run stops: it ends as usual
        with pytest.raises(KeyboardInterrupt):
            fit(tmp_path / "parts", Hooked({2: ctrl_c}), **settings())
        stops = []
    parts = (in_parts(tmp_path / "parts", stops, settings) if stops
             else fit(tmp_path / "parts", Hooked(), model=scribbled(), resume=True, **settings()))
    assert bits(parts.model.state()) == bits(whole.model.state()) == best
    assert saved(tmp_path / "parts") == saved(tmp_path / "whole")
    assert fit(tmp_path / "parts", Hooked(), model=scribbled(), resume=True, **settings()).result["best_epoch"] == 2


def test_one_object_serves_many_runs(script):
    def train(losses, stopping, schedule):
        script(losses)
        return fit(epochs=5, early_stopping=stopping, schedule=schedule)

    used = EarlyStopping(2), schedules.reduce_on_plateau(0.05, patience=0)
    fresh = EarlyStopping(2), schedules.reduce_on_plateau(0.05, patience=0)
    train([0.5, 0.6, 0.7], *used)  # better than all that follows
    again, expected = train([3, 2, 2.5, 2.4], *used), train([3, 2, 2.5, 2.4], *fresh)
    assert untimed(again.history) == untimed(expected.history) and len(again.history) == 4
    assert bits(again.model.state()) == bits(expected.model.state())


@pytest.mark.parametrize(("arguments", "message"), [
    ({"patience": 0}, "patience must be at least 1 epoch but is 0"),
    ({"metric": "test_loss"}, "metric must be a validation or training figure but is 'test_loss'"),
    ({"metric": "test_accuracy"}, "metric must be a validation or training figure but is 'test_accuracy'"),
    ({"min_delta": -1}, "min_delta must not be negative but is -1"),
    ({"min_delta": math.nan}, "min_delta must not be negative but is nan"),
])
def test_early_stopping_refuses(arguments, message):
    with pytest.raises(ValueError, match=f"EarlyStopping: {message}"):
        EarlyStopping(**arguments)


def test_a_figure_that_a_run_will_not_have_is_refused_before_it(tmp_path):
    for watching in ({"early_stopping": EarlyStopping(2)}, {"schedule": schedules.reduce_on_plateau(0.1)}):
        with pytest.raises(ValueError, match="will have no 'validation_loss'; choose from train_loss, train_cost"):
            fit(tmp_path / "run", data=dataset(validation=0), **watching)
    with pytest.raises(ValueError, match="EarlyStopping: the history of this run will have no 'validation_f1'; choose"):
        fit(tmp_path / "run", early_stopping=EarlyStopping(2, metric="validation_f1"))
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(ValueError, match=r"the run's history has no validation_loss \(without validation images\?\)"):
        EarlyStopping(2).improved({"epoch": 1, "train_loss": 1.0})


# --- a batch in pieces ---

@pytest.mark.parametrize("parts", [2, 3, 7, 12])
@pytest.mark.parametrize("loss", ["softmax_cross_entropy", "mean_squared_error"])
def test_gradients_of_the_pieces_add_up_to_those_of_the_batch(parts, loss):
    net = fn.Sequential([fn.Dropout(0.2), fn.Linear(20, 9), fn.Tanh(), fn.Dropout(0.4), fn.Linear(9, 5)],
                        dtype="float64", seed=2)
    rng = np.random.default_rng(0)
    x, labels = rng.normal(size=(12, 20)), rng.integers(0, 5, 12)
    context = Context(training=True, seed=4, epoch=3, samples=rng.permutation(1000)[:12])
    value, logits = forward_backward(net, x, labels, context, loss, {})
    whole = {name: gradient.copy() for name, gradient in net.gradients().items()}
    net.store.gradient[...] = 7  # which must not count
    found, pieces = forward_backward(net, x, labels, context, loss, {}, parts)
    assert float(found) == pytest.approx(float(value), rel=1e-14)
    np.testing.assert_allclose(pieces, logits, rtol=1e-13, atol=1e-15)
    for name, gradient in net.gradients().items():
        assert np.abs(gradient - whole[name]).max() <= 1e-14 * np.abs(whole[name]).max(), name


def test_a_run_in_pieces_is_the_run(tmp_path):
    def without_batch_norm():
        return fn.Sequential([fn.Linear(192, 16), fn.ReLU(), fn.Dropout(0.3), fn.Linear(16, 10)], dtype="float64")

    runs = [fit(Path(tmp_path, str(n)), model=without_batch_norm(), accumulate=n) for n in (1, 4)]
    np.testing.assert_allclose(runs[1].model.store.vector, runs[0].model.store.vector, rtol=1e-9, atol=1e-13)
    assert json.loads((tmp_path / "4" / "config.json").read_text())["accumulate"] == 4


def test_more_pieces_than_samples_are_refused(tmp_path):
    with pytest.raises(ValueError, match="accumulate is 11, but the smallest batch of an epoch has only 10 images"):
        fit(tmp_path / "run", accumulate=11)
    assert list(tmp_path.iterdir()) == []
    assert fit(epochs=1, accumulate=10).result["steps"] == 3
    with pytest.raises(ValueError, match="accumulate is 13, but the smallest batch of an epoch has only 12 images"):
        fit(accumulate=13, batch_size=12)


# --- a loss that is not finite ---

class Faulty(fn.ReLU):
    """Its output is infinite in one row while `on`."""

    on = False

    def __call__(self, x, context):
        y, back = super().__call__(x, context)
        if self.on:
            y = y.copy()
            y[7] = np.inf
        return y, back


@dataclasses.dataclass
class Accident:
    """A run in which something becomes NaN or infinite in step 4."""

    where: str
    message: str

    def run(self, out, monkeypatch, **settings):
        faulty = Faulty()
        self.net = fn.Sequential([fn.Linear(192, 16), fn.BatchNorm(16), faulty, fn.Dropout(0.3), fn.Linear(16, 10)])
        self.optimizer = Hooked({3: lambda: self.damage(faulty)})
        if self.where == "input":
            real = Batches.epoch

            def epoch(batches, number, start=0):
                for k, batch in enumerate(real(batches, number, start)):
                    if (number, k) == (1, 1):
                        batch.x[3, 1, 2, 0] = np.nan
                    yield batch

            monkeypatch.setattr(Batches, "epoch", epoch)
        steps = []
        start = fn.SGD.start
        monkeypatch.setattr(fn.SGD, "start", lambda *a: steps.append(start(*a)) or steps[-1])
        self.arrays = lambda: bits(self.net.state()) | bits(steps[0])
        return fit(out, self.optimizer, model=self.net, checkpoint_seconds=0, **settings)

    def damage(self, faulty):
        if self.where == "parameter":
            self.net.parameters()["linear2.w"][5, 2] = np.nan
        faulty.on = self.where == "layer"
        self.before = self.arrays()


ACCIDENTS = [
    Accident("input", r"the input x is not finite, nan at \[3, 1, 2, 0\], 1 of 4800 entries"),
    Accident("parameter", r"parameter linear2\.w is not finite, nan at \[5, 2\], 1 of 160 entries; an earlier update "
                          r"made it so \(is the rate too high\?\)"),
    Accident("layer", r"the output of faulty1 \(Faulty\) is the first that is not finite, inf at \[7, 0\], 16 of 400"),
]


@pytest.mark.parametrize("accident", ACCIDENTS, ids=lambda a: a.where)
@pytest.mark.filterwarnings("ignore:invalid value encountered")  # NumPy of the NaN that is meant to be there
def test_a_loss_that_is_not_finite_says_where_and_changes_nothing(accident, tmp_path, monkeypatch):
    out = tmp_path / "run"
    with pytest.raises(NonFiniteError, match=rf"^the loss is not finite at step 4: {accident.message}.*"
                                             rf"\(batch saved in .*{record.NONFINITE}\)$") as caught:
        accident.run(out, monkeypatch)
    assert accident.arrays() == accident.before
    error, (arrays, meta) = caught.value, checkpoint.load(out / record.NONFINITE)
    assert isinstance(error, FloatingPointError) and str(out / record.NONFINITE) in str(error)
    assert meta["step"] == error.step == 4 and meta["where"] == error.where
    train = dataset().train
    batches = Batches(train, Standardization.fit(train.images, "channel"), BATCH, seed=5)
    x, labels, samples = list(batches.epoch(1))[1]
    if accident.where == "input":
        x[3, 1, 2, 0] = np.nan
    assert bits(arrays) == bits({"x": x, "labels": labels, "samples": samples})
    if accident.where != "parameter":  # a checkpoint from before is there to go on from
        assert metadata(out)["step"] == 4


def test_a_full_disk_does_not_hide_where_it_began(tmp_path, monkeypatch):
    real = checkpoint.save

    def save(path, arrays, meta):
        if path.name == record.NONFINITE:
            raise OSError(errno.ENOSPC, "No space left on device")
        real(path, arrays, meta)

    monkeypatch.setattr(checkpoint, "save", save)
    with pytest.raises(NonFiniteError, match=r"output of faulty1 .* \(batch not saved: No space left on device\)$"):
        ACCIDENTS[2].run(tmp_path / "run", monkeypatch)


def test_without_a_directory_the_batch_is_in_the_error_alone(monkeypatch):
    with pytest.raises(NonFiniteError, match=r"output of faulty1 .* entries$") as caught:
        ACCIDENTS[2].run(None, monkeypatch)
    assert caught.value.x.shape == (25, 8, 8, 3)


# --- a disk that is full, or lies ---

class Disk:
    """Makes the file operations of one save of a checkpoint fail in one stage, or of that save and all that follow.

    It stands for `os` and `open` in `fastnet.train.checkpoint`.
    """

    STAGES = ("open", "write", "short write", "flush", "sync", "read", "rename", "folder open", "folder sync")

    def __init__(self, stage, number, monkeypatch, name=CHECKPOINT, forever=False):
        self.stage, self.number, self.name, self.forever = stage, number, name, forever
        self.saves, self.now, self.folders = 0, False, set()
        real = checkpoint.write_atomically
        monkeypatch.setattr(checkpoint, "write_atomically", lambda path, data: self.save(real, path, data))
        monkeypatch.setattr(record, "write_atomically", checkpoint.write_atomically)
        monkeypatch.setattr(checkpoint, "os", self)
        monkeypatch.setattr(checkpoint, "open", self.opened, raising=False)
        read = Path.read_bytes
        monkeypatch.setattr(Path, "read_bytes", lambda path: read(path)[:-1] + b"?" if self.fails("read")
                            else read(path))

    def save(self, real, path, data):
        if path.name == self.name:
            self.saves += 1
        chosen = path.name == self.name and self.saves == self.number
        self.now = chosen or (self.forever and self.saves >= self.number)
        try:
            real(path, data)
        finally:
            self.now = False

    def fails(self, stage):
        return self.now and stage == self.stage

    def check(self, stage):
        if self.fails(stage):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def opened(self, path, mode):
        self.check("open")
        file, disk = builtins.open(path, mode), self  # noqa: SIM115

        class Watched:
            def write(self, data):
                if disk.fails("write"):
                    file.write(data[: len(data) // 2])
                    disk.check("write")
                return file.write(data[: len(data) // 2] if disk.fails("short write") else data)

            def flush(self):
                disk.check("flush")
                file.flush()

            def fileno(self):
                return file.fileno()

            def __enter__(self):
                return self

            def __exit__(self, *error):
                file.close()

        return Watched()

    def open(self, path, flags):
        self.check("folder open")
        descriptor = os.open(path, flags)
        self.folders.add(descriptor)
        return descriptor

    def fsync(self, descriptor):
        self.check("folder sync" if descriptor in self.folders else "sync")
        os.fsync(descriptor)

    def replace(self, source, target):
        self.check("rename")
        os.replace(source, target)

    def close(self, descriptor):
        self.folders.discard(descriptor)
        os.close(descriptor)

    O_RDONLY = os.O_RDONLY


class Killed(Exception):
    """As good as SIGKILL: nothing is saved on the way out."""


def kill():
    raise Killed


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """What an undisturbed run leaves."""
    out = tmp_path_factory.mktemp("whole") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plots, "training_curves", lambda history, rates, path, *, title: path.write_bytes(b"figure"))
        fit(out, Hooked())
    return saved(out)


@pytest.mark.parametrize("number", [1, 5, STEPS])
@pytest.mark.parametrize("stage", Disk.STAGES)
def test_a_save_that_fails_loses_nothing_but_itself(stage, number, whole, tmp_path, capsys, monkeypatch):
    out, placed = tmp_path / "run", stage.startswith("folder")  # by then the new checkpoint has its name
    disk = Disk(stage, number, monkeypatch)
    fit(out, Hooked(), checkpoint_seconds=0)  # goes on to the end
    reason = "does not read back as it was written" if stage in ("short write", "read") else "No space left on device"
    line, = capsys.readouterr().err.splitlines()
    assert line.startswith(f"no checkpoint written at step {number} (") and reason in line
    assert line.endswith("); the last one stays and training goes on")
    assert not list(out.glob("*.part"))
    if number < STEPS:
        assert saved(out) == whole
    assert saved(out)[3:] == whole[3:]  # the record, the result, the settings
    # The same again, but the process dies before the next save: what is on disk is the last good one.
    again, disk.saves = tmp_path / "again", 0
    if number < STEPS:
        with pytest.raises(Killed):
            fit(again, Hooked({number: kill}), checkpoint_seconds=0)
    else:
        again = out
    if number == 1 and not placed:
        assert not (again / CHECKPOINT).exists()
        return
    assert metadata(again)["step"] == (number if placed else number - 1)
    resumed = fit(again, Hooked(), model=scribbled(), resume=True)
    assert resumed.result["test_accuracy"] == whole[4]["test_accuracy"]
    assert saved(again) == whole


def test_a_history_that_cannot_be_written_is_called_that(whole, tmp_path, capsys, monkeypatch):
    Disk("write", 2, monkeypatch, name=record.HISTORY)
    fit(tmp_path / "run", Hooked())
    assert capsys.readouterr().err == ("no history written at step 6 (No space left on device); the last one stays and "
                                       "training goes on\n")
    assert saved(tmp_path / "run") == whole


@pytest.mark.parametrize("name", [record.HISTORY, record.MODEL, record.RESULT])
def test_what_is_lost_with_the_result_is_said(name, whole, tmp_path, monkeypatch):
    out = tmp_path / "run"
    with monkeypatch.context() as patch:
        Disk("write", 4 if name == record.HISTORY else 1, patch, name=name)
        with pytest.raises(OSError, match=r"^the run is done \(test accuracy 0\.\d{4}, test loss \d\.\d{4}\), but its "
                                          r"result cannot be written to .*run \(No space left on device\); --resume "):
            fit(out, Hooked())
    assert not (out / "result.json").exists()
    fit(out, Hooked(), model=scribbled(), resume=True)
    assert saved(out) == whole


def test_a_disk_that_stays_full(whole, tmp_path, capsys, monkeypatch):
    out = tmp_path / "run"
    with monkeypatch.context() as patch:
        Disk("write", 3, patch, forever=True)
        with pytest.raises(OSError, match="the run is done"):
            fit(out, Hooked(), checkpoint_seconds=0)
    assert len(capsys.readouterr().err.splitlines()) == STEPS - 2
    assert metadata(out)["step"] == 2
    fit(out, Hooked(), model=scribbled(), resume=True)
    assert saved(out) == whole


def test_neither_does_a_log_on_that_disk_end_the_run(tmp_path, monkeypatch):
    class Full:
        def isatty(self):
            return False

        def flush(self):
            pass

        def write(self, text):
            raise OSError(code, os.strerror(code))

    code = errno.ENOSPC
    Disk("write", 2, monkeypatch)
    monkeypatch.setattr(sys, "stderr", Full())
    monkeypatch.setattr(sys, "stdout", Full())
    assert fit(tmp_path / "run", verbose=True).result["epochs"] == 3
    code = errno.EPIPE  # nobody reads any more: that is another matter
    with pytest.raises(BrokenPipeError):
        fit(verbose=True)


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 256 KiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    try:
        mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "none", folder], capture_output=True,
                                 check=False).returncode == 0
    except OSError:
        mounted = False
    if not mounted:
        pytest.skip("no file system can be mounted here")
    yield folder
    subprocess.run(["umount", folder], check=True)


def fill(path):
    with open(path, "wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(4096))


def test_a_disk_that_is_really_full(small_disk, whole, capfd):
    out, ballast = small_disk / "run", small_disk / "ballast"
    optimizer = Hooked({3: lambda: fill(ballast), 6: lambda: ballast.unlink(), 7: lambda: fill(ballast)})
    with pytest.raises(OSError, match=r"the run is done .* \(No space left on device\); --resume"):
        fit(out, optimizer, checkpoint_seconds=0)
    lines = capfd.readouterr().err.splitlines()
    assert [line.split(" (")[0] for line in lines] == [f"no checkpoint written at step {n}" for n in (4, 5, 6, 8, 9)]
    assert all("(No space left on device); the last one stays" in line for line in lines)
    assert metadata(out)["step"] == 7 and not list(out.glob("*.part"))
    ballast.unlink()
    fit(out, Hooked(), model=scribbled(), resume=True)
    assert saved(out) == whole


def test_files_that_may_not_grow(whole, tmp_path, capfd):
    """A limit of the kernel that needs no rights: every write beyond 1 KiB fails."""
    _, most = resource.getrlimit(resource.RLIMIT_FSIZE)

    def limit(size):
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, most))

    out = tmp_path / "run"
    try:
        with pytest.raises(OSError, match=r"the run is done .* \(File too large\); --resume"):
            fit(out, Hooked({4: lambda: limit(1024)}), checkpoint_seconds=0)
    finally:
        limit(most)
    assert len(capfd.readouterr().err.splitlines()) == 5 and metadata(out)["step"] == 4
    fit(out, Hooked(), model=scribbled(), resume=True)
    assert saved(out) == whole


# --- two processes, one directory ---

HOLDER = """
import sys, time
sys.path.insert(0, {tests!r})
from tiny import fit
import fastnet as fn

class Stuck(fn.SGD):
    def update(self, *arrays, step, **options):
        super().update(*arrays, step=step, **options)
        if step == 4:
            print("stuck", flush=True)
            time.sleep(100)

fit({out!r}, Stuck(momentum=0.9), checkpoint_seconds=0)
"""


def test_a_second_process_is_turned_away_until_the_first_is_dead(whole, tmp_path, capsys):
    out = tmp_path / "run"
    first = subprocess.Popen([sys.executable, "-c", HOLDER.format(tests=str(Path(__file__).parent), out=str(out))],
                             stdout=subprocess.PIPE)
    try:
        assert first.stdout.readline() == b"stuck\n"
        before = content(out)
        with pytest.raises(BlockingIOError, match=r"^another process is training in .*run$"):
            fit(out, Hooked(), resume=True)
        with pytest.raises(FileExistsError):
            fit(out, Hooked())
        command = ["train", "mlp2", "--data", "shapes10", "--split", "100/50", "--out", str(out), "--resume"]
        assert cli.main(command) == 2
        assert capsys.readouterr().err == f"fastnet train: another process is training in {out}\n"
        assert content(out) == before and first.poll() is None
    finally:
        first.kill()
        first.communicate()
    assert metadata(out)["step"] == 4
    fit(out, Hooked(), model=scribbled(), resume=True)
    assert saved(out) == whole


def test_one_process_cannot_train_twice_in_a_directory_either(tmp_path):
    (tmp_path / "run").mkdir()
    with lock.exclusive(tmp_path / "run"):
        with pytest.raises(BlockingIOError):
            fit(tmp_path / "run")
        assert files(tmp_path / "run") == set()
    assert fit(tmp_path / "run").result["epochs"] == 3  # the lock alone does not make it a run's


def test_a_file_system_without_locks(tmp_path, monkeypatch):
    def flock(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(lock.fcntl, "flock", flock)
    assert fit(tmp_path / "run", epochs=1).result["epochs"] == 1


def test_locks_where_there_is_no_fcntl(tmp_path, monkeypatch):
    held = set()

    def locking(descriptor, mode, size):
        name = os.readlink(f"/proc/self/fd/{descriptor}")
        if (mode, size) == (2, 1) and name in held:
            raise PermissionError(errno.EACCES, "Permission denied")
        held.add(name)

    monkeypatch.setitem(sys.modules, "fcntl", None)
    monkeypatch.setitem(sys.modules, "msvcrt", types.SimpleNamespace(locking=locking, LK_NBLCK=2))
    spec = importlib.util.spec_from_file_location("lock_of_windows", lock.__file__)
    elsewhere = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(elsewhere)
    with elsewhere.exclusive(tmp_path):
        assert len(held) == 1
        with pytest.raises(BlockingIOError, match="another process is training in"), elsewhere.exclusive(tmp_path):
            pass


# --- checkpoints ---

def test_a_checkpoint_of_another_model_names_every_array(tmp_path):
    out = tmp_path / "run"
    fit(out, epochs=1)
    arrays, meta = checkpoint.load(out / CHECKPOINT)
    arrays["model/conv1.w"] = arrays.pop("model/linear1.w")
    arrays["model/linear2.w"] = arrays["model/linear2.w"][:, :7]
    arrays["model/linear2.b"] = arrays["model/linear2.b"].astype(np.float64)
    arrays["optimizer.m/linear1.w"] = arrays.pop("optimizer.velocity/linear1.w")
    arrays["best/linear1.b"] = arrays["model/linear1.b"]
    arrays["model/batch_norm1.running_var"][3] = np.inf
    arrays["optimizer.velocity/linear1.b"][[1, 2]] = np.nan
    checkpoint.save(out / CHECKPOINT, arrays, meta)
    net = model()
    before, on_disk = bits(net.state()), content(out)
    with pytest.raises(ValueError) as caught:
        fit(out, model=net, resume=True)
    assert str(caught.value) == f"{out / CHECKPOINT} does not fit this run: " + "; ".join([
        "best/linear1.b belongs to nothing in it",
        "model/batch_norm1.running_var holds 1 entries that are not finite",
        "model/conv1.w belongs to nothing in it",
        "model/linear1.w is missing",
        "model/linear2.b is float64(10,), not float32(10,)",
        "model/linear2.w is float32(16, 7), not float32(16, 10)",
        "optimizer.m/linear1.w belongs to nothing in it",
        "optimizer.velocity/linear1.b holds 2 entries that are not finite",
        "optimizer.velocity/linear1.w is missing"])
    assert bits(net.state()) == before and content(out) == on_disk


def test_a_best_epoch_that_is_not_whole_is_refused(tmp_path):
    out, settings = tmp_path / "run", {"early_stopping": EarlyStopping(5), "epochs": 1}
    fit(out, **settings)
    arrays, meta = checkpoint.load(out / CHECKPOINT)
    whole_best = arrays.pop("best/linear1.w")
    checkpoint.save(out / CHECKPOINT, arrays, meta)
    with pytest.raises(ValueError, match=r"does not fit this run: best/linear1\.w is missing$"):
        fit(out, resume=True, **settings)
    arrays["best/linear1.w"] = whole_best
    del meta["stopping"]["best_value"]
    checkpoint.save(out / CHECKPOINT, arrays, meta)
    with pytest.raises(ValueError, match=r"is not a checkpoint of a run \(KeyError: 'best_value'\)"):
        fit(out, resume=True, **settings)


def test_a_cut_checkpoint_is_refused_wherever_it_was_cut(tmp_path):
    out = tmp_path / "run"
    fit(out, epochs=1)
    good = (out / CHECKPOINT).read_bytes()
    for part in range(20):
        (out / CHECKPOINT).write_bytes(good[: len(good) * part // 20])
        with pytest.raises(ValueError, match=r"checkpoint\.safetensors is not a whole fastnet checkpoint \(") as caught:
            fit(out, resume=True)
        assert "\n" not in str(caught.value)
    (out / CHECKPOINT).write_bytes(good)
    assert fit(out, resume=True).result["epochs"] == 3


def test_a_flipped_bit_is_found_wherever_it_is(tmp_path):
    path = tmp_path / "run" / CHECKPOINT
    fit(tmp_path / "run", epochs=1)
    good, rng = path.read_bytes(), np.random.default_rng(0)
    header = 8 + int.from_bytes(good[:8], "little")
    places = [*range(20), *rng.choice(header, 1000, replace=False), *rng.integers(header, len(good), 100)]
    flips = [(at, 1 << int(rng.integers(8))) for at in places]
    for at, bit in [(good.index(b'"format":"1"') + 10, 1), *flips]:
        bad = bytearray(good)
        bad[at] ^= bit
        path.write_bytes(bad)
        with pytest.raises(ValueError, match=r"checkpoint\.safetensors (is not a whole|is damaged|has checkpoint f)"):
            checkpoint.load(path)


def test_every_setting_that_differs_is_named(tmp_path):
    out = tmp_path / "run"
    fit(out, epochs=1, rates={"linear1.*": 0.5}, accumulate=2, average=0.9)
    with pytest.raises(ValueError) as caught:
        fit(out, resume=True, seed=6, average=0.99, early_stopping=EarlyStopping(3), normalization="pixel",
            loss="huber", schedule=schedules.constant(0.1), model=model(seed=4))
    text = str(caught.value)
    assert text.startswith("--resume: the settings are not the run's: ") and "\n" not in text
    for part in ("accumulate was 2, now 1", "average was 0.9, now 0.99", "loss.name was softmax_cross_entropy, now hub",
                 "early_stopping was None, now {'patience': 3, ", "model.seed was 3, now 4", "seed was 5, now 6",
                 "normalization was channel, now pixel", "rates.linear1.* was 0.5, now None",
                 "schedule.name was triangular, now constant"):
        assert part in text


# --- schedules that watch the run, or are one's own ---

@pytest.mark.parametrize("stops", [[], [4], [5], [6, 10], [2, 3, 4, 13]], ids=str)
def test_a_plateau_survives_a_restart(stops, script, tmp_path, drawn):
    losses, rates = [3, 2, 2.5, 2.4, 1.9, 2], [0.04, 0.04, 0.04, 0.02, 0.01, 0.01]

    def settings():
        return {"epochs": 6, "schedule": schedules.reduce_on_plateau(0.04, factor=0.5, patience=0)}

    script(losses)
    undisturbed = fit(tmp_path / "whole", Hooked(), **settings())
    assert [line["lr"] for line in undisturbed.history] == rates
    if stops:
        script(losses)
        parts = in_parts(tmp_path / "parts", stops, settings)
        assert bits(parts.model.state()) == bits(undisturbed.model.state())
        assert saved(tmp_path / "parts") == saved(tmp_path / "whole")
        assert (metadata(tmp_path / "parts")["schedule"] == metadata(tmp_path / "whole")["schedule"]
                == {"lr": 0.005, "best": 1.9, "bad_epochs": 0})
    for found in drawn:
        assert found == [rate for rate in rates for _ in range(3)]


def test_a_schedule_of_ones_own_is_drawn_by_its_epochs(tmp_path, drawn):
    fit(tmp_path / "run", schedule=Schedule("mine", {"lr": 0.1}, lambda t: 0.1 / (t + 1)))
    assert drawn[0] == [0.1 / last for last in (3, 6, 9) for _ in range(3)]


# --- the first loss ---

def first_line(capsys, **settings):
    fit(verbose=True, epochs=1, **settings)
    return next(line for line in capsys.readouterr().out.splitlines() if not line.startswith("compiling"))


@pytest.mark.parametrize("init", ["lecun_normal", "torch_default", "glorot_uniform", "normal:0.01"])
def test_the_first_loss_is_near_that_of_a_guess(init, capsys):
    line = first_line(capsys, model=fn.Sequential([fn.Linear(192, 16, init=init), fn.ReLU(),
                                                   fn.Linear(16, 10, init=init)]))
    loss = float(line.removeprefix("first loss ").partition(",")[0])
    assert line == f"first loss {loss:.3f}, ln(classes) = 2.303" and abs(loss - math.log(10)) < 1


def test_a_first_loss_far_from_it_comes_with_advice(capsys):
    line = first_line(capsys, schedule=schedules.constant(1e-6), model=fn.Sequential(
        [fn.Linear(192, 10, init="normal:2")]))
    assert line.endswith(", ln(classes) = 2.303: far apart; are the images normalised and the weights drawn on the "
                         "right scale?") and float(line.split()[2].rstrip(",")) > 5


def test_other_losses_have_no_such_line_nor_does_a_resumed_run(tmp_path, capsys):
    assert first_line(capsys, loss="mean_squared_error").startswith("epoch 1/1")
    with pytest.raises(KeyboardInterrupt):
        fit(tmp_path / "run", schedule=interrupting(4), verbose=True)
    first = json.dumps(metadata(tmp_path / "run")["first_loss"])
    capsys.readouterr()
    fit(tmp_path / "run", model=scribbled(), resume=True, verbose=True)
    out = capsys.readouterr().out
    assert out.startswith("resumed at step 5 (epoch 2)\nepoch 2/3") and "first loss" not in out
    assert json.dumps(json.loads((tmp_path / "run" / "result.json").read_text())["first_loss"]) == first


# --- threads ---

def test_the_number_of_threads_may_change_between_restarts(tmp_path):
    numba = pytest.importorskip("numba")
    most = numba.config.NUMBA_NUM_THREADS
    if most < 2:
        pytest.skip("one core: there is nothing to compare")
    data = dataset(600, 100, 100, (32, 32, 3))

    def train(out, threads, stop=None, resume=False):
        net = fn.build("mlp3-bn", seed=1)
        if resume:
            net.load_state({name: np.full_like(value, 7) for name, value in net.state().items()})
        numba.set_num_threads(threads)
        try:
            return fit(tmp_path / out, Hooked({stop: ctrl_c}), model=net, data=data, epochs=2, batch_size=256,
                       average=0.9, normalization="pixel", resume=resume)
        finally:
            numba.set_num_threads(most)

    for threads in (1, 2):
        train(str(threads), threads)
    for number, threads in enumerate((1, 2, 1)):
        with pytest.raises(KeyboardInterrupt):
            train("mixed", threads, number, number > 0)
    train("mixed", 2, resume=True)
    assert saved(tmp_path / "1") == saved(tmp_path / "2") == saved(tmp_path / "mixed")


def test_nothing_of_a_run_is_left_in_the_samples():
    """The data set and its images are the caller's."""
    data = dataset()
    before = data.train.images.tobytes(), data.train.labels.tobytes()
    fit(data=data, average=0.9, early_stopping=EarlyStopping(5))
    assert (data.train.images.tobytes(), data.train.labels.tobytes()) == before
    assert len(split(0)) == 0
