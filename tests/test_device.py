"""Models, training and data on the arrays of a device, here those that NumPy may not touch (`strict_arrays`)."""

import json
import sys
import types

import numpy as np
import pytest
from strict_arrays import NAMESPACE, StrictArray, strict
from tiny import BATCH, bits, dataset, interrupting, saved, untimed

import fastnet as fn
from fastnet import arrays, backend, devices, environment, plots
from fastnet.arrays import array_module, to_numpy
from fastnet.check.cases import cases, ops
from fastnet.data import Augmentation, Batches, Dataset, Split, Standardization, batches
from fastnet.optim import schedules
from fastnet.optim.optimizers import OPTIMIZERS
from fastnet.train import checkpoint, record
from fastnet.train.nonfinite import NonFiniteError
from fastnet.train.scaling import PATIENCE, START


@pytest.fixture(autouse=True)
def strict_device(monkeypatch):
    """A device called "strict", and no figures, which take longer than these runs."""
    monkeypatch.setitem(devices.LIBRARIES, "strict", lambda: NAMESPACE)
    monkeypatch.setattr(plots, "training_curves", lambda history, rates, path, *, title: path.write_bytes(b"figure"))


def batch(n=6, shape=(32, 32, 3), seed=0):
    rng = np.random.default_rng(seed)
    return rng.standard_normal((n, *shape)).astype(np.float32), rng.integers(0, 10, n)


def dropout_net(**options):
    return fn.Sequential([fn.Linear(192, 16), fn.BatchNorm(16), fn.ReLU(), fn.Dropout(0.3), fn.Linear(16, 10)], seed=3,
                         **options)


def blocks_net(**options):
    """The containers that no model of the table has all of."""
    return fn.Sequential([
        fn.Conv2d(3, 4, 3, pad=1), fn.Residual([fn.Conv2d(4, 6, 3, 2, 1), fn.BatchNorm(6)], fn.ZeroPadShortcut(2, 6)),
        fn.Fire(6, 2, 3, 3, activation="gelu"), fn.DepthwiseSeparable(6, 4, activation="elu"),
        fn.MaxPool2d(2), fn.AvgPool2d(2), fn.Flatten(), fn.Linear(4, 10)], seed=4, **options)


SMALL = (8, 8, 3)
MODELS = {
    "mlp3-bn": (lambda **o: fn.build("mlp3-bn", seed=1, **o), (32, 32, 3)),
    "lenet5": (lambda **o: fn.build("lenet5", seed=1, **o), (32, 32, 3)),
    "resnet18": (lambda **o: fn.build("resnet18", seed=1, filter_multiplier=1 / 16, input_shape=SMALL, **o), SMALL),
    "dropout": (dropout_net, SMALL),
    "blocks": (blocks_net, SMALL),
}


def is_strict(*found):
    return all(isinstance(a, StrictArray) for a in found)


# --- models and steps ---

def test_names_of_devices():
    assert devices.library("cpu") is np and devices.library("strict") is NAMESPACE
    for make in (lambda: fn.build("mlp2", device="tpu"), lambda: devices.library("tpu")):
        with pytest.raises(ValueError, match="device 'tpu' is not known; choose from cpu, cuda"):
            make()


@pytest.mark.parametrize("accumulate", [1, 3])
@pytest.mark.parametrize("name", MODELS)
def test_a_step_has_the_references_bits(name, accumulate):
    make, shape = MODELS[name]
    x, labels = batch(shape=shape)
    found = []
    for device in ("cpu", "strict"):
        with backend.use("reference"):
            model = make(device=device)
            step = fn.TrainStep(model, fn.SGD(0.1, momentum=0.9), penalty=[fn.L2(0.01), fn.L1(1e-3, proximal=True)],
                                rates={"*.b": 0.5}, accumulate=accumulate)
            values = [step(x, labels, np.arange(50, 56), 7) for _ in range(2)]
            assert all(isinstance(value, (np.ndarray, np.generic)) for value in values)
            assert device == "cpu" or is_strict(model.store.vector, step.logits, *model.state().values(),
                                                *step.state.values(), *model.gradients().values())
            logits = model.predict(x)
            assert isinstance(logits, np.ndarray)
            found.append(({name: to_numpy(a) for name, a in model.state().items()}, np.array(values), logits,
                          step.penalty_value(), fn.sparsity(model)))
    (state, *rest), (strict_state, *strict_rest) = found
    assert bits(state) == bits(strict_state)
    for ours, theirs in zip(strict_rest, rest, strict=True):
        np.testing.assert_equal(ours, theirs)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_optimizers_have_the_references_bits(name):
    found = []
    for device in ("cpu", "strict"):
        with backend.use("reference"):
            model = dropout_net(device=device)
            step = fn.TrainStep(model, OPTIMIZERS[name](0.01), penalty=fn.L1(1e-3))
            for seed in range(3):
                step(*batch(shape=SMALL, seed=seed))
            found.append(bits({name: to_numpy(a) for name, a in {**model.state(), **step.state}.items()}))
    assert found[0] == found[1]


