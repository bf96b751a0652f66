"""Steps, the loop, its record on disk, and runs that end with the bits of undisturbed ones."""

import contextlib
import dataclasses
import io
import json
import os
import signal
import threading
from importlib import metadata
from pathlib import Path

import matplotlib.figure
import matplotlib.image
import numpy as np
import pytest
from tiny import BATCH, bits, dataset, files, fit, interrupting, model, saved, scribbled, split, untimed

import fastnet as fn
from fastnet import backend, plots
from fastnet.data import Batches, Standardization
from fastnet.optim import schedules
from fastnet.optim.schedules import Schedule
from fastnet.train import checkpoint, record
from fastnet.train.curves import draw_curves

DRAW = plots.training_curves
FILES = {"config.json", "history.jsonl", "checkpoint.safetensors", "curves.png", "result.json",
         "model.safetensors"}


@pytest.fixture(autouse=True)
def quick_curves(monkeypatch):
    """A figure takes longer than these runs; the tests of figures draw theirs with DRAW."""
    monkeypatch.setattr(plots, "training_curves", lambda history, rates, path, *, title: path.write_bytes(b"figure"))


def batch(n=6, seed=0):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n, 4)), np.arange(n) % 3


# --- one step ---

def test_a_step_is_gradient_descent_by_hand():
    net = fn.Sequential([fn.Linear(4, 3)], dtype="float64")
    x, labels = batch()
    loss, gradients = fn.loss_and_gradients(net, x, labels)
    before, logits = net.state(), net.predict(x)
    step = fn.TrainStep(net, fn.SGD(lr=0.5), penalty=fn.WeightDecay(0.1))
    assert step.penalty_value() == pytest.approx(0.05 * (before["linear1.w"] ** 2).sum(), rel=1e-13)
    assert step(x, labels) == loss  # before the update, without the penalty
    np.testing.assert_array_equal(step.logits, logits)
    w, b = before["linear1.w"], before["linear1.b"]
    np.testing.assert_allclose(net.parameters()["linear1.w"], w - 0.5 * (gradients["linear1.w"] + 0.1 * w), rtol=1e-12)
    np.testing.assert_allclose(net.parameters()["linear1.b"], b - 0.5 * gradients["linear1.b"], rtol=1e-12)
    assert step.count == 1 and fn.TrainStep(net, fn.SGD(lr=0.5)).penalty_value() == 0


def test_update_t_uses_the_rate_of_t():
    net = fn.Sequential([fn.Linear(4, 3)], dtype="float64")
    asked = []
    step = fn.TrainStep(net, fn.SGD(lr=99.0), Schedule("halves", {}, lambda t: asked.append(t) or 0.5**t))
    for count in range(3):
        assert step.count == count
        before = net.state()
        _, gradients = fn.loss_and_gradients(net, *batch())
        step(*batch())
        np.testing.assert_allclose(net.parameters()["linear1.b"],
                                   before["linear1.b"] - 0.5**count * gradients["linear1.b"], rtol=1e-12)
    assert asked == [0, 1, 2]


def test_a_step_needs_a_rate():
    with pytest.raises(ValueError, match=r"TrainStep: no learning rate; give one to the optimizer \(SGD\(lr=0\.1\)\)"):
        fn.TrainStep(model(), fn.SGD(momentum=0.9))
    assert fn.TrainStep(model(), fn.Adam()).schedule(7) == 1e-3


@pytest.mark.parametrize(("loss", "options", "kind", "message"), [
    ("hinge", {}, ValueError, "loss 'hinge' is not known; choose from softmax_cross_entropy, "),
    ("huber", {"label_smoothing": 0.1}, TypeError, "huber: option 'label_smoothing' is not known; choose from delta, "),
    ("softmax_cross_entropy", {"label_smoothing": 2}, ValueError, "label_smoothing"),
])
def test_a_loss_and_its_options_are_looked_at_before_anything_else(loss, options, kind, message, tmp_path):
    with pytest.raises(kind, match=message):
        fn.TrainStep(model(), fn.SGD(0.1), loss=loss, loss_options=options)
    with pytest.raises(kind, match=message):
        fit(tmp_path / "run", loss=loss, loss_options=options)
    assert not (tmp_path / "run").exists()


