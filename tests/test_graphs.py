"""Steps whose passes are recorded and replayed: on the emulator, whose recordings can hold kernels only."""

import contextlib
import sys
import types

import numpy as np
import pytest
from emulator import arrays as emulated
from emulator import engine, recording
from emulator.arrays import emulated as moved
from placed import dropout_net, host
from test_emulated_training import resnet
from tiny import bits

import fastnet as fn
from fastnet import backend, graphs
from fastnet.arrays import floating
from fastnet.kernels.cuda import cast
from fastnet.train import step as step_module
from fastnet.train.nonfinite import NonFiniteError
from fastnet.train.passes import GraphedPasses

STEPS = 5


pytestmark = pytest.mark.usefixtures("emulated_device")


def batch(seed, n=6):
    rng = np.random.default_rng(seed)
    return rng.standard_normal((n, 8, 8, 3)).astype(np.float32), rng.integers(0, 10, n)


def trained(make, sizes=(6,) * STEPS, epochs=(0,) * STEPS, **options):
    """Losses, logits and state after steps with changing batches and rates, and the step."""
    step = fn.TrainStep(make(), fn.SGD(momentum=0.9), fn.schedules.cosine(0.05, steps=STEPS), penalty=fn.L2(1e-3),
                        **options)
    losses, logits = [], []
    for i, (n, epoch) in enumerate(zip(sizes, epochs, strict=True)):
        losses.append(float(step(*batch(i, n), np.arange(n) + 10 * i, epoch)))
        logits.append(step.logits.get().tobytes())
    return losses, logits, bits(host({**step.model.state(), **step.state})), step


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
    (form,) = step._passes._forms.values()
    assert form.replay.launches > launches


def test_batches_of_other_sizes_have_graphs_of_their_own():
    make, sizes = lambda: resnet("emulated"), (6, 6, 6, 4, 4, 4, 6, 4)
    *ordinary, _ = trained(make, sizes, (0,) * len(sizes))
    *replayed, step = trained(make, sizes, (0,) * len(sizes), graph=True)
    assert ordinary == replayed
    assert [form.replay is not None for form in step._passes._forms.values()] == [True, True]


def small():
    return fn.Sequential([fn.Conv2d(3, 8, 3, 2), fn.BatchNorm(8), fn.ReLU(), fn.GlobalAvgPool(), fn.Linear(8, 10)],
                         seed=3, device="emulated")


class Scaled(GraphedPasses):
    """Another factor of the loss in the last two of five steps; a power of two, which leaves the bits alone."""

    calls = 0

    def __init__(self, model, passes):
        super().__init__(model, passes)
        self.gradient = model.store.gradient

    def __call__(self, x, labels, context, scale):
        self.calls += 1
        scale = 2.0 if self.calls > 3 else 1.0
        found = super().__call__(x, labels, context, scale)
        self.gradient[...] = self.gradient / scale
        return found


def test_a_number_that_is_baked_in_shows(monkeypatch):
    def found(**options):
        *all_but_step, _ = trained(small, **options)
        return all_but_step

    ordinary = found()
    monkeypatch.setattr(step_module, "GraphedPasses", Scaled)
    assert found(graph=True) == ordinary
    monkeypatch.setattr(Scaled, "_baked", lambda *_: None)
    assert found(graph=True) != ordinary


def test_masks_of_dropout_are_those_of_the_epoch(monkeypatch):
    def found(**options):
        *all_but_step, _ = trained(lambda: dropout_net(device="emulated"), (6,) * 8, (0,) * 4 + (1,) * 4, **options)
        return all_but_step

    ordinary = found()
    assert found(graph=True) == ordinary
    monkeypatch.setattr(GraphedPasses, "_baked", lambda *_: None)
    assert found(graph=True) != ordinary


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


def test_a_model_in_main_memory_has_no_graphs():
    with pytest.raises(ValueError, match="there are no graphs on device 'cpu'"):
        fn.TrainStep(fn.build("mlp2"), fn.SGD(0.1), graph=True)


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

    with pytest.raises(MemoryError, match="64 bytes more than in the warm-ups are needed"):
        recorder.record(greedy)
    assert cupy.log == ["on stream", "begin", "raised", "end", "off stream"]
    assert recorder.warm_up(lambda: cupy.allocator(8)) == ("memory", 8)
