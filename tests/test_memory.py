"""The predicted memory of a training step, beside what NumPy and the arena really allocate."""

import gc
import tracemalloc

import numpy as np
import pytest

import fastnet as fn
from fastnet import backend
from fastnet.nn.layer import Layer
from fastnet.train.memory import StepMemory, format_step_memory, step_memory

MOMENTUM = fn.SGD(lr=0.01, momentum=0.9)
IMAGE = (32, 32, 3)
SCRATCH = 2**18  # bytes that the threads of a kernel take for themselves while it runs, which nobody predicts


def measured(model, shape, batch_size):
    """The most bytes that a second step has allocated, with its model, optimizer state and batch.

    The least of two tries: whatever else the process does in between is counted too, such as a list of the test
    framework's own that happens to outgrow its memory.
    """
    generator = np.random.default_rng(0)
    labels = generator.integers(0, 10, batch_size)

    def ready():
        x = generator.standard_normal((batch_size, *shape), model.dtype)
        return fn.TrainStep(model.undrawn(), MOMENTUM), x

    step, x = ready()
    step(x, labels)  # which compiles
    peaks = []
    for _ in range(2):
        del step, x
        gc.collect()
        tracemalloc.start()
        try:
            step, x = ready()
            step(x, labels)
            gc.collect()
            tracemalloc.reset_peak()
            step(x, labels)
            peaks.append(tracemalloc.get_traced_memory()[1])
        finally:
            tracemalloc.stop()
    return min(peaks)


@pytest.mark.parametrize(("name", "options", "batch_sizes"), [
    ("mlp3-bn", {}, (20, 100)),
    ("mlp3-bn", {"dtype": "float64"}, (50,)),
    ("lenet5", {}, (20, 64)),
    ("lenet5-bn-swish", {}, (20, 64)),
    ("vgg-a-bn", {"filter_multiplier": 0.25}, (16, 40)),
    ("resnet18", {"filter_multiplier": 0.25}, (16, 40)),
    ("resnet20", {}, (16,)),  # whose shortcuts are padded by zeros
    ("resnet18-dw", {"filter_multiplier": 0.25}, (16, 40)),
    ("mobilenet", {"filter_multiplier": 0.25}, (16, 40)),
    ("squeezenet", {"filter_multiplier": 0.25}, (16, 40)),
])
def test_the_prediction_is_what_is_measured(name, options, batch_sizes):
    for batch_size in batch_sizes:
        model = fn.build(name, **options)
        predicted = step_memory(model, IMAGE, batch_size, MOMENTUM)
        assert predicted.peak == pytest.approx(measured(model, IMAGE, batch_size), rel=0.1, abs=SCRATCH), predicted


@pytest.mark.parametrize(("name", "shape"), [("alexnet", (227, 227, 3)), ("resnet34", (224, 224, 3))])
def test_predicting_takes_no_memory(name, shape):
    options = {} if name == "alexnet" else {"input_shape": shape}
    step_memory(fn.build("lenet5"), IMAGE, 2, MOMENTUM)  # loads the kernels
    model = fn.build(name, **options)
    tracemalloc.start()
    try:
        predicted = step_memory(model, shape, 128, MOMENTUM)
        assert tracemalloc.get_traced_memory()[1] < 4 * 2**20 and predicted.peak > 10**9
    finally:
        tracemalloc.stop()
    assert model._store is None  # nothing was drawn


def test_the_model_stays_as_it_is():
    model = fn.build("resnet18-dropout", filter_multiplier=0.125)
    before = {name: value.tobytes() for name, value in (model.state() | model.gradients()).items()}
    kinds = [type(layer) for layer in model.walk()]
    step_memory(model, IMAGE, 4, MOMENTUM)
    assert {name: value.tobytes() for name, value in (model.state() | model.gradients()).items()} == before
    assert [type(layer) for layer in model.walk()] == kinds


class Keeper(Layer):
    """Passes x on, and keeps a copy of it until its gradient has come back."""

    def __call__(self, x, context):
        kept = x.copy()
        return x, lambda dy, needs_dx=True: dy if len(kept) else None


def small(*layers):
    return fn.Sequential([fn.Conv2d(3, 8, 3, pad=1), fn.ReLU(), *layers, fn.Conv2d(8, 8, 3, pad=1), fn.ReLU(),
                          fn.GlobalAvgPool(), fn.Linear(8, 10)])


def test_what_a_layer_keeps_is_seen():
    plain, more = (step_memory(small(*layers), (16, 16, 3), 10, MOMENTUM) for layers in ((), (Keeper(),)))
    assert more.kept - plain.kept == more.peak - plain.peak == 10 * 16 * 16 * 8 * 4


def test_the_parts():
    model = small()
    memory = step_memory(model, (16, 16, 3), 10, MOMENTUM)
    assert memory.parameters == 3 * model.store.vector.nbytes and memory.batch == 10 * 16 * 16 * 3 * 4
    # Of each convolution its input, of which one is a ReLU's output and one the batch; the last ReLU's output. Beside
    # them the last layers' few numbers.
    assert 0 <= memory.kept - 2 * 10 * 16 * 16 * 8 * 4 < 5000
    assert memory.place == "relu2 backward" and memory.peak == sum(memory[:4])
    # dy there, dx on its way.
    assert 0 <= memory.in_flight - 2 * 10 * 16 * 16 * 8 * 4 < 5000


@pytest.mark.parametrize(("optimizer", "vectors"), [(fn.SGD(lr=1.0), 2), (fn.Adam(), 4), (fn.Adamax(), 4)])
def test_the_optimizers_state_counts(optimizer, vectors):
    model = small()
    assert step_memory(model, (16, 16, 3), 10, optimizer).parameters == vectors * model.store.vector.nbytes


@pytest.mark.parametrize(("shape", "batch_size", "dtype", "message"), [
    (IMAGE, 0, "float32", "the batch size must be at least 1 but is 0"),
    ((8, 8, 4), 2, "float32", "conv2d1: Conv2d: the input is"),
    (IMAGE, 2, "complex128", "backend: cpu does not support conv2d"),
])
def test_steps_that_cannot_be_predicted(shape, batch_size, dtype, message):
    model = small()
    model.dtype = np.dtype(dtype)
    with pytest.raises(ValueError, match=message):
        step_memory(model, shape, batch_size, MOMENTUM)


def test_without_numba_nothing_is_predicted(monkeypatch):
    model = small()
    monkeypatch.setattr(backend, "module", lambda implementation, name: None)
    with pytest.raises(ImportError, match="the CPU kernels are what memory is predicted for, and they need Numba"):
        step_memory(model, IMAGE, 2, MOMENTUM)


def test_the_two_lines():
    assert format_step_memory(StepMemory(3 * 2**20, 2**19, 2**21, 2**20, "conv1 backward")).splitlines() == [
        "peak memory of a training step, predicted: 6.5 MiB, in conv1 backward",
        "(parameters, gradients and optimizer state 3.0 MiB, batch 0.5, kept for backward 2.0, in flight 1.0)"]