def test_a_refused_batch_changes_nothing():
    net = fn.Sequential([fn.Linear(4, 5), fn.BatchNorm(5), fn.Linear(5, 3)])
    step = fn.TrainStep(net, fn.SGD(lr=0.1, momentum=0.9))
    x, labels = batch()
    step(x, labels)
    before = bits(net.state()) | bits(step.state)
    for wrong, kind in (((x, labels + 1), ValueError), ((x, labels[:2]), ValueError), ((x[:, :3], labels), ValueError),
                        ((x.astype(np.uint8), labels), TypeError), ((x * np.nan, labels), FloatingPointError)):
        with pytest.raises(kind):
            step(*wrong)
        assert bits(net.state()) | bits(step.state) == before and step.count == 1


def test_a_loss_that_is_not_finite_says_where_it_began():
    net = fn.Sequential([fn.Linear(4, 5), fn.Linear(5, 3)])
    step = fn.TrainStep(net, fn.SGD(lr=0.1))
    x, labels = batch()
    x[2, 1] = np.inf
    with pytest.raises(FloatingPointError, match=r"step 0: the input x is not finite, inf at \[2, 1\]") as caught:
        step(x, labels)
    assert caught.value.step == 0 and caught.value.labels is labels and list(caught.value.samples) == list(range(6))
    net.parameters()["linear2.w"][4, 1] = np.nan
    with pytest.raises(FloatingPointError, match=r"parameter linear2\.w is not finite, nan at \[4, 1\], 1 of 15"):
        step(*batch())


def test_a_batch_in_pieces_has_the_gradient_of_the_whole():
    states = []
    for pieces in (1, 3):
        net = fn.Sequential([fn.Linear(4, 5), fn.Tanh(), fn.Dropout(0.2), fn.Linear(5, 3)], dtype="float64")
        step = fn.TrainStep(net, fn.SGD(lr=0.1), accumulate=pieces)
        losses = [float(step(*batch(7, seed))) for seed in range(3)]
        states.append({"losses": np.array(losses), "logits": step.logits, **net.state()})
    for name, value in states[0].items():
        np.testing.assert_allclose(states[1][name], value, rtol=1e-12, atol=1e-15, err_msg=name)
    with pytest.raises(ValueError, match="a batch of 2 cannot be divided into 3 parts"):
        step(*batch(2))
    with pytest.raises(ValueError, match="TrainStep: accumulate must be at least 1 but is 0"):
        fn.TrainStep(net, fn.SGD(lr=0.1), accumulate=0)


def test_dropout_of_a_step_is_keyed_by_samples_and_epoch():
    def loss(**keys):
        net = fn.Sequential([fn.Dropout(0.5), fn.Linear(50, 3)], seed=1)
        step = fn.TrainStep(net, fn.SGD(lr=0.1), seed=2)
        x = np.random.default_rng(0).normal(size=(6, 50))
        return [float(step(x, np.zeros(6, int), **keys)) for _ in range(2)]
    assert loss() == loss(samples=np.arange(6)) != loss(samples=np.arange(6)[::-1])
    assert loss(epoch=0)[0] == loss()[0] and loss(epoch=1)[0] != loss()[0]
    # Without an epoch the count of steps tells the masks of two steps apart.
    assert loss(epoch=0)[1] != loss()[1]


# --- the loop ---

def test_the_record_says_what_it_defines(tmp_path):
    run = fit(tmp_path / "run", epochs=2)
    net, data = model(), dataset()
    standardization = Standardization.fit(data.train.images, "channel")
    batches = Batches(data.train, standardization, BATCH, seed=5)
    schedule = schedules.triangular(1e-3, 0.05, half_cycle_steps=4)
    step = fn.TrainStep(net, fn.SGD(momentum=0.9), schedule, penalty=fn.L2(0.01), seed=5)
    for epoch, line in enumerate(run.history):
        losses, right = [], 0
        for x, labels, samples in batches.epoch(epoch):
            losses += [float(step(x, labels, samples, epoch))] * len(labels)
            right += (step.logits.argmax(axis=1) == labels).sum()
        penalty = 0.01 * sum((w.astype(float) ** 2).sum() for n, w in net.parameters().items() if n.endswith(".w"))
        found = fn.evaluate(net, data.validation, standardization)
        expected = {"epoch": epoch + 1, "step": 3 * (epoch + 1), "lr": schedule(3 * epoch + 2),
                    "train_loss": np.mean(losses), "train_cost": np.mean(losses) + penalty,
                    "train_accuracy": right / 60, "penalty": penalty, "validation_loss": found.loss,
                    "validation_cost": found.loss + penalty, "validation_accuracy": found.accuracy}
        if epoch == 1:
            found = fn.evaluate(net, data.test, standardization)
            expected |= {"test_loss": found.loss, "test_accuracy": found.accuracy}
        assert untimed([line])[0] == pytest.approx(expected, rel=1e-12)
        assert line["seconds"] > 0 and line["evaluation_seconds"] > 0
    assert bits(run.model.state()) == bits(net.state())
    np.testing.assert_array_equal(run.standardization.mean, standardization.mean)


