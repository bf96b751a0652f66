"""Steps that are recorded and replayed: on the emulator, whose recordings can hold kernels only."""

import contextlib
import dataclasses
import re
import sys
import types

import numpy as np
import pytest
from emulator import arrays as emulated
from emulator import engine, recording
from emulator.arrays import emulated as moved
from placed import blocks_net, dropout_net, host
from test_emulated_training import resnet
from tiny import bits

import fastnet as fn
from fastnet import backend, graphs
from fastnet.arrays import floating
from fastnet.kernels.cuda import cast
from fastnet.train import graphed
from fastnet.train.average import WeightAverage
from fastnet.train.nonfinite import NonFiniteError
from fastnet.train.sums import Sums

STEPS = 5


pytestmark = pytest.mark.usefixtures("emulated_device")


def batch(seed, n=6):
    rng = np.random.default_rng(seed)
    return rng.standard_normal((n, 8, 8, 3)).astype(np.float32), rng.integers(0, 10, n)


def trained(make, sizes=(6,) * STEPS, epochs=(0,) * STEPS, optimizer=None, scale=None, **options):
    """Losses, logits and state after steps with changing batches and rates, and the step."""
    step = fn.TrainStep(make(), optimizer or fn.SGD(momentum=0.9), fn.schedules.cosine(0.05, steps=STEPS + 1),
                        **({"penalty": fn.L2(1e-3)} | options))
    if scale:
        step.scaling.scale = scale
    losses, logits = [], []
    for i, (n, epoch) in enumerate(zip(sizes, epochs, strict=True)):
        losses.append(float(step(*batch(i, n), np.arange(n) + 10 * i, epoch)))
        logits.append(step.logits.get().tobytes())
    return losses, logits, everything(step), step


def everything(step):
    """All that steps change, as bytes."""
    average = {"average": step.average.vector} if step.average else {}
    arrays = bits(host({**step.model.state(), **step.state, **average}))
    return arrays, step.count, step.scaling and step.scaling.state()


def forms(step):
    assert step._graphed.unrecordable is None
    return list(step._graphed._forms.values())


def perceptron(device, dtype):
    return fn.Sequential([fn.Linear(192, 16), fn.BatchNorm(16), fn.ReLU(), fn.Linear(16, 16), fn.BatchNorm(16),
                          fn.ReLU(), fn.Linear(16, 10)], seed=3, device=device, dtype=dtype)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize(("model", "launches"), [(resnet, 60), (perceptron, 20)])
def test_a_replayed_step_has_the_bits_of_the_ordinary_one(model, launches, dtype):
    if dtype == "bfloat16":
        pytest.importorskip("ml_dtypes")
    make = lambda: model("emulated", dtype)  # noqa: E731
    *ordinary, _ = trained(make)
    *replayed, step = trained(make, graph=True)
    assert ordinary == replayed
    assert len(set(ordinary[0])) == STEPS
    (form,) = forms(step)
    assert form.replay.launches > launches


def test_batches_of_other_sizes_have_graphs_of_their_own():
    make, sizes = lambda: resnet("emulated"), (6, 6, 6, 4, 4, 4, 6, 4)
    *ordinary, _ = trained(make, sizes, (0,) * len(sizes))
    *replayed, step = trained(make, sizes, (0,) * len(sizes), graph=True)
    assert ordinary == replayed
    assert [form.replay is not None for form in forms(step)] == [True, True]


def small():
    return fn.Sequential([fn.Conv2d(3, 8, 3, 2), fn.BatchNorm(8), fn.ReLU(), fn.GlobalAvgPool(), fn.Linear(8, 10)],
                         seed=3, device="emulated")


UPDATES = {
    "sgd": {"optimizer": fn.SGD()},
    "rates": {"optimizer": fn.SGD(momentum=0.9, nesterov=True), "rates": {"linear1.*": 0.1, "*.gamma": 0.0}},
    "adam": {"optimizer": fn.Adam(), "penalty": [fn.L2(1e-3), fn.L1(1e-3, proximal=True)]},
    "adamw": {"optimizer": fn.AdamW()},
    "adamax": {"optimizer": fn.Adamax(), "penalty": fn.L1(1e-3)},
}