def test_weights_are_drawn_as_on_the_cpu():
    for dtype in ("float32", "float64"):
        ours, theirs = (fn.build("resnet20", seed=5, dtype=dtype, device=device) for device in ("strict", "cpu"))
        assert bits({name: to_numpy(a) for name, a in ours.state().items()}) == bits(theirs.state())


def test_results_are_where_the_batch_was():
    model, (x, labels) = dropout_net(device="strict"), batch(shape=SMALL)
    for given, there in ((x, False), (strict(x), True), (x.astype(np.float64), False)):
        logits = model.predict(given)
        value, gradients = fn.loss_and_gradients(model, given, strict(labels) if there else labels)
        for found in (logits, value, *gradients.values()):
            assert isinstance(found, StrictArray if there else np.ndarray)
    assert to_numpy(model.predict(strict(x))).tobytes() == model.predict(x).tobytes()
    with pytest.raises(TypeError, match="floating-point numbers are needed"):
        model.predict(labels.reshape(3, 2))
    with pytest.raises(ValueError, match="label 10 at index 0 is outside"):
        fn.TrainStep(model, fn.SGD(0.1))(x, labels * 0 + 10)


def test_arrays_of_other_libraries_are_taken_from_either_memory():
    """A tensor on a GPU goes to the device's library by DLPack, one in main memory is copied."""
    class Tensor:
        def __init__(self, x, place):
            self.dtype, self.__dlpack__, self._place = x.dtype, x.__dlpack__, place

        def __dlpack_device__(self):
            return self._place, 0

    model, (x, _) = dropout_net(device="strict"), batch(shape=SMALL)
    expected = model.predict(x)
    for place in (1, 2):
        np.testing.assert_array_equal(model.predict(Tensor(x, place)), expected)


def test_loss_and_gradients_change_nothing_there():
    model, (x, labels) = dropout_net(device="strict"), batch(shape=SMALL)
    before = bits({name: to_numpy(a) for name, a in model.state().items()})
    gradient = to_numpy(model.store.gradient)
    fn.loss_and_gradients(model, x, labels)
    assert bits({name: to_numpy(a) for name, a in model.state().items()}) == before
    np.testing.assert_array_equal(to_numpy(model.store.gradient), gradient)


def test_a_step_reads_the_loss_and_nothing_else(monkeypatch):
    """Whatever is read waits for the device."""
    model, (x, labels) = fn.build("mlp3-bn", device="strict"), batch()
    step, read = fn.TrainStep(model, fn.SGD(0.1)), []
    monkeypatch.setattr(StrictArray, "get", lambda self: read.append(self.shape) or self._raw.copy())
    monkeypatch.setattr(StrictArray, "__float__", lambda self: read.append("float") or float(self._raw))
    value = step(strict(x), strict(labels))
    assert float(value) > 0 and read == [()]


def test_a_loss_that_is_not_finite_changes_nothing():
    model, (x, labels) = dropout_net(device="strict"), batch(shape=SMALL)
    step = fn.TrainStep(model, fn.SGD(0.1))
    before = bits({name: to_numpy(a) for name, a in model.state().items()})
    x[2, 3, 4, 1] = np.nan
    with pytest.raises(NonFiniteError, match=r"the input x is not finite, nan at \[2, 3, 4, 1\], 1 of"):
        step(x, labels)
    assert bits({name: to_numpy(a) for name, a in model.state().items()}) == before


