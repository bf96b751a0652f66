"""The kernels in Numba-CUDA, in Numba's simulator: they run as Python, every CUDA thread as one of Python's.

`test_numba_cuda.py` runs this file in a process of its own, with NUMBA_ENABLE_CUDASIM=1. A thread costs so much here
that blocks are small, and so are images.
"""

import numpy as np
import pytest
import test_optimizers
from emulator import engine
from emulator.arrays import NAMESPACE, emulated
from numba import cuda
from placed import dropout_net
from test_augmentation import arguments, random_options
from test_optimizers import ALL, PENALTIES, worst_errors
from test_philox import KNOWN
from tiny import dataset

import fastnet as fn
from fastnet import backend, devices
from fastnet.data import Augmentation, Batches, Standardization
from fastnet.functions import augment_batch, average_update, soft_threshold, standardize_batch
from fastnet.functions._update import Regularization
from fastnet.kernels.cuda import _launch, _numba, _update
from fastnet.kernels.cuda import standardize_batch as gathering
from fastnet.kernels.cuda._philox import philox

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


# --- random words, images ---

@cuda.jit
def _rounds(counter, key, words):
    for j, word in enumerate(philox(counter[0], counter[1], counter[2], counter[3], key[0], key[1])):
        words[j] = word


@pytest.mark.parametrize(("counter", "key", "answer"), KNOWN)
def test_the_rounds_give_the_known_answers(counter, key, answer):
    words = np.zeros(4, np.uint64)
    _rounds[1, 1](np.array(counter, np.uint64), np.array(key, np.uint64), words)
    assert tuple(words.tolist()) == answer


SHAPES = pytest.mark.parametrize(("shape", "dtype"), [((9, 12, 3), "float32"), ((12, 9, 1), "float64")])


@SHAPES
@pytest.mark.parametrize("seed", range(6))
def test_augmented_images_have_the_bits_of_the_reference(shape, dtype, seed):
    rng = np.random.default_rng([seed, *shape])
    given, options = arguments(shape, 5, dtype), random_options(rng)
    key = (int(rng.integers(2**63)), int(rng.integers(2**32)))
    same_bits(call("augment_batch", *given, key=key, dtype=dtype, **options).get(),
              augment_batch.run(*given, key=key, dtype=dtype, **options))


@SHAPES
@pytest.mark.parametrize("crop", [(0.001, 0.002), (0.08, 1.0)], ids=["last resort", "usual"])
def test_resized_crops_have_the_bits_of_the_reference(shape, dtype, crop):
    """All attempts of the first are too small for a pixel."""
    given, options = arguments(shape, 5, dtype), {"key": (2**64 - 1, 2**32 - 1), "resized_crop": crop, "cutout": 3,
                                                  "horizontal_flip": True, "vertical_flip": True, "dtype": dtype}
    same_bits(call("augment_batch", *given, **options).get(), augment_batch.run(*given, **options))


@SHAPES
def test_standardized_images_have_the_bits_of_the_reference(shape, dtype):
    images, indices, _, mean, scale = arguments(shape, 5, dtype)
    for wanted in (dtype, "float16"):
        y = call("standardize_batch", images, indices.astype(np.int32), mean, scale, dtype=wanted)
        same_bits(y.get(), standardize_batch.run(images, indices, mean, scale, dtype=wanted))


def test_views_are_gathered_as_their_copies():
    images, indices, samples, mean, scale = arguments(batch=4)
    views = [emulated(np.repeat(a, 2, axis=0))[::2] for a in (images, indices, samples, mean, scale)]
    with backend.use("cuda"):
        y = backend.call("augment_batch", *views, key=(1, 2), pad=2)
    same_bits(y.get(), augment_batch.run(images, indices, samples, mean, scale, key=(1, 2), pad=2))


@pytest.mark.parametrize("options", [{}, {"pad": 2}, {"resized_crop": (0.1, 1.0)}], ids=str)
def test_an_index_that_is_no_image_makes_its_sample_nan(options):
    images, indices, samples, mean, scale = arguments(batch=4)
    indices[1], indices[2] = len(images), -1
    y = (call("augment_batch", images, indices, samples, mean, scale, key=(1, 2), **options) if options else
         call("standardize_batch", images, indices, mean, scale)).get()
    assert np.isnan(y).all(axis=(1, 2, 3)).tolist() == np.isnan(y).any(axis=(1, 2, 3)).tolist() == [
        False, True, True, False]


def test_what_the_kernels_do_not_take_goes_to_the_reference():
    images, indices, samples, mean, scale = map(emulated, arguments(batch=4))
    assert backend.pair("standardize_batch", images, indices, mean, scale) is gathering
    for wrong in ((images.astype(np.int16), indices, mean, scale), (images, indices[:0], mean, scale),
                  (images, indices.astype(float), mean, scale), (images, indices, mean[1:], scale[1:]),
                  (images, indices, mean.astype(np.float16), scale.astype(np.float16))):
        assert backend.pair("standardize_batch", *wrong) is standardize_batch
    fine = (images, indices, samples, mean, scale)
    assert backend.pair("augment_batch", *fine, key=(1, 2)) is not augment_batch
    assert backend.pair("augment_batch", *fine, key=(1, 2**32)) is augment_batch
    assert backend.pair("augment_batch", *fine, key=(1, 2), cutout=9) is augment_batch
    assert not gathering.supports(*arguments(batch=4)[:2], *arguments(batch=4)[3:])


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
    assert launched == ["_crop", "_momentum"] * 2
    assert found[0][0] == pytest.approx(found[1][0], rel=1e-5)
    np.testing.assert_allclose(found[0][1], found[1][1], atol=1e-5)