def averaged(make):
    """A step's model and the average of its weights."""
    net = make()
    return {"make": lambda: net, "average": WeightAverage(net, 0.9)}


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("name", UPDATES)
def test_a_recorded_update_is_good_for_all_steps(name, dtype):
    """Rates, the number of updates and, in float16, whether a gradient overflows change while it stays the same."""
    if dtype == "bfloat16":
        pytest.importorskip("ml_dtypes")
    steps = {"sizes": (6,) * 8, "epochs": (0,) * 4 + (1,) * 4, "scale": 2.0**21 if dtype == "float16" else None}
    found = [trained(**averaged(lambda: dropout_net(device="emulated", dtype=dtype)), **steps, **UPDATES[name],
                     graph=graph) for graph in (False, True)]
    assert found[0][:3] == found[1][:3]
    step = found[1][3]
    (form,) = forms(step)
    assert form.replay is not None
    if dtype == "float16":
        assert 2 < step.scaling.skipped < 6


def test_numbers_that_are_baked_in_show(monkeypatch):
    def found(**options):
        *all_but_step, _ = trained(lambda: dropout_net(device="emulated"), (6,) * 8, (0,) * 4 + (1,) * 4,
                                   optimizer=fn.Adam(), **options)
        return all_but_step

    ordinary = found()
    assert found(graph=True) == ordinary
    for patched, name, baked in (
            (fn.TrainStep, "_deferred_update", lambda self, *_: self._update(self._numbers(self._rate()), self.count)),
            (fn.TrainStep, "_deferred_update", lambda self, numbers, *_: self._update(numbers, self.count)),
            (graphed, "replace", lambda context, samples, epoch: dataclasses.replace(context, samples=samples))):
        with monkeypatch.context() as patch:
            patch.setattr(patched, name, baked)
            assert found(graph=True) != ordinary


def launched(step, steps, sums, poison=None):
    """Launch these steps without a reading; the batch of step `poison` has a NaN."""
    for i in steps:
        x, labels = batch(i)
        if i == poison:
            x[2, 3, 4, 1] = np.nan
        step.launch(x, labels, np.arange(6), 0, sums)
    return x, labels


def two_steps(**options):
    """The same training twice: read after every step, and only when asked."""
    models = [dropout_net(device="emulated", **options) for _ in range(2)]
    return [fn.TrainStep(model, fn.SGD(momentum=0.9), fn.schedules.cosine(0.05, steps=20), graph=graph,
                         average=WeightAverage(model, 0.9)) for model, graph in zip(models, (False, True), strict=True)]


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_sums_are_those_of_a_reading_after_every_step(dtype):
    one, other = two_steps(dtype=dtype)
    sums, read = Sums(), Sums()
    for i in range(8):
        value = float(one(*batch(i), np.arange(6), 0))
        sums.add(value, one.logits, moved(batch(i)[1]))
    for part in (range(5), range(5, 8)):
        launched(other, part, read)
        found = other.read()
    assert (read.loss, read.correct) == (sums.loss, int(sums.correct)) and 0 < read.correct < 48
    assert found == (value, None)
    assert isinstance(read.correct, int)


def test_a_batch_that_is_not_finite_halts_what_was_launched_after_it():
    """Found later than elsewhere, but nothing has changed since the step before it, and training can go on."""
    one, other = two_steps()
    sums, read = Sums(), Sums()
    for i in range(5):
        sums.add(float(one(*batch(i), np.arange(6), 0)), one.logits, moved(batch(i)[1]))
    launched(other, range(9), read, poison=5)
    found = other.read()
    assert found.halted == other.count == 5 and np.isnan(found.loss)
    assert everything(other) == everything(one) and read.loss == sums.loss
    x, labels = batch(5)
    x[2, 3, 4, 1] = np.nan
    error = other.failure(found, x, labels, np.arange(6), 0)
    assert re.search(r"not finite at step 5: the input x is not finite, nan at \[2, 3, 4, 1\]", str(error))
    launched(other, range(6, 8), read)
    assert other.read().halted is None
    for i in range(6, 8):
        one(*batch(i), np.arange(6), 0)
    assert everything(other) == everything(one)


def test_gradients_that_overflow_by_themselves_halt():
    model = fn.Sequential([fn.Linear(4, 10), fn.Linear(10, 10)], dtype="float16", device="emulated")
    step, x = fn.TrainStep(model, fn.SGD(0.1), loss="mean_squared_error", graph=True), np.ones((6, 4), np.float32)
    step.scaling.scale = 2.0
    targets = np.full((6, 10), 1e9, np.float32)
    step(x, targets)
    assert (step.scaling.skipped, step.scaling.scale, step.count) == (1, 1.0, 1)
    before = everything(step)[0]
    with pytest.raises(NonFiniteError, match="the gradients overflow float16"):
        step(x, targets)
    assert everything(step)[0] == before and step.count == 1