def test_files_of_a_run(tmp_path):
    out = tmp_path / "runs" / "a"
    run = fit(out)
    assert files(out) == FILES
    assert run.out == out
    assert [json.loads(line) for line in (out / "history.jsonl").read_text().splitlines()] == run.history
    result = json.loads((out / "result.json").read_text())
    assert result == run.result
    last = run.history[-1]
    assert {key: result[key] for key in ("model", "parameters", "epochs", "steps", "seed", "test_accuracy", "test_loss",
                                         "train_loss", "validation_accuracy")} == {
        "model": "custom", "parameters": 192 * 16 + 16 * 3 + 160 + 10, "epochs": 3, "steps": 9, "seed": 5,
        "test_accuracy": last["test_accuracy"], "test_loss": last["test_loss"], "train_loss": last["train_loss"],
        "validation_accuracy": last["validation_accuracy"]}
    assert 0 <= result["test_accuracy"] <= 1
    assert result["seconds"] >= result["train_seconds"] > 0
    assert result["data"] == dataset().identity and set(result["versions"]) >= {"fastnet", "numpy", "numba", "python"}
    config = json.loads((out / "config.json").read_text())
    assert config["optimizer"] == {"name": "sgd", "lr": None, "momentum": 0.9, "nesterov": False}
    assert config["schedule"] == {"name": "triangular", "settings": {"lr_min": 1e-3, "lr_max": 0.05,
                                                                     "half_cycle_steps": 4}}
    assert config["penalty"] == {"name": "L2", "decay": 0.02}
    assert config["model"]["layers"][0] == "linear1: Linear(in_features=192, out_features=16, bias=True)"
    arrays, saved = checkpoint.load(out / "checkpoint.safetensors")
    assert saved["config"] == config and saved["step"] == 9
    assert {name.partition("/")[0] for name in arrays} == {"model", "optimizer.velocity"}
    assert bits({n.removeprefix("model/"): a for n, a in arrays.items() if n.startswith("model/")}) == bits(
        run.model.state())


def test_a_run_without_a_directory_writes_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run = fit(epochs=1)
    assert run.out is None and run.result["test_accuracy"] == run.history[-1]["test_accuracy"]
    assert list(tmp_path.iterdir()) == []


def test_a_run_without_validation_images_or_penalty(tmp_path):
    run = fit(tmp_path / "run", epochs=1, data=dataset(validation=0), penalty=None)
    assert set(run.history[0]) == {"epoch", "step", "lr", "train_loss", "train_cost", "train_accuracy", "penalty",
                                   "seconds", "test_loss", "test_accuracy"}
    assert run.history[0]["penalty"] == 0 and run.result["validation_accuracy"] is None
    assert (tmp_path / "run" / "curves.png").exists()
    assert json.loads((tmp_path / "run" / "config.json").read_text())["penalty"] is None


def test_training_learns_something():
    run = fit(epochs=10, data=dataset(200), schedule=schedules.constant(0.02), penalty=None)
    assert run.history[-1]["train_loss"] < 0.5 * run.history[0]["train_loss"]
    assert run.history[-1]["train_accuracy"] > 0.7 and run.result["test_accuracy"] > 0.7


def test_the_seed_fixes_every_bit():
    first, second, other = fit(), fit(), fit(seed=6)
    assert bits(first.model.state()) == bits(second.model.state()) != bits(other.model.state())
    assert untimed(first.history) == untimed(second.history)


def test_the_bits_do_not_depend_on_the_number_of_threads():
    numba = pytest.importorskip("numba")
    most = numba.config.NUMBA_NUM_THREADS
    if most < 2:
        pytest.skip("one core: there is nothing to compare")
    found = []
    for threads in (1, 2):
        numba.set_num_threads(threads)
        try:
            net = fn.build("mlp3-bn", seed=1)
            data = dataset(600, 100, 100, (32, 32, 3))
            run = fit(model=net, data=data, epochs=1, batch_size=256, optimizer=fn.Adam(), normalization="pixel")
        finally:
            numba.set_num_threads(most)
        found.append((bits(net.state()), untimed(run.history)))
    assert found[0] == found[1]


