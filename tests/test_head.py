"""The end of a classifier in one op with its loss: what a training step on a device has then, and when it does so."""

import contextlib
import sys

import numpy as np
import pytest
from emulator.arrays import emulated

import fastnet as fn
from fastnet import backend
from fastnet.arrays import to_numpy
from fastnet.nn.fuse import Head, fuse
from fastnet.nn.layer import Context
from fastnet.nn.losses import forward_backward

OPTIONS = {"label_smoothing": 0.1}
STEP = backend.module("cuda", "pooled_softmax_cross_entropy").step

pytestmark = pytest.mark.usefixtures("emulated_device")

ENDS = {
    "pooling, linear": lambda: [fn.GlobalAvgPool(), fn.Linear(8, 5)],
    "linear": lambda: [fn.Linear(128, 5, bias=False)],
    "dropout between": lambda: [fn.GlobalAvgPool(), fn.Dropout(0.3), fn.Linear(8, 5)],
}


@pytest.fixture
def steps(monkeypatch):
    """The calls of the op's `step`."""
    calls = []
    module = backend.module("cuda", "pooled_softmax_cross_entropy")
    monkeypatch.setattr(module, "step", lambda *a, **o: calls.append(a) or STEP(*a, **o))
    return calls


def model(end, dtype="float32", device="emulated"):
    made = fn.Sequential([fn.Conv2d(3, 8, 3, pad=1, bias=False), fn.BatchNorm(8), fn.ReLU(), *ENDS[end]()], seed=3,
                         dtype=dtype, device=device)
    fuse(made)
    return made


def passes(made, x, labels, parts=1, scale=1.0, tap=None):
    """Loss, logits and gradients of a training pass."""
    context = Context(training=True, seed=1, samples=made.accept("samples", np.arange(len(x))), tap=tap)
    loss, logits = forward_backward(made, made.prepare(x), made.accept("labels", labels), context,
                                    "softmax_cross_entropy", OPTIONS, parts, scale)
    assert loss.dtype == logits.dtype == made.store.dtype and loss.shape == ()
    return {"loss": to_numpy(loss), "logits": to_numpy(logits),
            **{name: to_numpy(g).copy() for name, g in made.gradients().items()}}


def batch(n=6):
    rng = np.random.default_rng(0)
    return rng.standard_normal((n, 4, 4, 3)), rng.integers(0, 5, n)


# Of the largest entry. In 16 bits the layers one by one round means, logits and slopes, which the one op does not.
BOUNDS = {"float64": 1e-13, "float32": 2e-6, "float16": 5e-3, "bfloat16": 4e-2}


@pytest.mark.parametrize(("parts", "scale"), [(1, 1.0), (2, 8.0)])
@pytest.mark.parametrize("dtype", BOUNDS)
@pytest.mark.parametrize("end", ENDS)
def test_a_pass_is_that_of_the_layers(end, dtype, parts, scale, steps, monkeypatch):
    if dtype == "bfloat16":
        pytest.importorskip("ml_dtypes")
    found = passes(model(end, dtype), *batch(), parts, scale)
    assert len(steps) == parts
    monkeypatch.setattr(Head, "of", lambda layers: None)
    expected = passes(model(end, dtype), *batch(), parts, scale)
    assert len(steps) == parts
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, rtol=0, atol=BOUNDS[dtype] * np.abs(value).max(), err_msg=name)


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_the_factor_of_the_gradients_may_stand_on_the_device(dtype, steps):
    """That of a loss that is scaled is read there by a recorded step."""
    expected = passes(model("pooling, linear", dtype), *batch(), scale=8.0)
    found = passes(model("pooling, linear", dtype), *batch(), scale=emulated(np.array(8, np.float32)))
    assert len(steps) == 2
    assert {name: value.tobytes() for name, value in found.items()} == {
        name: value.tobytes() for name, value in expected.items()}


def test_steps_of_training_follow_the_reference(steps):
    x, labels = batch()
    losses = []
    for device, implementation in (("emulated", None), ("cpu", "reference")):
        step = fn.TrainStep(model("pooling, linear", device=device), fn.SGD(0.1), loss_options=OPTIONS)
        with backend.use(implementation) if implementation else contextlib.nullcontext():
            losses.append([float(step(x, labels)) for _ in range(3)])
    assert len(steps) == 3
    np.testing.assert_allclose(*losses, rtol=1e-6)


def test_what_runs_layer_by_layer(steps, monkeypatch):
    """A tap, another implementation, main memory, a loss of another kind, and a layer too large to be read by each."""
    x, labels = batch()
    expected = passes(model("pooling, linear"), x, labels)
    assert len(steps) == 1
    seen = []

    def close(found):
        for name, value in expected.items():
            np.testing.assert_allclose(found[name], value, rtol=0, atol=2e-6 * np.abs(value).max(), err_msg=name)

    made = model("pooling, linear")
    close(passes(made, x, labels, tap=lambda layer, x, y: seen.append(layer)))
    assert {id(layer) for layer in seen} == {id(layer) for layer in made.walk()} - {id(made)}
    with backend.use("reference"):
        close(passes(model("pooling, linear"), x, labels))
    close(passes(model("pooling, linear", device="cpu"), x, labels))
    with monkeypatch.context() as patch:
        patch.setattr(sys.modules[Head.__module__], "FEW", 39)
        close(passes(model("pooling, linear"), x, labels))
    fn.TrainStep(model("pooling, linear"), fn.SGD(0.1), loss="soft_margin")(x, labels)
    assert len(steps) == 1


@pytest.mark.parametrize(("layers", "parts"), [
    (["Conv2d", "GlobalAvgPool", "Linear"], 2), (["Conv2d", "Linear"], 1), (["Conv2d", "GlobalAvgPool"], 0),
    (["GlobalAvgPool", "Linear"], 0), (["Conv2d", "Linear", "Dropout"], 0), (["Conv2d", "Shifted"], 0)])
def test_what_is_a_head(layers, parts):
    """The end of a model, not the whole of it; types must be the pattern's own."""
    class Shifted(fn.Linear):
        pass

    make = {"Conv2d": lambda: fn.Conv2d(3, 4, 1), "GlobalAvgPool": fn.GlobalAvgPool, "Dropout": fn.Dropout,
            "Linear": lambda: fn.Linear(4, 2), "Shifted": lambda: Shifted(4, 2)}
    head = Head.of([make[name]() for name in layers])
    assert (len(head.parts) if head else 0) == parts


def test_a_step_has_the_bits_of_the_op():
    """But for the loss, whose terms are added in another order."""
    rng = np.random.default_rng(1)
    for channels, places, classes in ((3, 1, 11), (40, 6, 16)):
        x, w = rng.standard_normal((9, 1, places, channels)), rng.standard_normal((channels, classes))
        x, w, b = (emulated(a.astype(np.float32)) for a in (x, w, np.ones(classes)))
        labels, into = emulated(rng.integers(0, classes, 9)), (emulated(np.zeros(w.shape, np.float32)), None)
        loss, logits, dx, dw, db = STEP(x, w, labels, b, 0.5, into, **OPTIONS)
        y, back = backend.run("pooled_softmax_cross_entropy", x, w, labels, b, **OPTIONS)
        assert dw is into[0]
        for ours, theirs in zip((dx, dw, None, db), back(0.5), strict=True):
            assert (ours is None and theirs is None) or ours.get().tobytes() == theirs.get().tobytes()
        np.testing.assert_allclose(float(loss), float(y), rtol=1e-6)
        np.testing.assert_allclose(logits.get(), x.get().mean(axis=(1, 2)) @ w.get() + 1, rtol=0, atol=1e-5)