def test_launching_and_reading_go_together():
    step, sums = two_steps()[1], Sums()
    with pytest.raises(ValueError, match="nothing was launched since the last reading"):
        step.read()
    launched(step, range(1), sums)
    with pytest.raises(ValueError, match="read the steps that were launched before others are summed elsewhere"):
        launched(step, range(1), Sums())
    step.read()
    for work in (lambda: launched(two_steps()[0], range(1), sums), lambda: two_steps()[0].read()):
        with pytest.raises(ValueError, match="graph=True"):
            work()


class Twice(fn.Flatten):
    """A layer that computes outside the kernels."""

    def __call__(self, x, context):
        y, back = super().__call__(x, context)
        return y + y, lambda dy, needs_dx=True: back(dy + dy)


@pytest.mark.parametrize(("make", "options", "what"), [
    (lambda: fn.Sequential([Twice(), fn.Linear(192, 10)], seed=3, device="emulated"), {}, "__add__"),
    (lambda: dropout_net(device="emulated"), {"accumulate": 3}, "__rmul__"),
    (lambda: blocks_net(device="emulated"), {}, "zeros_like"),
], ids=["layer of one's own", "accumulate", "blocks"])
def test_what_cannot_be_recorded_is_launched_kernel_by_kernel(make, options, what, capsys):
    """CuPy records its own kernels too, so on a card there is less of this."""
    *ordinary, _ = trained(make, **options)
    *found, step = trained(make, graph=True, **options)
    assert found == ordinary and step._graphed.unrecordable == f"{what} is computed outside the kernels"
    assert capsys.readouterr().err == (f"a training step is not recorded as a CUDA graph ({what} is computed outside "
                                       "the kernels); its kernels are launched one by one\n")


class Own(fn.SGD):
    """An optimizer that is none of ours."""


def test_where_there_are_no_graphs():
    with pytest.raises(ValueError, match="there are no graphs on device 'cpu'"):
        fn.TrainStep(fn.build("mlp2"), fn.SGD(0.1), graph=True)
    with pytest.raises(ValueError, match="Own is not one of the optimizers whose updates can be recorded"):
        fn.TrainStep(small(), Own(0.1), graph=True)


def test_what_is_no_kernel_cannot_be_recorded():
    x = moved(np.ones((4, 8), np.float32))
    recorder = recording.Recorder()
    for work, name in ((lambda: x + x, "__add__"), (lambda: x.sum(), "sum"), (lambda: float(x[0, 0]), "__float__"),
                       (lambda: emulated.NAMESPACE.zeros(3), "zeros"), (lambda: x.get(), "get"),
                       (lambda: x.__setitem__(0, 1), "__setitem__")):
        with pytest.raises(recording.RecordingError, match=f"^{name} is computed outside the kernels"):
            recorder.record(work)
    with pytest.raises(recording.RecordingError, match=r"^astype makes a copy"):
        recorder.record(lambda: x.astype(np.float64))
    with backend.use("reference"), pytest.raises(recording.RecordingError):
        recorder.record(lambda: backend.run("relu", x))
    (y, _), replay = recorder.record(lambda: backend.run("relu", x))
    assert np.isnan(y.get()).all()  # nothing has run yet
    replay()
    np.testing.assert_array_equal(y.get(), x.get())
    x[...] = x * 3
    replay()
    np.testing.assert_array_equal(y.get(), x.get())


def test_an_array_that_is_gone_is_a_fault():
    """A recording has addresses: what it was given has to live on."""
    given = [moved(np.ones((4, 8), np.float32))]
    _, replay = recording.Recorder().record(lambda: backend.run("relu", *given))
    replay()
    given.clear()
    with pytest.raises(engine.EmulationError, match=r"relu_forward: .*memory outside every array is touched"):
        replay()


def test_a_loss_that_is_not_finite_changes_nothing():
    *_, step = trained(small, graph=True)
    before = bits(host({**step.model.state(), **step.state}))
    x, labels = batch(0)
    x[2, 3, 4, 1] = np.nan
    with pytest.raises(NonFiniteError, match=r"the input x is not finite, nan at \[2, 3, 4, 1\]"):
        step(x, labels)
    with pytest.raises(ValueError, match="label 10 at index 0"):
        step(*batch(0)[:1], labels * 0 + 10)
    assert bits(host({**step.model.state(), **step.state})) == before


