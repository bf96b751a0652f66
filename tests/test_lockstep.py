"""Two implementations in lockstep: what is right agrees, and each kind of mistake is named where it is made."""

import types

import numpy as np
import pytest

import fastnet as fn
from fastnet import backend
from fastnet.check.lockstep import Call, again, lockstep
from fastnet.check.replay import packed, unpacked

X = np.random.default_rng(0).normal(size=(8, 8, 8, 3)).astype(np.float32)
LABELS = np.arange(8) % 4


def small(dtype="float32"):
    return fn.Sequential([fn.Conv2d(3, 4, 3, pad=1, bias=False), fn.BatchNorm(4), fn.ReLU(), fn.MaxPool2d(2),
                          fn.Residual([fn.Conv2d(4, 4, 3, pad=1, bias=False), fn.BatchNorm(4)], None, fn.ReLU()),
                          fn.Dropout(0.25), fn.GlobalAvgPool(), fn.Linear(4, 4)], seed=0, dtype=dtype)


def compared(first="reference", second="cpu", model=None, optimizer=None, steps=2):
    model = model or small()
    step = fn.TrainStep(model, optimizer or fn.SGD(lr=0.1, momentum=0.9), penalty=fn.L2(1e-3))
    return lockstep(model, step, [(X.astype(model.dtype), LABELS)] * steps, first, second)


@pytest.fixture
def broken(monkeypatch):
    """`broken(op, what, change)` puts `change` around one function of the CPU's module of an op."""
    real = backend.module

    def put(op, what, change):
        def module(implementation, name):
            found = real(implementation, name)
            if (implementation, name) != ("cpu", op):
                return found
            return types.SimpleNamespace(**{**vars(found), what: change(getattr(found, what))})
        monkeypatch.setattr(backend, "module", module)
    return put


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("order", [("reference", "cpu"), ("cpu", "reference")])
def test_implementations_agree_and_the_first_trains_the_model(dtype, order):
    model, alone = small(dtype), small(dtype)
    found = compared(*order, model=model)
    assert found.passed and found.steps == 2 and not any(found.fallbacks.values())
    assert {"conv2d", "batch_norm_relu", "batch_norm_add_relu", "max_pool2d", "linear", "dropout", "sgd_update",
            "softmax_cross_entropy"} <= {row.op for row in found.rows}
    assert {"conv2d1 forward", "residual1.conv2d1 backward"} <= {row.layer for row in found.rows}
    with backend.use(order[0]):
        step = fn.TrainStep(alone, fn.SGD(lr=0.1, momentum=0.9), penalty=fn.L2(1e-3))
        for _ in range(2):
            step(X.astype(dtype), LABELS)
    tolerance = {"float32": 1e-5, "float64": 1e-13}[dtype]  # the functions of a step are not all forced
    np.testing.assert_allclose(model.store.vector, alone.store.vector, rtol=0, atol=tolerance)


def test_the_step_of_a_perceptron_is_compared_as_a_whole():
    model = fn.build("mlp3-bn", seed=0)
    step, x = fn.TrainStep(model, fn.Adam(lr=0.01)), np.random.default_rng(0).normal(size=(32, 3072)).astype(np.float32)
    found = lockstep(model, step, [(x, np.arange(32) % 10)] * 2, "cpu", "reference")
    assert found.passed
    assert {(row.op, row.layer) for row in found.rows} == {("perceptron_step", "linear1 to linear3 both ways"),
                                                           ("adam_update", "outside the layers")}


def scaled(index, factor):
    """The largest entry of what comes back, times a factor."""
    def change(function):
        def wrong(*arguments, **options):
            found = list(function(*arguments, **options))
            found[index] = found[index].copy()
            found[index].flat[np.argmax(np.abs(found[index]))] *= factor
            return tuple(found)
        return wrong
    return change


