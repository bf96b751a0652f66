"""16-bit activations, and the scale of the loss that float16 needs."""

import numpy as np
import pytest
from placed import MODELS, SMALL, batch, dropout_net, fit, host, strict_device  # noqa: F401
from tiny import bits, dataset, interrupting, saved

import fastnet as fn
from fastnet import backend
from fastnet.arrays import array_module
from fastnet.check.cases import cases, ops
from fastnet.train import checkpoint, record
from fastnet.train.nonfinite import NonFiniteError
from fastnet.train.scaling import PATIENCE, START, LossScale

pytestmark = pytest.mark.usefixtures("strict_device")


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
        first = bits(host(model.state()))
        while step.count < step.scaling.skipped + steps:
            before = step.scaling.skipped
            assert np.isfinite(step(x, labels, np.arange(6), 0))
            if step.scaling.skipped > before:
                assert bits(host(model.state())) == first
        return step, host(model.state())

    step, state = trained(2.0**24, 4)
    assert step.scaling.skipped >= 3 and step.scaling.scale == 2.0 ** (24 - step.scaling.skipped)
    fitting, expected = trained(step.scaling.scale, 4)
    assert fitting.scaling.skipped == 0 and bits(state) == bits(expected)
    assert np.abs(state["linear1.w"] - dropout_net().state()["linear1.w"]).max() > 0


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

    class Huge(LossScale):
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
    class Huge(LossScale):
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
