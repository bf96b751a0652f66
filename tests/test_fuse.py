"""Layers that run as one compute what they compute one by one, for every pattern; everything else stays as it was."""

import copy
import math

import numpy as np
import pytest

import fastnet as fn
from fastnet import backend
from fastnet.nn import fuse
from fastnet.nn.fuse import PATTERNS, Fused, fused
from fastnet.nn.layer import INFERENCE, Context

MAKE = {fn.BatchNorm: lambda: fn.BatchNorm(6), fn.ReLU: fn.ReLU, fn.MaxPool2d: lambda: fn.MaxPool2d(2),
        fn.Conv2d: lambda: fn.Conv2d(6, 6, 3, pad=1),
        fn.Linear: lambda: fn.Linear(6 * 6 * 6, 6)}


def normal(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape)


def around(*layers):
    """The layers with parameters, and dropout, on both sides."""
    last = fn.Linear(6, 4) if isinstance(layers[0], fn.Linear) else fn.Conv2d(6, 4, 1)
    return fn.Sequential([fn.Conv2d(3, 6, 3, pad=1), fn.Dropout(0.3), *layers, fn.Dropout(0.2), last], seed=3,
                         dtype="float64")


def residual(*, shortcut, body=()):
    beside = fn.Sequential([fn.Conv2d(6, 6, 1), fn.BatchNorm(6)]) if shortcut else None
    main = [fn.Conv2d(6, 6, 3, pad=1), *body, fn.BatchNorm(6)]
    return fn.Residual(main, beside, fn.ReLU())


def pattern(kinds):
    return lambda: [MAKE[kind]() for kind in kinds]


BLOCKS = {
    "perceptron": lambda: [fn.Linear(216, 9), fn.ReLU(), fn.Linear(9, 6)],
    "perceptron with batch norm": lambda: [fn.Linear(216, 8, bias=False), fn.BatchNorm(8), fn.ReLU(), fn.Linear(8, 7),
                                           fn.BatchNorm(7, eps=1e-3), fn.ReLU(), fn.Linear(7, 5), fn.ReLU(),
                                           fn.Linear(5, 6, bias=False)],
    **{"+".join(kind.__name__ for kind in kinds): pattern(kinds) for kinds in PATTERNS},
    "residual": lambda: [residual(shortcut=False)],
    "residual, projection": lambda: [residual(shortcut=True)],
    "residual of one layer": lambda: [fn.Residual([fn.BatchNorm(6)], None, fn.ReLU())],
    "residual, pattern inside": lambda: [residual(shortcut=False, body=[fn.BatchNorm(6), fn.ReLU(),
                                                                        fn.Conv2d(6, 6, 1)])],
}


def passes(model, context, seed=1):
    """Everything that comes out of both passes, {name: array}."""
    x = normal(7, 6, 6, 3).astype(model.dtype)
    state = model.store
    for i, value in enumerate(model.parameters().values()):
        value += 0.3 * normal(*value.shape, seed=i)
    for i, value in enumerate(model.statistics().values()):
        value[...] = np.random.default_rng(i).uniform(0.5, 2, value.shape)
    state.start_gradients()
    y, back = model(x, context)
    dx = back(normal(*y.shape, seed=seed).astype(y.dtype))
    state.finish_gradients()
    return {"y": y, "dx": dx, **{f"d{name}": g for name, g in model.gradients().items()}, **model.statistics()}


@pytest.mark.parametrize("implementation", ["cpu", "reference"])
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize(("block", "dtype", "bound"), [
    *((block, "float64", 1e-12) for block in BLOCKS), *((block, "float32", 2e-5) for block in BLOCKS)])
def test_a_pattern_computes_what_its_layers_do(block, dtype, bound, training, implementation):
    """Values, dx, the gradients of all parameters and the running statistics; the masks of dropout are the same."""
    plain, together = around(*BLOCKS[block]()), around(*BLOCKS[block]())
    plain.dtype = together.dtype = np.dtype(dtype)
    assert fuse(together) or "residual" in block
    context = Context(training=training, seed=5, samples=np.arange(7))
    with backend.use(implementation):
        expected, found = passes(plain, context), passes(together, context)
    assert expected.keys() == found.keys()
    for name, value in expected.items():
        # A bias before batch norm has the gradient 0, but for rounding of the size of its layer's other gradient.
        size = max(np.abs(expected[key]).max() for key in (name, name.removesuffix(".b") + ".w") if key in expected)
        np.testing.assert_allclose(found[name], value, rtol=0, atol=bound * size, err_msg=name)
        assert found[name].dtype == value.dtype