# --- what a recording needs besides the ops' kernels ---

@pytest.mark.parametrize("start", [0, 1])
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_write_has_the_references_bits(dtype, start):
    x = np.random.default_rng(0).standard_normal(600).astype(dtype)
    to = moved(np.zeros(605, dtype))
    backend.call("write", to[start : start + 600], moved(x))
    np.testing.assert_array_equal(to.get(), np.pad(x, (start, 5 - start)))
    with pytest.raises(ValueError, match=r"write: x is \(2, 1\), but what it is written over is \(2,\)"):
        backend.call("write", np.zeros(2), np.zeros((2, 1)))


@pytest.mark.parametrize("name", ["float16", "bfloat16"])
def test_cast_has_the_references_bits(name):
    narrow = floating(name)
    x = (np.random.default_rng(0).standard_normal((70, 9)) * 10.0 ** np.arange(-6, 3)).astype(np.float32)
    found = backend.call("cast", moved(x), dtype=narrow)
    assert found.get().tobytes() == x.astype(narrow).tobytes()
    wide = backend.call("cast", found, dtype=np.dtype(np.float32))
    np.testing.assert_array_equal(wide.get(), x.astype(narrow).astype(np.float32))
    for given, wanted in ((narrow, np.float32), (np.float32, narrow), (narrow, narrow)):
        assert backend.pair("cast", moved(x.astype(given)), dtype=np.dtype(wanted)).__name__ == cast.__name__
    assert backend.pair("cast", moved(x), dtype=np.dtype(np.float64)).__name__ == "fastnet.functions.cast"


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_statistics_are_tracked_with_the_references_bits(dtype):
    arrays = np.random.default_rng(0).standard_normal((4, 300)).astype(dtype)
    ours, theirs = [moved(a) for a in arrays], list(arrays.copy())
    for given, run in ((ours, backend.call), (theirs, backend.call)):
        run("track_statistics", *given, decay=0.9, correction=1.25)
    np.testing.assert_array_equal(ours[0].get(), theirs[0])
    np.testing.assert_array_equal(ours[1].get(), theirs[1])
    np.testing.assert_allclose(theirs[1], 0.9 * arrays[1] + 0.125 * arrays[3], rtol=1e-5, atol=1e-6)


# --- CuPy ---

class FakeCupy:
    """What `CupyRecorder` asks of CuPy; `log` has what it did."""

    class CUDARuntimeError(RuntimeError):
        pass

    def __init__(self):
        self.log = log = []
        self.cuda, self.allocator = self, None
        fake, self.runtime = self, types.SimpleNamespace(CUDARuntimeError=self.CUDARuntimeError)

        class Stream:
            def __enter__(self):
                log.append("on stream")

            def __exit__(self, *_):
                log.append("off stream")

            def begin_capture(self):
                log.append("begin")

            def end_capture(self):
                log.append("end")
                if "raised" in log:
                    raise fake.CUDARuntimeError("the capture is invalid")
                return types.SimpleNamespace(launch=lambda stream: log.append("launch"))

        self.Stream = Stream
        self.Memory, self.MemoryPointer = (lambda size: ("memory", size)), (lambda memory, offset: memory)

    def MemoryPool(self, allocate):
        free = []

        def malloc(size):
            return free.pop() if free else allocate(size)

        return types.SimpleNamespace(malloc=malloc, free=free)

    @contextlib.contextmanager
    def using_allocator(self, malloc):
        self.allocator = malloc
        yield
        self.allocator = None


def test_cupys_capture_takes_memory_of_its_pool_only(monkeypatch):
    cupy = FakeCupy()
    monkeypatch.setitem(sys.modules, "cupy", cupy)
    recorder = graphs.RECORDERS["cupy"]()
    assert recorder.warm_up(lambda: cupy.allocator(64)) == ("memory", 64)
    recorder._pool.free.append(("memory", 64))
    result, replay = recorder.record(lambda: cupy.allocator(64))
    assert result == ("memory", 64)
    replay()
    assert cupy.log == ["on stream", "off stream", "on stream", "begin", "end", "off stream", "launch"]
    cupy.log.clear()

    def greedy():
        cupy.log.append("raised")
        cupy.allocator(64)

    with pytest.raises(graphs.UnrecordableError, match="64 bytes more than in the warm-ups are needed"):
        recorder.record(greedy)
    assert cupy.log == ["on stream", "begin", "raised", "end", "off stream"]
    assert recorder.warm_up(lambda: cupy.allocator(8)) == ("memory", 8)
