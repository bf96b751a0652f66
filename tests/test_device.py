"""Models, training and data on the arrays of a device, here those that NumPy may not touch (`strict_arrays`)."""

import json

import numpy as np
import pytest
from emulator import arrays as emulated
from placed import MODELS, SMALL, batch, dropout_net, fit, host, strict_device  # noqa: F401
from strict_arrays import NAMESPACE, StrictArray, strict
from tiny import bits, dataset, interrupting, saved, untimed

import fastnet as fn
from fastnet import arrays, backend, devices
from fastnet.arrays import to_numpy
from fastnet.data import Augmentation, Batches, Dataset, Split, Standardization, batches
from fastnet.optim import schedules
from fastnet.optim.optimizers import OPTIMIZERS
from fastnet.train import record
from fastnet.train.nonfinite import NonFiniteError

pytestmark = pytest.mark.usefixtures("strict_device")


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
            found.append((host(model.state()), np.array(values), logits,
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
            found.append(bits(host({**model.state(), **step.state})))
    assert found[0] == found[1]


def test_weights_are_drawn_as_on_the_cpu():
    for dtype in ("float32", "float64"):
        ours, theirs = (fn.build("resnet20", seed=5, dtype=dtype, device=device) for device in ("strict", "cpu"))
        assert bits(host(ours.state())) == bits(theirs.state())


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
    before = bits(host(model.state()))
    gradient = to_numpy(model.store.gradient)
    fn.loss_and_gradients(model, x, labels)
    assert bits(host(model.state())) == before
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
    before = bits(host(model.state()))
    x[2, 3, 4, 1] = np.nan
    with pytest.raises(NonFiniteError, match=r"the input x is not finite, nan at \[2, 3, 4, 1\], 1 of"):
        step(x, labels)
    assert bits(host(model.state())) == before


def test_copies_go_from_device_to_device():
    here = dropout_net()
    fn.TrainStep(here, fn.SGD(0.1))(*batch(shape=SMALL))
    there = here.copy(device="strict")
    back = there.copy(device="cpu")
    assert is_strict(*there.state().values()) and bits(back.state()) == bits(here.state())
    there.load_state({name: a + 1 for name, a in here.state().items()})  # from the host
    here.load_state(there.state())  # and to it
    assert bits(here.state()) == bits(host(there.state()))
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
    expected = bits(host(model.state()))
    assert bits(host(twin.state())) == bits(here.state()) == expected


# --- with the CUDA kernels, on the emulator ---

@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_a_step_runs_on_the_emulator(dtype, emulated_device):
    if dtype == "bfloat16":
        pytest.importorskip("ml_dtypes")
    (x, labels), found = batch(shape=SMALL), []
    for device in ("strict", "emulated"):
        model = dropout_net(device=device, dtype=dtype)
        step = fn.TrainStep(model, fn.SGD(0.05, momentum=0.9))
        found.append(([float(step(x, labels, np.arange(6), 0)) for _ in range(3)], model.predict(x)))
    assert type(model.store.vector) is emulated.EmulatedArray
    assert found[0][0] == pytest.approx(found[1][0], rel=1e-5 if dtype == "float32" else 2e-2)
    np.testing.assert_allclose(found[0][1], found[1][1], atol=1e-5 if dtype == "float32" else 5e-2)


def test_a_label_that_is_no_class_is_named(emulated_device):
    """A GPU's kernels make the loss NaN instead of looking, which would make the host wait."""
    model, (x, labels) = dropout_net(device="emulated"), batch(shape=SMALL)
    before = bits(host(model.state()))
    labels[4] = 10
    with pytest.raises(ValueError, match="softmax_cross_entropy: label 10 at index 4 is outside 0"):
        fn.TrainStep(model, fn.SGD(0.1))(x, labels)
    assert bits(host(model.state())) == before


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