@pytest.mark.parametrize("block", BLOCKS)
def test_ops_that_run_fused(block, monkeypatch):
    """None of the pattern's layers runs by itself any more."""
    model, names = around(*BLOCKS[block]()), []
    pair = backend.pair
    monkeypatch.setattr(backend, "pair", lambda name, *a, **o: names.append(name) or pair(name, *a, **o))
    passes(model, Context(training=True, samples=np.arange(7)))
    assert "relu" in names
    names.clear()
    fuse(model)
    model(normal(7, 6, 6, 3), Context(training=True, samples=np.arange(7)))
    assert "relu" not in names and "max_pool2d" not in names


@pytest.mark.parametrize("block", BLOCKS)
def test_gradients_of_fused_models(block):
    """The complex step and differences prove the fused model itself."""
    layers = [fn.Conv2d(3, 6, 3, pad=1), *BLOCKS[block]()]
    shape = (6, 6, 3)
    for layer in layers:
        shape = layer.output_shape(shape)
    model = fn.Sequential([*layers, fn.Linear(math.prod(shape), 3)], seed=2)
    for i, value in enumerate(model.parameters().values()):
        value += 0.2 * normal(*value.shape, seed=i)
    fuse(model)
    fn.check.check_model(model, normal(6, 6, 6, 3), np.arange(6) % 3, entries=12)


@pytest.mark.parametrize("block", BLOCKS)
def test_names_and_copies_stay(block):
    model = around(*BLOCKS[block]())
    layers, names, text = list(model.walk()), list(model.state()), repr(model)
    fuse(model)
    assert list(model.walk()) == layers and list(model.state()) == names and repr(model) == text
    twin = model.undrawn()
    inside = {id(layer) for layer in model.walk()} | {id(layer) for layer in fuse(model)}
    assert not inside & {id(layer) for run in fuse(twin) for layer in run.walk()}
    ours = {id(layer) for layer in twin.walk()}
    assert all(id(part) in ours for run in fuse(twin) for part in run.children())
    model.predict(normal(5, 6, 6, 3))
    before = model.state()
    fn.TrainStep(twin, fn.SGD(lr=0.1), loss="mean_squared_error")
    assert all(np.array_equal(value, before[name]) for name, value in model.state().items())
    assert len(fuse(copy.deepcopy(model))) == len(fuse(model))


def test_a_tap_sees_every_layer():
    model, seen = around(*BLOCKS["residual, pattern inside"]()), []
    fuse(model)
    model.predict(normal(5, 6, 6, 3))
    model(normal(5, 6, 6, 3), Context(tap=lambda layer, x, y: seen.append(layer)))
    assert {id(layer) for layer in seen} == {id(layer) for layer in model.walk()} - {id(model)}


def test_what_is_no_pattern_stays():
    class Shifted(fn.ReLU):
        def __call__(self, x, context):
            return super().__call__(x - 1, context)

    layers = [fn.BatchNorm(6), Shifted(), fn.ReLU(), fn.AvgPool2d(1), fn.BatchNorm(6),
              fn.Dropout(0.1), fn.ReLU(), fn.ReLU()]
    model = fn.Sequential([fn.Conv2d(3, 6, 1), *layers])
    assert fuse(model) == [] and fused(layers) == layers
    block = fn.Residual([fn.BatchNorm(3)], activation=Shifted())
    assert fuse(fn.Sequential([block])) == [] and block._ending is None


def test_the_trainer_and_predict_fuse():
    for use in (lambda model: fn.TrainStep(model, fn.SGD(lr=0.1)), lambda model: model.predict(normal(5, 6, 6, 3))):
        model = around(fn.BatchNorm(6), fn.ReLU())
        use(model)
        assert [type(layer) for layer in model.fuse()].count(fn.ReLU) == 0
        assert any(isinstance(layer, Fused) for layer in model.fuse())


def test_a_pass_goes_back_once():
    model = around(*BLOCKS["residual"]())
    fuse(model)
    y, back = model(normal(5, 6, 6, 3), INFERENCE)
    back(y)
    with pytest.raises(RuntimeError, match="went back already"):
        back(y)
    for block in (model.layers[2], fn.Sequential([fn.Residual([fn.Tanh()])]).layers[0]):
        y, back = block(normal(5, 6, 6, 6), INFERENCE)
        back(y)
        with pytest.raises(RuntimeError, match="Residual: this pass went back already"):
            back(y)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("shape", [(7, 5), (40, 33, 3, 16)])