@pytest.mark.parametrize(("op", "what", "index", "layer", "result"), [
    ("conv2d", "forward", 0, "conv2d1 forward", "y"),
    ("conv2d", "backward", 1, "residual1.conv2d1 backward", "dw"),  # the first on the way back
    ("batch_norm_add_relu", "backward", 3, "residual1 backward", "dshortcut"),
    ("batch_norm_relu", "statistics", 1, "batchnorm1+relu1 forward", "var 0"),
    ("linear", "backward", 2, "linear1 backward", "db"),
])
def test_a_mistake_is_named_where_it_is_made(broken, op, what, index, layer, result):
    broken(op, what, scaled(index, 1.01))
    names = {"batchnorm1+relu1 forward": "batch_norm1+relu1 forward"}
    departure = compared().departure
    assert departure.call.op == op and departure.call.step == 0
    assert departure.call.layer == names.get(layer, layer)
    assert departure.result == result
    sentence = departure.sentence("reference", "cpu")
    assert "(reference is nearer)" in sentence and sentence.startswith(f"step 0, {departure.call.layer}: {result} of")


def test_a_wrong_update_is_named(broken):
    def forgets(run):
        def wrong(w, *rest, **options):
            kept = w[-1]
            run(w, *rest, **options)
            w[-1] = kept + 1e-3
        return wrong
    broken("sgd_update", "run", forgets)
    departure = compared().departure
    assert (departure.call.op, departure.result) == ("sgd_update", "w")


def test_a_kink_explains_a_difference_and_nothing_else_does(broken):
    """Pre-activations of zero but for rounding: one implementation lets dy through, the other does not."""
    def turned(backward):
        def wrong(dy, cache, needs=None):
            dx, *rest = backward(dy, cache, needs)
            dx = np.array(dx)
            dx[at] = dy[at] - dx[at]  # as if the entry lay on the other side
            return (dx, *rest)
        return wrong

    broken("relu", "backward", turned)
    for value, passed in ((1e-7, True), (0.5, False)):
        x = X.reshape(8, -1).copy()
        at = (3, 7)
        x[at] = value
        call = Call("relu", 0, "relu1 backward", (x,), {}, np.ones_like(x))
        assert (again(call, "reference", "cpu") is None) is passed


def test_a_departure_is_replayed_from_arrays_and_json(broken):
    import json

    broken("conv2d", "backward", scaled(1, 1.01))
    departure = compared().departure
    arrays, metadata = packed(departure.call, "reference", "cpu")
    call, first, second = unpacked(arrays, json.loads(json.dumps(metadata)))
    replayed = again(call, first, second)
    assert (replayed.index, replayed.values, replayed.call.layer) == (departure.index, departure.values,
                                                                      departure.call.layer)
    broken("conv2d", "backward", lambda backward: backward)
    assert again(call, first, second) is None


@pytest.mark.parametrize("change", [{"op": "nonsense"}, {"options": 3}, {"step": None},
                                    {"options": {"tuple": "os", "of": []}}])
def test_what_is_no_call_is_refused(change):
    with pytest.raises(ValueError, match="not a call of an op that can be replayed"):
        unpacked({"x": X}, {"op": "relu", "options": {"dict": {}}, "step": 0, "layer": "", "first": "cpu",
                            "second": "reference", **change})


def test_comparing_code_with_itself_is_refused():
    with pytest.raises(ValueError, match="by the same code"):
        compared("cpu", "cpu")
    with pytest.raises(ValueError, match="not an implementation"):
        compared("cpu", "torch")


def test_command(run, tmp_path, broken):
    args = ("check", "--against", "reference", "cpu", "mlp3-bn", "--data", "shapes10", "--steps", 2)
    status, out, _ = run(*args)
    assert status == 0 and "reference and cpu agree in 2 steps" in out
    broken("perceptron", "backward", scaled(1, 1.5))
    file = tmp_path / "d.safetensors"
    status, out, _ = run(*args, "--out", file)
    assert status == 1 and "dvector of perceptron" in out
    assert run("check", "--replay", file)[0] == 1
    broken("perceptron", "backward", lambda backward: backward)
    status, out, _ = run("check", "--replay", file)
    assert status == 0 and "agree" in out


@pytest.mark.parametrize(("arguments", "said"), [
    (("--against", "reference", "cpu"), "one model"),
    (("--against", "reference", "cpu", "mlp2", "mlp3"), "one model"),
    (("--against", "reference", "nonsense", "mlp2"), "invalid choice"),
    (("--against", "reference", "cpu", "mlp2", "--steps", 0), "--steps must be at least 1"),
    (("--replay", "nowhere"), "No such file"),
])
def test_command_says_what_is_wrong(run, arguments, said):
    status, _, err = run("check", *arguments)
    assert status == 2 and said in err and err.count("\n") == 1