def test_copies_go_from_device_to_device():
    here = dropout_net()
    fn.TrainStep(here, fn.SGD(0.1))(*batch(shape=SMALL))
    there = here.copy(device="strict")
    back = there.copy(device="cpu")
    assert is_strict(*there.state().values()) and bits(back.state()) == bits(here.state())
    there.load_state({name: a + 1 for name, a in here.state().items()})  # from the host
    here.load_state(there.state())  # and to it
    assert bits(here.state()) == bits({name: to_numpy(a) for name, a in there.state().items()})
    x, _ = batch(shape=SMALL)
    with backend.use("reference"):
        assert there.predict(x).tobytes() == here.predict(x).tobytes()


def test_weights_of_pytorch_go_in_and_out(tmp_path):
    model = fn.build("lenet5-bn", seed=2, device="strict")
    fn.save_torch_weights(model, tmp_path / "w.safetensors")
    twin = fn.build("lenet5-bn", seed=9, device="strict")
    fn.load_weights(twin, tmp_path / "w.safetensors")
    here = fn.build("lenet5-bn", seed=9)
    fn.load_weights(here, tmp_path / "w.safetensors")
    expected = bits({name: to_numpy(a) for name, a in model.state().items()})
    assert bits({name: to_numpy(a) for name, a in twin.state().items()}) == bits(here.state()) == expected


# --- data ---

@pytest.mark.parametrize("augmentation", [
    None, Augmentation(pad=2, horizontal_flip=True, vertical_flip=True),
    Augmentation(resized_crop=(0.3, 1.0), horizontal_flip=True, cutout=3)], ids=["plain", "pad", "resized"])
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_batches_have_the_same_bits(augmentation, dtype, monkeypatch):
    split = dataset().train
    copied = []
    monkeypatch.setattr(arrays, "to_numpy", lambda x: copied.append(x.shape) or to_numpy(x))
    for per in ("channel", "pixel"):
        standardization = Standardization.fit(split.images, per)
        here, there = (Batches(split, standardization, 25, seed=4, dtype=dtype, augmentation=augmentation,
                               device=device) for device in ("cpu", "strict"))
        for epoch in (0, 3):
            for ours, theirs in zip(there.epoch(epoch), here.epoch(epoch), strict=True):
                assert is_strict(*ours) and ours.x.dtype == dtype
                assert [to_numpy(a).tobytes() for a in ours] == [a.tobytes() for a in theirs]
    assert copied.count(split.images.shape) == 1  # the images, for both


def test_sixteen_bits_are_rounded_after_the_standardization():
    split = dataset().train
    standardization = Standardization.fit(split.images, "pixel")
    wide = standardization.apply(split.images).astype(np.float16)
    np.testing.assert_array_equal(standardization.apply(split.images, "float16"), wide)
    x = next(Batches(split, standardization, len(split), shuffle=False, dtype="float16").epoch(0)).x
    np.testing.assert_array_equal(x, wide)


def test_evaluation_gives_the_same():
    data, found = dataset(), []
    standardization = Standardization.fit(data.train.images)
    for device in ("cpu", "strict"):
        with backend.use("reference"):
            found.append(fn.evaluate(dropout_net(device=device), data.test, standardization))
    assert list(batches._copies[data.test]) == [NAMESPACE.__name__]  # it was done there
    assert found[0][:2] == found[1][:2]
    np.testing.assert_array_equal(found[0].predictions, found[1].predictions)


# --- runs ---

def fit(out, device, *, make=dropout_net, schedule=None, **changed):
    settings = {"epochs": 3, "batch_size": BATCH, "penalty": fn.L2(0.01), "seed": 5, "verbose": False, "average": 0.9,
                "early_stopping": fn.EarlyStopping(5), "augmentation": Augmentation(pad=1, horizontal_flip=True)}
    return fn.fit(make(device=device), dataset(), fn.SGD(momentum=0.9),
                  schedule or schedules.triangular(1e-3, 0.05, half_cycle_steps=4), out=out, **(settings | changed))