def test_add(shape, dtype):
    x, y = normal(2, *shape).astype(dtype)
    for implementation in ("cpu", "reference"):
        with backend.use(implementation):
            np.testing.assert_array_equal(backend.call("add", x, y), x + y)
            np.testing.assert_array_equal(backend.call("add", x.T, y.T), (x + y).T)
    with pytest.raises(ValueError, match=r"^add: x is \(.*\) but y is \(.*\)$"):
        backend.call("add", x, y[:1])


STEPS = {
    "plain": lambda: [fn.Linear(108, 9), fn.ReLU(), fn.Linear(9, 5)],
    "batch norm, no biases": lambda: [fn.Linear(108, 8, bias=False), fn.BatchNorm(8), fn.ReLU(),
                                      fn.Linear(8, 7, bias=False), fn.BatchNorm(7, eps=1e-3), fn.ReLU(),
                                      fn.Linear(7, 5, bias=False)],
    "wide": lambda: [fn.Linear(108, 100), fn.ReLU(), fn.Linear(100, 5)],
}


def whole_and_parts(layers, dtype, samples, function):
    """Loss, logits, gradient and running statistics of a training pass: by the function, and by the ops one by one."""
    rng = np.random.default_rng(1)
    x, labels = rng.standard_normal((samples, 6, 6, 3)).astype(dtype), rng.integers(0, 5, samples)
    for whole in (True, False):
        model = fn.Sequential(layers(), seed=3, dtype=dtype)
        (perceptron,) = fuse(model)
        context, options = Context(training=True), {"label_smoothing": 0.1}
        model.store.start_gradients()
        if whole:
            store = model.store
            loss, logits, statistics = function.run(
                x.reshape(samples, -1), labels, store.vector, store.gradient, layers=perceptron._hidden(), **options)
            perceptron._track(statistics, context, samples)
        else:
            logits, back = model(x, context)
            loss, loss_back = backend.run("softmax_cross_entropy", logits, labels, **options)
            back(loss_back(1.0, (True, False))[0], False)
        yield {"loss": loss, "logits": logits, "gradient": model.store.gradient, **model.statistics()}


@pytest.mark.parametrize("layers", STEPS)
@pytest.mark.parametrize(("dtype", "samples"), [("float64", 60), ("float32", 60), ("float32", 31), ("float32", 300)])
def test_a_perceptrons_step_has_the_bits_of_its_ops(layers, dtype, samples):
    ours, theirs = whole_and_parts(STEPS[layers], dtype, samples, backend.module("cpu", "perceptron_step"))
    for name, value in theirs.items():
        assert ours[name].dtype == value.dtype
        assert ours[name].tobytes() == value.tobytes(), name


@pytest.mark.parametrize("layers", STEPS)
def test_the_references_step_is_that_of_its_ops(layers):
    with backend.use("reference"):
        ours, theirs = whole_and_parts(STEPS[layers], "float64", 12, backend.module("reference", "perceptron_step"))
    for name, value in theirs.items():
        np.testing.assert_allclose(ours[name], value, rtol=0, atol=1e-13, err_msg=name)


def test_training_takes_a_perceptrons_step_in_one_go(monkeypatch):
    """And what is not its case goes the ordinary way: a tap, parts of a batch, another loss, the reference."""
    names, pair = [], backend.pair
    monkeypatch.setattr(backend, "pair", lambda name, *a, **o: names.append(name) or pair(name, *a, **o))

    def ran(samples=600, implementation=None, **options):
        model = fn.Sequential(STEPS["plain"](), seed=3)
        step = fn.TrainStep(model, fn.SGD(lr=0.1), **options)
        names.clear()
        x, labels = normal(samples, 108).astype("float32"), np.arange(samples) % 5
        if implementation:
            with backend.use(implementation):
                step(x, labels)
        else:
            step(x, labels)
        return list(names)

    assert ran() == ["perceptron_step", "sgd_update"]
    assert ran(implementation="cpu") == ["perceptron_step", "sgd_update"]
    for ordinary in (ran(accumulate=2), ran(loss="soft_margin"), ran(2), ran(implementation="reference")):
        assert "linear" in ordinary


def test_a_label_that_is_none_leaves_a_perceptron_as_it_was():
    model = fn.Sequential(STEPS["batch norm, no biases"](), seed=3)
    step = fn.TrainStep(model, fn.SGD(lr=0.1))
    before = {name: value.tobytes() for name, value in model.state().items()}
    with pytest.raises(ValueError, match=r"label 5 at index 3 is outside 0\.\.4"):
        step(normal(600, 108).astype("float32"), np.array([0, 1, 2, 5] * 150))
    assert {name: value.tobytes() for name, value in model.state().items()} == before
