"""The kernels in Numba-CUDA, in Numba's simulator: they run as Python, every CUDA thread as one of Python's.

`test_numba_cuda.py` runs this file in a process of its own, with NUMBA_ENABLE_CUDASIM=1. A thread costs so much here
that blocks are small, and so are images.
"""

import numpy as np
import pytest
import test_optimizers
from emulator import engine
from emulator.arrays import NAMESPACE, emulated
from placed import dropout_net
from test_augmentation import arguments
from test_optimizers import ALL, PENALTIES, worst_errors
from tiny import dataset

import fastnet as fn
from fastnet import backend, devices
from fastnet.data import Augmentation, Batches, Standardization
from fastnet.functions import average_update, soft_threshold, standardize_batch
from fastnet.functions._update import Regularization
from fastnet.kernels.cuda import _launch, _numba, _update
from fastnet.kernels.cuda import standardize_batch as gathering

engine.install()
_numba.LIBRARIES["emulated"] = _numba.Library(lambda x: x._raw, lambda: 0)


@pytest.fixture(autouse=True)
def small(monkeypatch):
    monkeypatch.setattr(_numba, "THREADS", 4)
    monkeypatch.setattr(gathering, "THREADS", (3, 2))
    monkeypatch.setattr(_launch, "MOST_BLOCKS", 3)  # the loops have to go round


def call(name, *arrays, **options):
    with backend.use("cuda"):
        return backend.call(name, *map(emulated, arrays), **options)


def same_bits(a, b):
    np.testing.assert_array_equal(a.view(f"u{a.itemsize}"), b.view(f"u{b.itemsize}"))


# --- images ---

@pytest.mark.parametrize(("shape", "dtype"), [((9, 12, 3), "float32"), ((12, 9, 1), "float64")])
def test_standardized_images_have_the_bits_of_the_reference(shape, dtype):
    images, indices, _, mean, scale = arguments(shape, 5, dtype)
    for wanted in (dtype, "float16"):
        y = call("standardize_batch", images, indices.astype(np.int32), mean, scale, dtype=wanted)
        same_bits(y.get(), standardize_batch.run(images, indices, mean, scale, dtype=wanted))


def test_views_are_gathered_as_their_copies():
    images, indices, _, mean, scale = arguments(batch=4)
    views = [emulated(np.repeat(a, 2, axis=0))[::2] for a in (images, indices, mean, scale)]
    with backend.use("cuda"):
        y = backend.call("standardize_batch", *views)
    same_bits(y.get(), standardize_batch.run(images, indices, mean, scale))


def test_an_index_that_is_no_image_makes_its_sample_nan():
    images, indices, _, mean, scale = arguments(batch=4)
    indices[1], indices[2] = len(images), -1
    y = call("standardize_batch", images, indices, mean, scale).get()
    assert np.isnan(y).all(axis=(1, 2, 3)).tolist() == np.isnan(y).any(axis=(1, 2, 3)).tolist() == [
        False, True, True, False]


def test_what_the_kernel_does_not_take_goes_to_the_reference():
    images, indices, _, mean, scale = map(emulated, arguments(batch=4))
    assert backend.pair("standardize_batch", images, indices, mean, scale) is gathering
    for wrong in ((images.astype(np.int16), indices, mean, scale), (images, indices[:0], mean, scale),
                  (images, indices.astype(float), mean, scale), (images, indices, mean[1:], scale[1:]),
                  (images, indices, mean.astype(np.float16), scale.astype(np.float16))):
        assert backend.pair("standardize_batch", *wrong) is standardize_batch
    images, indices, _, mean, scale = arguments(batch=4)
    assert not gathering.supports(images, indices, mean, scale)


# --- updates ---

class Emulated:
    """An optimizer whose updates run on emulated arrays."""

    def __init__(self, optimizer):
        self.optimizer = optimizer

    def update(self, w, g, state, **options):
        there = {key: emulated(vector) for key, vector in [("w", w), ("g", g), *state.items()]}
        self.optimizer.update(there["w"], there["g"], {key: there[key] for key in state}, **options)
        for key, vector in [("w", w), ("g", g), *state.items()]:
            vector[...] = there[key].get()


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("regularization", PENALTIES)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_each_step_is_the_published_one(name, dtype, regularization, monkeypatch):
    monkeypatch.setattr(test_optimizers, "STEPS", 6)
    of_w, of_state = worst_errors(ALL[name], "cuda", dtype, PENALTIES[regularization], run=Emulated(ALL[name]))
    assert of_w <= 4 and of_state <= 4


@pytest.mark.parametrize("name", ALL)
def test_padding_stays_and_a_gradient_that_is_not_a_number_shows(name):
    w, optimizer = np.zeros(20, np.float32), ALL[name]
    w[10:] = 2
    state, g = optimizer.start(w), np.zeros_like(w)
    g[3] = np.nan
    with backend.use("cuda"):
        Emulated(optimizer).update(w, g, state, step=0, lr=0.5,
                                   regularization=Regularization(0.1, 0.1, 0.1, penalised=10))
    assert np.flatnonzero(np.isnan(w)).tolist() == [3]
    np.testing.assert_array_equal(np.delete(w, 3), np.repeat(np.float32([0, 2]), [9, 10]))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_averages_and_soft_thresholds_are_the_reference_s(dtype):
    rng = np.random.default_rng(0)
    a, w = rng.normal(size=(2, 30)).astype(dtype)
    w[:4] = 0, 0.5, -0.5, np.nan
    moved, there = a.copy(), emulated(a)
    average_update.run(moved, w, decay=0.9)
    with backend.use("cuda"):
        backend.call("average_update", there, emulated(w), decay=0.9)
    same_bits(there.get(), moved)
    shrunk, there = w.copy(), emulated(w)
    soft_threshold.run(shrunk, threshold=0.5)
    with backend.use("cuda"):
        backend.call("soft_threshold", there, threshold=0.5)
    np.testing.assert_array_equal(there.get(), shrunk)


def test_vectors_that_the_kernels_do_not_take():
    w = emulated(np.ones(6))
    assert _update.supports(w, w)
    for other in (w[:5], w.astype(np.float32), w.reshape(2, 3), emulated(np.ones(12))[::2], emulated(np.ones(6, int))):
        assert not _update.supports(w, other)
    assert not _update.supports(w[:0], w[:0])
    assert not _update.supports(np.ones(6), np.ones(6))


# --- together ---

def test_steps_from_images_to_updates_are_the_cpu_s(monkeypatch):
    monkeypatch.setitem(devices.LIBRARIES, "emulated", lambda: NAMESPACE)
    split, found = dataset().train, []
    launched, launch = [], _numba.launch
    monkeypatch.setattr(_numba, "launch",
                        lambda kernel, *given: launched.append(kernel.__name__) or launch(kernel, *given))
    for device in ("cpu", "emulated"):
        model = dropout_net(device=device)
        step = fn.TrainStep(model, fn.SGD(0.05, momentum=0.9), penalty=fn.L2(0.01))
        batches = Batches(split, Standardization.fit(split.images), 10, seed=4, device=device,
                          augmentation=Augmentation(pad=1, horizontal_flip=True))
        losses = [float(step(batch.x, batch.labels, batch.samples, 1)) for _, batch in zip(
            range(2), batches.epoch(1), strict=False)]
        found.append((losses, model.predict(split.images[:5].reshape(5, -1).astype(np.float32) / 255)))
    assert launched == ["_momentum"] * 2
    assert found[0][0] == pytest.approx(found[1][0], rel=1e-5)
    np.testing.assert_allclose(found[0][1], found[1][1], atol=1e-5)
