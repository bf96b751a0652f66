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
from test_optimizers import ALL, PENALTIES, worst_errors
from tiny import dataset

import fastnet as fn
from fastnet import backend, devices
from fastnet.data import Augmentation, Batches, Standardization
from fastnet.functions import average_update, soft_threshold
from fastnet.functions._update import Regularization
from fastnet.kernels.cuda import _launch, _numba, _update

engine.install()
_numba.LIBRARIES["emulated"] = _numba.Library(lambda x: x._raw, lambda: 0)


@pytest.fixture(autouse=True)
def small(monkeypatch):
    monkeypatch.setattr(_numba, "THREADS", 4)
    monkeypatch.setattr(_launch, "MOST_BLOCKS", 3)  # the loops have to go round


def same_bits(a, b):
    np.testing.assert_array_equal(a.view(f"u{a.itemsize}"), b.view(f"u{b.itemsize}"))


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