def test_a_run_has_the_references_bits_and_the_kernels_figures(tmp_path):
    with backend.use("reference"):
        fit(tmp_path / "cpu", "cpu")
        run = fit(tmp_path / "strict", "strict")
    assert saved(tmp_path / "strict") == saved(tmp_path / "cpu")  # config.json too: it does not name the device
    assert is_strict(run.model.store.vector)
    assert json.loads(json.dumps(run.result)) == run.result
    assert {type(value) for line in run.history for value in line.values()} <= {int, float}
    kernels = fit(tmp_path / "kernels", "cpu")
    for line, theirs in zip(untimed(run.history), untimed(kernels.history), strict=True):
        assert line == pytest.approx(theirs, rel=1e-4)


def test_two_epochs_of_shapes10(tmp_path):
    data = fn.data.load("shapes10", split="60/20")
    few = Split(data.test.images[:30], data.test.labels[:30], data.test.indices[:30])
    data = Dataset(data.name, data.classes, data.train, data.validation, few, data.identity)
    found = []
    for device in ("cpu", "strict"):
        with backend.use("reference"):
            found.append(fn.fit(fn.build("lenet5", seed=1, device=device), data, fn.SGD(momentum=0.9),
                                schedules.constant(0.01), epochs=2, batch_size=20, verbose=False))
    assert untimed(found[0].history) == untimed(found[1].history)
    assert {k: v for k, v in found[0].result.items() if not k.endswith("seconds")} == {
        k: v for k, v in found[1].result.items() if not k.endswith("seconds")}


@pytest.mark.parametrize(("first", "second"), [("strict", "strict"), ("strict", "cpu"), ("cpu", "strict")])
def test_a_run_goes_on_elsewhere(first, second, tmp_path):
    with backend.use("reference"):
        fit(tmp_path / "whole", "cpu")
        with pytest.raises(KeyboardInterrupt):
            fit(tmp_path / "run", first, schedule=interrupting(4))
        fit(tmp_path / "run", second, resume=True)
    assert saved(tmp_path / "run") == saved(tmp_path / "whole")


def test_a_run_of_a_device_goes_on_with_the_kernels(tmp_path):
    whole = fit(tmp_path / "whole", "cpu")
    with pytest.raises(KeyboardInterrupt):
        fit(tmp_path / "run", "strict", schedule=interrupting(4))
    run = fit(tmp_path / "run", "cpu", resume=True)
    for name, value in run.model.state().items():
        np.testing.assert_allclose(value, whole.model.state()[name], rtol=1e-4, atol=1e-5)


def test_a_finished_run_is_read_on_any_device(tmp_path):
    data = dataset()
    make = lambda device: fn.build("mlp2", inputs=192, device=device)  # noqa: E731
    fit(tmp_path / "run", "strict", make=make)
    here, there = (fn.load_run(tmp_path / "run", device=device) for device in ("cpu", "strict"))
    assert is_strict(there.model.store.vector)
    with backend.use("reference"):
        np.testing.assert_array_equal(there.scores(data.test.images), here.scores(data.test.images))


def test_the_range_test_runs_there():
    data, found = dataset(), []
    for device in ("cpu", "strict"):
        with backend.use("reference"):
            found.append(fn.lr_range_test(dropout_net(device=device), data, fn.SGD(), steps=6, batch_size=20))
    assert found[0] == found[1]


# --- checks and the command line ---

def test_whole_models_are_checked_there():
    model = fn.Sequential([fn.Linear(12, 6), fn.BatchNorm(6), fn.ReLU(), fn.Dropout(0.2), fn.Linear(6, 10)],
                          device="strict")
    report = fn.check.check_model(model, *batch(shape=(2, 2, 3)), entries=20)
    assert report.passed and all(row.sharp for row in report.rows)

    class Wrong(fn.Linear):
        def __call__(self, x, context):
            y, back = super().__call__(x, context)
            return y, lambda dy, needs_dx=True: back(dy * 1.01, needs_dx)

    model = fn.Sequential([Wrong(12, 6), fn.ReLU(), fn.Linear(6, 10)], device="strict")
    with pytest.raises(fn.check.GradientError, match=r"dwrong1\.w is wrong"):
        fn.check.check_model(model, *batch(shape=(2, 2, 3)), entries=20)