def test_other_losses_and_types():
    loss = {"loss": "mean_squared_error", "loss_options": {"reduction": "sample_mean"}}
    run = fit(epochs=1, model=model(dtype="float64"), **loss)
    assert all(value.dtype == np.float64 for value in run.model.state().values())
    found = fn.evaluate(run.model, dataset().test, run.standardization, **loss)
    assert run.result["test_loss"] == pytest.approx(found.loss, rel=1e-12)


# --- evaluation ---

def test_evaluate_by_hand():
    net, part = model(dtype="float64"), split(1203, seed=9)  # three batches, the last one smaller
    standardization = Standardization.fit(part.images, "channel")
    found = fn.evaluate(net, part, standardization)
    logits = net.predict(standardization.apply(part.images, "float64"))
    p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    assert found.loss == pytest.approx(-np.log(p[np.arange(1203), part.labels]).mean(), rel=1e-12)
    np.testing.assert_array_equal(found.predictions, logits.argmax(axis=1))
    assert found.accuracy == (logits.argmax(axis=1) == part.labels).mean()


def test_evaluate_refuses_what_has_no_mean():
    standardization = Standardization.fit(split(5).images, "channel")
    with pytest.raises(ValueError, match="evaluate: the split holds no images"):
        fn.evaluate(model(), split(0), standardization)
    with pytest.raises(ValueError, match="loss 'x' is not known"):
        fn.evaluate(model(), split(5), standardization, loss="x")


# --- what a person sees ---

def test_nothing_is_printed_unless_asked_for(capsys):
    fit()
    assert capsys.readouterr() == ("", "")


def test_a_line_an_epoch(capsys):
    run = fit(verbose=True)
    out, err = capsys.readouterr()
    line, number = run.history[1], "epoch 2/3  lr {lr:.2e}  train loss {train_loss:.4f} acc {train:5.2f} %  val loss "
    assert out.splitlines()[2] == (number.format(**line, train=100 * line["train_accuracy"])
                                   + "{:.4f} acc {:5.2f} %  {:.2f} s".format(
                                       line["validation_loss"], 100 * line["validation_accuracy"], line["seconds"]))
    assert out.startswith("first loss ") and len(out.splitlines()) == 4 and err == ""


def test_a_line_without_validation_says_nothing_of_it(capsys):
    fit(verbose=True, epochs=1, data=dataset(validation=0))
    assert "val" not in capsys.readouterr().out


def test_the_wait_for_the_compiler_is_announced_once(capsys, monkeypatch):
    @contextlib.contextmanager
    def two_kernels(callback):
        callback("_forward")
        callback("_backward")
        yield

    monkeypatch.setattr(backend, "on_compilation", two_kernels)
    fit(verbose=True, epochs=1)
    assert capsys.readouterr().out.count("compiling kernels") == 1


