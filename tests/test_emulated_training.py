"""Whole runs with the CUDA kernels, on the emulator, against the reference in float64."""

import numpy as np
import pytest
from tiny import dataset, interrupting

import fastnet as fn
from fastnet import backend, plots
from fastnet.arrays import to_numpy
from fastnet.data import Augmentation
from fastnet.optim import schedules
from fastnet.train import loop

# What has a kernel in Numba-CUDA alone, which the emulator does not run: the reference does it, on the device's arrays.
WITHOUT_KERNEL = {"standardize_batch"}


pytestmark = pytest.mark.usefixtures("emulated_device")


@pytest.fixture(autouse=True)
def no_figures(monkeypatch):
    """They take longer than these runs."""
    monkeypatch.setattr(plots, "training_curves", lambda history, rates, path, *, title: path.write_bytes(b"figure"))


def resnet(device, dtype="float32"):
    """Two residual blocks, the second wide enough for tensor cores, with the same weights in every type."""
    def make(dtype, device):
        down = fn.Sequential([fn.Conv2d(8, 64, 1, 2, bias=False), fn.BatchNorm(64)])
        return fn.Sequential([
            fn.Conv2d(3, 8, 3, pad=1, bias=False), fn.BatchNorm(8), fn.ReLU(), fn.MaxPool2d(2),
            block(8, 8), block(8, 64, 2, down), fn.GlobalAvgPool(), fn.Linear(64, 10),
        ], seed=1, dtype=dtype, device=device)

    def block(inputs, outputs, stride=1, shortcut=None):
        return fn.Residual([
            fn.Conv2d(inputs, outputs, 3, stride, 1, bias=False), fn.BatchNorm(outputs), fn.ReLU(),
            fn.Conv2d(outputs, outputs, 3, pad=1, bias=False), fn.BatchNorm(outputs)], shortcut, fn.ReLU())

    model = make(dtype, device)
    model.load_state(make("float32", "cpu").state())
    return model


@pytest.fixture
def run(monkeypatch):
    """run(device, dtype, ...) -> (the run, the loss of every step, {(op, implementation) of all that was run})."""
    losses, used, pair = [], set(), backend.pair

    class Noted(fn.TrainStep):
        def __call__(self, *arguments):
            value = super().__call__(*arguments)
            losses.append(float(value))
            return value

    def noted(name, *arrays, **options):
        chosen = pair(name, *arrays, **options)
        if backend._library(name, arrays) == "emulated":
            used.add((name, chosen.__name__.split(".")[-2]))
        return chosen

    monkeypatch.setattr(loop, "TrainStep", Noted)
    monkeypatch.setattr(backend, "pair", noted)

    def fit(device, dtype="float32", schedule=None, **options):
        losses.clear()
        used.clear()
        settings = {"epochs": 2, "batch_size": 10, "penalty": fn.L2(1e-3), "seed": 5, "verbose": False, "graph": False,
                    "augmentation": Augmentation(pad=1, horizontal_flip=True)}
        found = fn.fit(resnet(device, dtype), dataset(40, 10, 10), fn.SGD(momentum=0.9),
                       schedule or schedules.constant(0.01), **(settings | options))
        return found, np.array(losses), set(used)

    return fit


def vector(model):
    """All parameters, without the padding between them, which depends on the type."""
    return np.concatenate([to_numpy(value).ravel() for value in model.parameters().values()]).astype(np.float64)


# Measured: 8e-8 and 1.3e-3 of a loss, and of the way that the weights went 5e-6 and 7e-2.
@pytest.mark.parametrize(("dtype", "loss_limit", "weight_limit"), [("float32", 5e-7, 3e-5), ("bfloat16", 5e-3, 0.2)])
def test_a_run_follows_the_reference_in_float64(dtype, loss_limit, weight_limit, run):
    if dtype == "bfloat16":
        pytest.importorskip("ml_dtypes")
    with backend.use("reference"):
        right, expected, _ = run("cpu", "float64")
    found, losses, used = run("emulated", dtype)
    np.testing.assert_allclose(losses, expected, rtol=loss_limit)
    start, end = (vector(model) for model in (resnet("cpu"), right.model))
    assert np.linalg.norm(end - start) > 0.01 * np.linalg.norm(start)
    assert np.linalg.norm(vector(found.model) - end) < weight_limit * np.linalg.norm(end - start)
    fallen_back = {name for name, implementation in used if implementation != "cuda"}
    assert fallen_back == WITHOUT_KERNEL and len(used) > 2 * len(WITHOUT_KERNEL)
    _, again, _ = run("emulated", dtype, epochs=1)
    np.testing.assert_array_equal(again, losses[: len(again)])


def test_a_run_of_graphs_follows_the_reference_in_float64(run):
    """It reads the images where they lie, has its head in one op and its update judged on the device."""
    with backend.use("reference"):
        right, *_ = run("cpu", "float64")
    plain, _, _ = run("emulated")
    found, called, used = run("emulated", graph=True)
    assert {(name, "cuda") for name in ("augment_conv2d", "pooled_softmax_cross_entropy", "judge_step")} < used
    assert not called.size and ("augment_batch", "cuda") not in used
    for name in ("train_loss", "train_accuracy", "validation_loss"):
        figures = [[line[name] for line in of.history] for of in (found, plain, right)]
        assert figures[0] == figures[1]
        np.testing.assert_allclose(figures[0], figures[2], rtol=1e-6)
    np.testing.assert_array_equal(vector(found.model), vector(plain.model))
    start, end = (vector(model) for model in (resnet("cpu"), right.model))
    assert np.linalg.norm(vector(found.model) - end) < 3e-5 * np.linalg.norm(end - start)


def test_a_run_goes_on_on_the_cpu(run, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        run("emulated", schedule=interrupting(5), out=tmp_path / "run")
    with backend.use("reference"):
        whole, expected, _ = run("cpu", schedule=interrupting())
        rest, losses, _ = run("cpu", schedule=interrupting(), out=tmp_path / "run", resume=True)
    np.testing.assert_allclose(losses, expected[6:], rtol=1e-5)
    np.testing.assert_allclose(vector(rest.model), vector(whole.model), atol=1e-5)