def test_commands_take_a_device(run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    status, out, err = run("check", "relu", "softmax_cross_entropy", "--device", "strict")
    assert (status, err) == (0, "") and "FAILED" not in out and " cpu " not in out
    data = dataset(shape=(32, 32, 3))
    monkeypatch.setattr("fastnet.data.load", lambda *arguments, **options: data)
    settings = ["mlp2", "--data", "shapes10", "--epochs", 1, "--batch-size", 20]
    for device in ("strict", "cpu"):
        status, out, err = run("train", *settings, "--device", device, "--out", device)
        assert (status, err) == (0, "")
    results = [record.read_json(tmp_path / device / record.RESULT) for device in ("strict", "cpu")]
    assert results[0]["test_loss"] == pytest.approx(results[1]["test_loss"], rel=1e-4)
    status, _, err = run("train", *settings, "--device", "cpu", "--out", "strict", "--resume", "--epochs", 2)
    assert (status, err) == (0, "")
    image = pytest.importorskip("PIL.Image").fromarray(data.test.images[0])
    image.save(tmp_path / "a.png")
    shown = [run("predict", "strict", "a.png", "--json", "--device", device) for device in ("strict", "cpu")]
    ours, theirs = (json.loads(out)[0] for _, out, _ in shown)
    assert ours["class"] == theirs["class"]
    assert ours["probability"] == pytest.approx(theirs["probability"], rel=1e-4)
    for kind in ("float16", "bfloat16"):
        status, out, err = run("train", "mlp2", "--data", "shapes10", "--dtype", kind)
        assert (status, out) == (2, "")
        assert err.startswith(f"fastnet train: --dtype {kind} is for GPUs: no kernel for the CPU takes it, and ")


# --- 16 bits ---

def sixteen(dtype):
    return pytest.importorskip("ml_dtypes").bfloat16 if dtype == "bfloat16" else np.float16


@pytest.mark.parametrize("op", ops())
def test_ops_in_bfloat16(op):
    """x, y and dx in 16 bits, parameters and their gradients in 32, sums in 32."""
    half = sixteen("bfloat16")
    reference = backend.module("reference", op)
    for case in cases(op):
        rounded = [a if a is None or a.dtype.kind != "f" else a.astype(half) for a in case.arrays]
        is_wide = [i > 0 and a is not None and a.ndim == 1 for i, a in enumerate(rounded)]
        given = [a.astype(np.float32) if wide and a.dtype == half else a
                 for a, wide in zip(rounded, is_wide, strict=True)]
        precise = [a if a is None or a.dtype.kind in "iu" else a.astype(np.float64) for a in given]
        assert backend.pair(op, *given, **case.options) is reference
        y, cache = reference.forward(*given, **case.options)
        expected, precise_cache = reference.forward(*precise, **case.options)
        dy = np.random.default_rng(0).standard_normal(y.shape).astype(half)
        gradients = reference.backward(dy, cache)
        theirs = reference.backward(dy.astype(np.float64), precise_cache)
        assert y.dtype == half
        for a, b in [(y, expected), *zip(gradients, theirs, strict=True)]:
            if b is not None:
                a, b = np.asarray(a, np.float64), np.asarray(b)
                assert np.linalg.norm(a - b) <= 0.03 * np.linalg.norm(b) + 1e-12
        for a, gradient in zip(given, gradients, strict=True):
            assert gradient is None or gradient.dtype == a.dtype


@pytest.mark.parametrize("device", ["cpu", "strict"])
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("name", MODELS)
def test_only_activations_are_sixteen_bits_wide(name, dtype, device):
    half, (make, shape) = sixteen(dtype), MODELS[name]
    x, labels = batch(shape=shape)
    model, wide = make(dtype=dtype, device=device), make()
    seen = {}
    context = fn.Context(training=True, samples=array_module(model.store.vector).arange(6), update_statistics=False,
                         tap=lambda layer, x, y: seen.update({layer.name: y.dtype}))
    model(model.prepare(x), context)
    assert set(seen.values()) == {np.dtype(half)}
    step = fn.TrainStep(model, fn.SGD(3e-4, momentum=0.9))
    losses = [float(step(x, labels)) for _ in range(3)]
    for a in (*model.state().values(), *model.gradients().values(), *step.state.values(), step.logits,
              model.predict(x)):
        assert a.dtype == np.float32
    step = fn.TrainStep(wide, fn.SGD(3e-4, momentum=0.9))
    assert losses == pytest.approx([float(step(x, labels)) for _ in range(3)], rel=0.03)
    assert (step.scaling is None) and (fn.TrainStep(model, fn.SGD(0.1)).scaling is not None) == (dtype == "float16")


def test_small_gradients_need_the_scale():
    """2^-30 is nothing in float16; times 2^15 it is there."""
    def gradient(scale):
        model = fn.Sequential([fn.Linear(4, 10, init="zeros"), fn.Linear(10, 10, init="zeros")], dtype="float16")
        model.parameters()["linear2.w"][...] = np.eye(10) * 2.0**-22
        step = fn.TrainStep(model, fn.SGD(1.0))
        step.scaling.scale = scale
        x, labels = batch(200, (4,))
        step(x, labels)
        return model.gradients()["linear1.w"].copy()

    exact = fn.Sequential([fn.Linear(4, 10, init="zeros"), fn.Linear(10, 10, init="zeros")])
    exact.parameters()["linear2.w"][...] = np.eye(10) * 2.0**-22
    _, expected = fn.loss_and_gradients(exact, *batch(200, (4,)))
    assert not gradient(1.0).any()
    np.testing.assert_allclose(gradient(START), expected["linear1.w"], rtol=0.05, atol=1e-9)


@pytest.mark.parametrize("device", ["cpu", "strict"])
@pytest.mark.parametrize("optimizer", [lambda: fn.SGD(0.05, momentum=0.9), lambda: fn.Adam(0.01)], ids=["sgd", "adam"])
def test_training_recovers_from_overflow(optimizer, device):
    """Steps whose gradients overflow change nothing, and the training after them is that of a scale which fits."""
    x, labels = batch(shape=SMALL)

    def trained(scale, steps):
        model = dropout_net(dtype="float16", device=device)
        step = fn.TrainStep(model, optimizer())
        step.scaling.scale = scale
        first = bits({name: to_numpy(a) for name, a in model.state().items()})
        while step.count < step.scaling.skipped + steps:
            before = step.scaling.skipped
            assert np.isfinite(step(x, labels, np.arange(6), 0))
            if step.scaling.skipped > before:
                assert bits({name: to_numpy(a) for name, a in model.state().items()}) == first
        return step, {name: to_numpy(a) for name, a in model.state().items()}

    step, state = trained(2.0**24, 4)
    assert step.scaling.skipped >= 3 and step.scaling.scale == 2.0 ** (24 - step.scaling.skipped)
    fitting, expected = trained(step.scaling.scale, 4)
    assert fitting.scaling.skipped == 0 and bits(state) == bits(expected)
    assert np.abs(state["linear1.w"] - to_numpy(dropout_net().state()["linear1.w"])).max() > 0


def test_the_scale_is_doubled_after_good_steps():
    step = fn.TrainStep(dropout_net(dtype="float16"), fn.SGD(0.0001))
    step.scaling.good = PATIENCE - 2
    scales = [step(*batch(shape=SMALL)) and step.scaling.scale for _ in range(3)]
    assert scales == [START, 2 * START, 2 * START] and step.scaling.good == 1


def test_gradients_that_overflow_by_themselves_are_an_error():
    model = fn.Sequential([fn.Linear(4, 10), fn.Linear(10, 10)], dtype="float16")
    step, (x, _) = fn.TrainStep(model, fn.SGD(0.1), loss="mean_squared_error"), batch(shape=(4,))
    step.scaling.scale = 2.0
    targets = np.full((6, 10), 1e9, np.float32)
    step(x, targets)
    assert step.scaling.skipped == 1
    with pytest.raises(NonFiniteError, match="the gradients overflow float16"):
        step(x, targets)


def test_the_scale_is_kept_with_the_run(tmp_path):
    def start(out, **options):
        made = []

        def make(device):
            made.append(dropout_net(dtype="float16", device=device))
            return made[0]
        return fit(out, "strict", make=make, average=None, early_stopping=None, **options)

    class Huge(type(fn.TrainStep(dropout_net(dtype="float16"), fn.SGD(0.1)).scaling)):
        def __init__(self):
            super().__init__()
            self.scale = 2.0**21

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("fastnet.train.step.LossScale", Huge)
        whole = start(tmp_path / "whole")
        with pytest.raises(KeyboardInterrupt):
            start(tmp_path / "run", schedule=interrupting(4))
    _, kept = checkpoint.load(tmp_path / "run" / record.CHECKPOINT)
    assert kept["scaling"]["skipped"] > 0 and kept["scaling"]["scale"] < 2.0**21
    start(tmp_path / "run", resume=True)
    assert saved(tmp_path / "run") == saved(tmp_path / "whole")
    assert whole.result["skipped_steps"] == whole.history[-1]["skipped_steps"] > 0
    assert whole.history[-1]["loss_scale"] == 2.0 ** (21 - whole.result["skipped_steps"])
    with pytest.raises(ValueError, match=r"the settings are not the run's: model\.dtype was float16, now float32"):
        fit(tmp_path / "run", "cpu", average=None, early_stopping=None, resume=True)


def test_skipped_steps_are_said(capsys, monkeypatch):
    class Huge(type(fn.TrainStep(dropout_net(dtype="float16"), fn.SGD(0.1)).scaling)):
        def __init__(self):
            super().__init__()
            self.scale = 2.0**21

    monkeypatch.setattr("fastnet.train.step.LossScale", Huge)
    run = fit(None, "cpu", make=lambda device: dropout_net(dtype="float16"), verbose=True, epochs=1)
    line = run.history[0]
    assert f"{line['skipped_steps']} steps skipped so far (overflow), loss scale {line['loss_scale']:g}\n" in (
        capsys.readouterr().out)


def test_bfloat16_runs_are_written_and_read(tmp_path):
    sixteen("bfloat16")
    make = lambda device: fn.build("mlp2", inputs=192, dtype="bfloat16", device=device)  # noqa: E731
    run = fit(tmp_path / "run", "strict", make=make)
    wide = fit(None, "cpu", make=lambda device: fn.build("mlp2", inputs=192))
    assert "skipped_steps" not in run.result
    for line, theirs in zip(run.history, wide.history, strict=True):
        assert line["train_loss"] == pytest.approx(theirs["train_loss"], rel=0.01)
    images = dataset().test.images
    there, here = (fn.load_run(tmp_path / "run", device=device).scores(images) for device in ("strict", "cpu"))
    np.testing.assert_array_equal(here, there)
    assert fn.load_run(tmp_path / "run").model.dtype == "bfloat16"


def test_bfloat16_without_its_package(without):
    without("ml_dtypes")
    with pytest.raises(ImportError, match=r"^bfloat16 needs the package ml_dtypes, which is not installed \(pip "):
        fn.build("mlp2", dtype="bfloat16")


# --- what is missing ---

class CUDARuntimeError(RuntimeError):
    """As CuPy's."""


CUDARuntimeError.__module__ = "cupy_backends.cuda.api.runtime"


class OutOfMemoryError(MemoryError):
    """As CuPy's."""


OutOfMemoryError.__module__ = "cupy.cuda.memory"


def raising(text):
    def fail(*_):
        raise CUDARuntimeError(text)
    return fail


@pytest.fixture
def fake_cupy(monkeypatch):
    """`fake_cupy(...)` puts a module called cupy in place, whose runtime answers or raises as it is told."""
    def put(**answers):
        runtime = types.SimpleNamespace(**({
            "CUDARuntimeError": CUDARuntimeError, "driverGetVersion": lambda: 13000,
            "runtimeGetVersion": lambda: 13000, "getDeviceCount": lambda: 1,
            "getDeviceProperties": lambda device: {"name": b"Test GPU", "major": 9, "minor": 0}} | answers))
        cupy = types.ModuleType("cupy")
        cupy.cuda = types.SimpleNamespace(runtime=runtime)
        monkeypatch.setitem(sys.modules, "cupy", cupy)
        find = devices.importlib.util.find_spec
        monkeypatch.setattr(devices.importlib.util, "find_spec", lambda name: name == "cupy" or find(name))
        return cupy
    return put


BROKEN = [
    ({"driverGetVersion": lambda: 0}, "no NVIDIA driver is installed"),
    ({"driverGetVersion": lambda: 12080},
     "the NVIDIA driver is for CUDA 12.8, too old for this CuPy, which is for CUDA 13.0: update the driver, or install "
     "the CuPy of the driver's version"),
    ({"getDeviceCount": lambda: 0}, "there is no NVIDIA GPU"),
    ({"getDeviceCount": raising("cudaErrorNoDevice: no CUDA-capable device is detected")},
     "there is no usable NVIDIA GPU (cudaErrorNoDevice: no CUDA-capable device is detected)"),
    ({"driverGetVersion": raising("cudaErrorInsufficientDriver: driver too old")},
     "there is no usable NVIDIA GPU (cudaErrorInsufficientDriver: driver too old)"),
    ({"getDeviceProperties": lambda device: {"name": b"Old GPU", "major": 7, "minor": 5}},
     "Old GPU is sm_75, but sm_80 (Ampere, 2020) or later is needed"),
]


@pytest.mark.parametrize(("answers", "message"), BROKEN, ids=[message[:30] for _, message in BROKEN])
@pytest.mark.parametrize("command", [["train", "mlp2", "--data", "shapes10"], ["check", "relu"],
                                     ["lr-range", "mlp2", "--data", "shapes10"]], ids=lambda c: c[0])
def test_a_gpu_that_cannot_be_used(run, fake_cupy, answers, message, command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    fake_cupy(**answers)
    assert run(*command, "--device", "cuda") == (2, "", f"fastnet {command[0]}: {message}\n")
    assert environment.gpu() == f"none: {message}" and not list(tmp_path.iterdir())
    with pytest.raises(devices.DeviceError):
        fn.build("mlp2", device="cuda")


def test_a_gpu_that_can_be_used(fake_cupy, run):
    cupy = fake_cupy()
    assert devices.library("cuda") is cupy
    status, out, _ = run("env")
    assert status == 0 and "Test GPU, sm_90, driver for CUDA 13.0\n" in out


def test_cupy_missing_or_broken(run, monkeypatch, without):
    monkeypatch.setattr(devices.importlib.util, "find_spec", lambda name: None)
    status, out, err = run("check", "relu", "--device", "cuda")
    assert (status, out) == (2, "")
    assert err == "fastnet check: CuPy is not installed (pip install 'fastnet[cuda12]' or 'fastnet[cuda13]')\n"
    assert environment.gpu().startswith("none: CuPy is not installed")
    monkeypatch.undo()
    monkeypatch.setattr(devices.importlib.util, "find_spec", lambda name: object())
    without("cupy")
    status, out, err = run("check", "relu", "--device", "cuda")
    assert (status, out, err) == (2, "", "fastnet check: CuPy is installed but cannot be imported (cupy)\n")


@pytest.mark.parametrize(("error", "message"), [
    (OutOfMemoryError("Out of memory allocating 8,589,934,592 bytes (allocated so far: 0 bytes)."),
     "out of memory (Out of memory allocating 8,589,934,592 bytes (allocated so far: 0 bytes).); a smaller batch, or "
     "one in more parts (accumulate), needs less"),
    (MemoryError(), "out of memory (MemoryError); a smaller batch, or one in more parts (accumulate), needs less"),
    (CUDARuntimeError("\ncudaErrorLaunchFailure: unspecified launch failure\nmore"),
     "the GPU or CuPy failed: cudaErrorLaunchFailure: unspecified launch failure"),
    (RuntimeError("CuPy failed to load libnvrtc.so.13: OSError: no such file"),
     "CuPy failed to load libnvrtc.so.13: OSError: no such file; CuPy needs CUDA's libraries too (pip install "
     "'cupy-cuda12x[ctk]' or 'cupy-cuda13x[ctk]')"),
])
def test_a_gpu_that_fails_at_work(run, monkeypatch, error, message):
    def fail(*arguments, **options):
        raise error

    monkeypatch.setattr("fastnet.check.check_ops", fail)
    assert run("check", "relu") == (2, "", f"fastnet check: {message}\n")
    monkeypatch.setenv("FASTNET_TRACEBACK", "1")
    with pytest.raises(type(error)):
        run("check", "relu")


@pytest.mark.parametrize("error", [IndexError("5"), RuntimeError("5")])
def test_mistakes_of_ours_are_not_hidden(run, monkeypatch, error):
    def fail(*arguments, **options):
        raise error

    monkeypatch.setattr("fastnet.check.check_ops", fail)
    with pytest.raises(type(error)):
        run("check", "relu")