def test_a_terminal_shows_a_bar(monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    terminal = Terminal()
    monkeypatch.setattr("sys.stdout", terminal)
    monkeypatch.setattr("time.monotonic", iter(range(10**6)).__next__)  # every step is late enough to be shown
    fit(verbose=True, epochs=2, checkpoint_seconds=1e9)
    shown = terminal.getvalue()
    assert "6/6" in shown and "step/s" in shown and "custom" not in shown.partition("model")[0]
    assert "loss " in shown and "epoch 1/2  lr " in shown and "epoch 2/2  lr " in shown


# --- interrupted and resumed ---

@pytest.mark.parametrize("stops", [[4], [0], [2], [5], [3, 4], [1, 6], [2, 5]], ids=str)
@pytest.mark.parametrize("optimizer", [fn.SGD(momentum=0.9), fn.Adam()], ids=lambda o: o.name)
def test_a_resumed_run_ends_with_the_bits_of_an_undisturbed_one(stops, optimizer, tmp_path):
    whole = fit(tmp_path / "whole", optimizer)
    out, handler = tmp_path / "parts", signal.getsignal(signal.SIGINT)
    for number, stop in enumerate(stops):
        net = scribbled() if number else model()
        with pytest.raises(KeyboardInterrupt):
            fit(out, optimizer, interrupting(stop), model=net, resume=number > 0)
        assert checkpoint.load(out / "checkpoint.safetensors")[1]["step"] == stop + 1
        assert not (out / "result.json").exists()
        assert signal.getsignal(signal.SIGINT) is handler
    resumed = fit(out, optimizer, model=scribbled(), resume=True)
    assert bits(resumed.model.state()) == bits(whole.model.state())
    assert untimed(resumed.history) == untimed(whole.history)
    assert saved(out) == saved(tmp_path / "whole")
    assert files(out) == FILES


def test_ctrl_c_in_the_last_update_ends_the_run_as_usual(tmp_path):
    fit(tmp_path / "whole")
    fit(tmp_path / "late", schedule=interrupting(8))
    assert saved(tmp_path / "late") == saved(tmp_path / "whole")


def test_ctrl_c_twice_stops_at_once_and_the_last_checkpoint_stays(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        fit(tmp_path / "run", schedule=interrupting(4, times=2), checkpoint_seconds=0)
    assert checkpoint.load(tmp_path / "run" / "checkpoint.safetensors")[1]["step"] == 4
    fit(tmp_path / "run", model=scribbled(), resume=True)
    fit(tmp_path / "whole")
    assert saved(tmp_path / "run") == saved(tmp_path / "whole")


def test_ctrl_c_without_a_directory():
    with pytest.raises(KeyboardInterrupt):
        fit(schedule=interrupting(4))


def test_checkpoints_are_written_inside_an_epoch_when_it_is_time(tmp_path, monkeypatch):
    steps, save = [], checkpoint.save
    monkeypatch.setattr(checkpoint, "save", lambda path, arrays, meta: (steps.append(meta.get("step")),
                                                                        save(path, arrays, meta)))
    fit(tmp_path / "often", epochs=2, checkpoint_seconds=0)
    fit(tmp_path / "seldom", epochs=2, checkpoint_seconds=1e9)
    assert steps == [1, 2, 3, 4, 5, 6, None, 3, 6, None]  # the last is the final model


def test_a_finished_run_goes_on_with_more_epochs(tmp_path):
    fit(tmp_path / "whole", epochs=5)
    fit(tmp_path / "parts", epochs=2)
    longer = fit(tmp_path / "parts", epochs=5, model=scribbled(), resume=True)
    parts, whole = saved(tmp_path / "parts"), saved(tmp_path / "whole")
    assert parts[0] == whole[0] and parts[4:] == whole[4:]
    assert longer.history[1].keys() - {"test_loss", "test_accuracy"} == longer.history[0].keys()  # named where tested


def test_resuming_a_finished_run_changes_nothing(tmp_path, capsys):
    fit(tmp_path / "run")
    before = saved(tmp_path / "run")
    run = fit(tmp_path / "run", model=scribbled(), resume=True, verbose=True)
    assert saved(tmp_path / "run") == before
    assert run.result["test_accuracy"] == before[4]["test_accuracy"]
    assert "resumed at step 9" in capsys.readouterr().out


def test_a_run_may_be_resumed_to_end_where_it_was_stopped(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        fit(tmp_path / "run", schedule=interrupting(5))  # the end of the second epoch
    run = fit(tmp_path / "run", epochs=2, model=scribbled(), resume=True)
    assert run.result["test_accuracy"] == fit(epochs=2).result["test_accuracy"]
    assert run.result["epochs"] == 2


def test_a_run_cannot_be_resumed_to_end_before_it_was_stopped(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        fit(tmp_path / "run", schedule=interrupting(4))
    with pytest.raises(ValueError, match="--resume: 5 steps are done, more than the 3 of 1 epochs"):
        fit(tmp_path / "run", epochs=1, resume=True)


def test_resume_names_the_settings_that_differ(tmp_path):
    fit(tmp_path / "run", epochs=1)
    before = (tmp_path / "run" / "config.json").read_bytes()
    with pytest.raises(ValueError) as caught:
        fit(tmp_path / "run", fn.SGD(momentum=0.5), resume=True, batch_size=20, penalty=None)
    assert str(caught.value) == ("--resume: the settings are not the run's: batch_size was 25, now 20; "
                                 "optimizer.momentum was 0.9, now 0.5; penalty was {'name': 'L2', 'decay': 0.02}, "
                                 "now None")
    assert (tmp_path / "run" / "config.json").read_bytes() == before


def test_resume_needs_a_checkpoint(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"--resume: there is no checkpoint.safetensors in .*absent"):
        fit(tmp_path / "absent", resume=True)
    assert not (tmp_path / "absent").exists()
    with pytest.raises(ValueError, match=r"fit: resume needs the run directory \(out\)"):
        fit(resume=True)


def test_a_run_in_another_thread_leaves_signals_alone(tmp_path):
    found, handler = [], signal.getsignal(signal.SIGINT)
    thread = threading.Thread(target=lambda: found.append(fit(tmp_path / "run", epochs=1)))
    thread.start()
    thread.join()
    assert found[0].result["epochs"] == 1 and signal.getsignal(signal.SIGINT) is handler


# --- directories that cannot be used ---

def test_a_directory_that_holds_files_is_left_alone(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(FileExistsError, match="holds files already; name another --out, or continue its run with"):
        fit(tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["notes.txt"] and (tmp_path / "notes.txt").read_text() == "mine"


def test_a_finished_run_is_not_overwritten(tmp_path):
    fit(tmp_path / "run", epochs=1)
    before = {p.name: p.read_bytes() for p in (tmp_path / "run").iterdir()}
    with pytest.raises(FileExistsError):
        fit(tmp_path / "run", epochs=2)
    assert {p.name: p.read_bytes() for p in (tmp_path / "run").iterdir()} == before


@pytest.mark.parametrize("place", ["file", "file/below"])
def test_a_directory_that_cannot_be_made(tmp_path, place):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(OSError, match=r"the output folder .* cannot be written \((File exists|Not a directory)\)"):
        fit(tmp_path / place)
    assert (tmp_path / "file").read_text() == "mine"


# --- bad arguments, before anything is written ---

def relabelled(part, label):
    labels = part.labels.copy()
    labels[3] = label
    return dataclasses.replace(part, labels=labels)


@pytest.mark.parametrize(("changed", "kind", "message"), [
    ({"epochs": 0}, ValueError, "fit: epochs must be at least 1 but is 0"),
    ({"batch_size": 61}, ValueError, "batch size 61 is larger than the 60 training images"),
    ({"batch_size": 0}, ValueError, "batch size 0 is not at least 1"),
    ({"model": fn.build("mlp2")}, ValueError, "192 features a sample, but the layer takes 3072"),
    ({"normalization": "image"}, ValueError, "'image' does not exist; choose from pixel, channel"),
    ({"optimizer": fn.SGD(), "schedule": None, "bare": True}, ValueError, "no learning rate"),
    ({"data": {"train": relabelled(split(60), 10)}}, ValueError,
     r"fit: the training labels are 0\.\.10, but the model has 10 classes, so they must be in 0\.\.9"),
    ({"data": {"validation": relabelled(split(20), -1)}}, ValueError, r"the validation labels are -1\.\.9"),
    ({"data": {"test": relabelled(split(20), 10)}}, ValueError, r"the test labels are 0\.\.10"),
    ({"data": {"test": split(20, shape=(4, 4, 3))}}, ValueError, "48 features a sample"),
    ({"data": {"test": split(0)}}, ValueError, "fit: there are no test images"),
    ({"data": {"train": split(0)}}, ValueError, "fit: there are no training images"),
])
def test_bad_arguments_are_found_before_anything_is_written(tmp_path, changed, kind, message):
    changed = dict(changed)
    if isinstance(changed.get("data"), dict):
        changed["data"] = dataclasses.replace(dataset(), **changed["data"])
    with pytest.raises(kind, match=message):
        if changed.pop("bare", False):
            fn.fit(model(), dataset(), fn.SGD(), epochs=1, out=tmp_path / "run", verbose=False)
        else:
            fit(tmp_path / "run", **changed)
    assert list(tmp_path.iterdir()) == []


def test_a_loss_that_is_not_finite_names_its_step(tmp_path):
    net = fn.Sequential([fn.Linear(192, 10), ("bad", Exploding(4)), fn.Linear(10, 10)])
    with pytest.raises(FloatingPointError, match=r"at step 4.* output of bad \(Exploding\) is .* nan at \[1, 2\]"):
        fit(tmp_path / "run", model=net)
    assert checkpoint.load(tmp_path / "run" / "checkpoint.safetensors")[1]["step"] == 3  # of the first epoch


class Exploding(fn.ReLU):
    """Its output is not finite from training pass number `at` on."""

    def __init__(self, at):
        super().__init__()
        self.left = at

    def __call__(self, x, context):
        y, back = super().__call__(x, context)
        if context.training:
            self.left -= 1
            if self.left < 0:
                y[1, 2] = np.nan
        return y, back


# --- checkpoints ---

def tampered(out, change):
    """Rewrite the checkpoint of a run with `change(arrays, metadata)` done to it."""
    arrays, meta = checkpoint.load(out / "checkpoint.safetensors")
    change(arrays, meta)
    checkpoint.save(out / "checkpoint.safetensors", arrays, meta)


@pytest.mark.parametrize(("change", "message"), [
    (lambda a, m: a.pop("model/linear1.w"), "linear1.w is missing"),
    (lambda a, m: a.update({"model/linear1.w": np.zeros((2, 2), np.float32)}), "(2, 2)"),
    (lambda a, m: a.update({"model/conv1.w": np.zeros(3)}), "conv1.w"),
    (lambda a, m: a.update({"optimizer.m/linear1.w": np.zeros(3)}), "optimizer.m/linear1.w belongs to nothing"),
    (lambda a, m: a.pop("optimizer.velocity/linear1.w"), "velocity"),
    (lambda a, m: a.update({"optimizer.velocity/linear1.w": np.zeros((192, 1), np.float32)}), "velocity"),
    (lambda a, m: m.pop("step"), "checkpoint.safetensors is not a checkpoint of a run (KeyError: 'step')"),
    (lambda a, m: m.update(step="x"), "is not a checkpoint of a run (TypeError"),
    (lambda a, m: m.update(config=[]), "is not a checkpoint of a run (TypeError"),
    (lambda a, m: m.update({key: {"loss": 0, "x": 1} for key in ("epoch", "sums")}),
     "is not a checkpoint of a run (TypeError"),
])
def test_a_checkpoint_of_something_else_is_refused(tmp_path, change, message):
    fit(tmp_path / "run", epochs=1)
    tampered(tmp_path / "run", change)
    with pytest.raises(ValueError) as caught:
        fit(tmp_path / "run", resume=True)
    assert message in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("damage", [lambda c: b"", lambda c: c[:5], lambda c: c[:200], lambda c: c[:-1],
                                    lambda c: b"x" * len(c), lambda c: c[:8] + b"\xff" + c[9:]])
def test_a_damaged_checkpoint_is_refused_in_one_line(tmp_path, damage):
    path = tmp_path / "run" / "checkpoint.safetensors"
    fit(tmp_path / "run", epochs=1)
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(ValueError, match=r"checkpoint\.safetensors is not a whole fastnet checkpoint \(") as caught:
        fit(tmp_path / "run", resume=True)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("header", "message"), [
    (b"[" * 100_000, "nested too deeply"), (b"[]", "no JSON object"),
    (b" " * (checkpoint.MOST_HEADER + 1), "more than")])
def test_headers_that_are_none(header, message):
    with pytest.raises(ValueError, match=message):
        checkpoint.header_of(len(header).to_bytes(8, "little") + header)


def test_other_safetensors_files_are_no_checkpoints(tmp_path):
    import safetensors.numpy

    path = tmp_path / "other.safetensors"
    for meta, message in ((None, "is not a whole fastnet checkpoint (KeyError"),
                          ({"by": "another"}, "is not a whole fastnet checkpoint (KeyError"),
                          ({"fastnet": "{", "format": "1"}, "is not a whole fastnet checkpoint (JSONDecodeError"),
                          ({"fastnet": "[]", "format": "1"}, "its metadata is no JSON object"),
                          ({"fastnet": "{}", "format": "one"}, "is not a whole fastnet checkpoint (ValueError"),
                          ({"fastnet": "{}", "format": "2"}, "has checkpoint format 2, but this fastnet reads up")):
        safetensors.numpy.save_file({"a": np.zeros(2)}, path, meta)
        with pytest.raises(ValueError) as caught:
            checkpoint.load(path)
        assert message in str(caught.value) and str(path) in str(caught.value)


def test_checkpoints_keep_arrays_and_metadata(tmp_path):
    arrays = {"a": np.arange(6, dtype=np.float32).reshape(2, 3).T, "b": np.array(2.5), "c": np.arange(10)[::2]}
    checkpoint.save(tmp_path / "x", arrays, {"history": [{"loss": 0.1}], "none": None})
    found, meta = checkpoint.load(tmp_path / "x")
    assert meta == {"history": [{"loss": 0.1}], "none": None}
    for name, value in arrays.items():
        np.testing.assert_array_equal(found[name], value)
        assert found[name].dtype == value.dtype and found[name].shape == value.shape


@pytest.mark.parametrize("function", ["fsync", "replace"])
def test_a_file_stays_whole_when_writing_its_successor_fails(tmp_path, monkeypatch, function):
    path = tmp_path / "file"
    checkpoint.write_atomically(path, b"old")

    def full(*_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, function, full)
        with pytest.raises(OSError, match="No space left"):
            checkpoint.write_atomically(path, b"new")
    assert path.read_bytes() == b"old" and [p.name for p in tmp_path.iterdir()] == ["file"]
    checkpoint.write_atomically(path, b"new")
    assert path.read_bytes() == b"new" and [p.name for p in tmp_path.iterdir()] == ["file"]


def test_a_file_that_does_not_read_back_is_not_put_in_place(tmp_path, monkeypatch):
    path = tmp_path / "file"
    path.write_bytes(b"old")
    with monkeypatch.context() as patch:
        patch.setattr(Path, "read_bytes", lambda self: b"other")
        with pytest.raises(OSError, match="does not read back as it was written"):
            checkpoint.write_atomically(path, b"new")
    assert path.read_bytes() == b"old" and [p.name for p in tmp_path.iterdir()] == ["file"]


# --- the record and its figures ---

def test_a_record_that_cannot_be_read(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"config\.json is missing"):
        draw_curves(tmp_path)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(ValueError, match=r"config\.json is not JSON"):
        draw_curves(tmp_path)
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(FileNotFoundError, match=r"history\.jsonl is missing: .* is not a run directory, or its first"):
        draw_curves(tmp_path)
    (tmp_path / "history.jsonl").write_text('{"step": 1}\n{"st')
    with pytest.raises(ValueError, match=r"history\.jsonl is damaged"):
        draw_curves(tmp_path)
    (tmp_path / "history.jsonl").write_text("")
    with pytest.raises(ValueError, match=r"holds no whole record of a run \(KeyError: 'schedule'\)"):
        draw_curves(tmp_path)


def test_a_history_without_epochs_cannot_be_drawn(tmp_path):
    fit(tmp_path / "run", epochs=1)
    (tmp_path / "run" / "history.jsonl").write_text("")
    with pytest.raises(ValueError, match="holds no whole record of a run"):
        draw_curves(tmp_path / "run")


def test_versions_of_what_is_not_installed(monkeypatch):
    def version(name):
        if name == "numba":
            raise metadata.PackageNotFoundError
        return "1.2"

    monkeypatch.setattr(metadata, "version", version)
    assert record.versions() | {"python": ""} == {"python": "", "fastnet": "1.2", "numpy": "1.2",
                                                  "numba": "not installed", "scipy": "1.2"}


def test_curves_are_drawn_from_the_record_alone(tmp_path, monkeypatch):
    monkeypatch.setattr(plots, "training_curves", DRAW)
    fit(tmp_path / "run", epochs=2)
    copy = tmp_path / "copy"
    copy.mkdir()
    for name in ("config.json", "history.jsonl"):
        (copy / name).write_bytes((tmp_path / "run" / name).read_bytes())
    assert draw_curves(copy) == copy / "curves.png"
    content = (copy / "curves.png").read_bytes()
    assert content.startswith(b"\x89PNG\r\n\x1a\n")
    image = matplotlib.image.imread(copy / "curves.png")
    assert image.shape[:2] == (720, 1080) and image[..., :3].std() > 0.01  # something is drawn
    np.testing.assert_array_equal(image, matplotlib.image.imread(tmp_path / "run" / "curves.png"))


def test_curves_show_the_record(tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr(matplotlib.figure.Figure, "savefig", lambda figure, path: drawn.append(figure))
    history = [{"step": 10 * (e + 1), **{f"{split}_{key}": rank + e / 10 for rank, (split, key) in enumerate(
        (s, k) for s in ("train", "validation") for k in ("loss", "cost", "accuracy"))}} for e in range(3)]
    history[-1]["test_accuracy"] = 0.5
    DRAW(history, [0.1] * 30, tmp_path / "x.png", title="a title")
    loss, cost, accuracy, rate = drawn[0].axes
    assert drawn[0].get_suptitle() == "a title"
    for axis, train, validation in ((loss, [0, 0.1, 0.2], [3, 3.1, 3.2]), (cost, [1, 1.1, 1.2], [4, 4.1, 4.2]),
                                    (accuracy, [200, 210, 220], [500, 510, 520])):
        for line, expected in zip(axis.lines, (train, validation), strict=False):
            np.testing.assert_array_equal(line.get_xdata(), [10, 20, 30])
            np.testing.assert_allclose(line.get_ydata(), expected)
    assert accuracy.lines[2].get_label() == "test, final: 50.00" and accuracy.lines[2].get_ydata()[0] == 50
    assert list(rate.lines[0].get_ydata()) == [0.1] * 30 and list(rate.lines[0].get_xdata()) == list(range(30))
    assert [a.get_ylabel() for a in drawn[0].axes] == ["Loss (nats)", "Cost = loss + penalty", "Accuracy (%)",
                                                       "Learning rate"]
    DRAW([{"step": 1, "train_loss": 1, "train_cost": 1, "train_accuracy": 0.5}], [0.1], tmp_path / "x.png", title="")
    assert [len(axis.lines) for axis in drawn[1].axes] == [1, 1, 1, 1]
