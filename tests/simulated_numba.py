"""The kernels in Numba-CUDA, in Numba's simulator: they run as Python, every CUDA thread as one of Python's.

`test_numba_cuda.py` runs this file in a process of its own, with NUMBA_ENABLE_CUDASIM=1. A thread costs so much here
that blocks are small, and so are images.
"""

import numpy as np
import pytest
from emulator import engine
from emulator.arrays import NAMESPACE, emulated
from placed import dropout_net
from test_augmentation import arguments
from tiny import dataset

import fastnet as fn
from fastnet import backend, devices
from fastnet.data import Batches, Standardization
from fastnet.functions import standardize_batch
from fastnet.kernels.cuda import _launch, _numba
from fastnet.kernels.cuda import standardize_batch as gathering

engine.install()
_numba.LIBRARIES["emulated"] = _numba.Library(lambda x: x._raw, lambda: 0)


@pytest.fixture(autouse=True)
def small(monkeypatch):
    monkeypatch.setattr(gathering, "THREADS", (3, 2))
    monkeypatch.setattr(_launch, "MOST_BLOCKS", 3)  # the loops have to go round


def call(name, *arrays, **options):
    with backend.use("cuda"):
        return backend.call(name, *map(emulated, arrays), **options)


def same_bits(a, b):
    np.testing.assert_array_equal(a.view(f"u{a.itemsize}"), b.view(f"u{b.itemsize}"))


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


def test_steps_from_images_to_updates_are_the_cpu_s(monkeypatch):
    monkeypatch.setitem(devices.LIBRARIES, "emulated", lambda: NAMESPACE)
    split, found = dataset().train, []
    launched, launch = [], _numba.launch
    monkeypatch.setattr(_numba, "launch",
                        lambda kernel, *given: launched.append(kernel.__name__) or launch(kernel, *given))
    for device in ("cpu", "emulated"):
        model = dropout_net(device=device)
        step = fn.TrainStep(model, fn.SGD(0.05, momentum=0.9), penalty=fn.L2(0.01))
        batches = Batches(split, Standardization.fit(split.images), 10, seed=4, device=device)
        losses = [float(step(batch.x, batch.labels, batch.samples, 1)) for _, batch in zip(
            range(2), batches.epoch(1), strict=False)]
        found.append((losses, model.predict(split.images[:5].reshape(5, -1).astype(np.float32) / 255)))
    assert launched == ["_run"] * 2
    assert found[0][0] == pytest.approx(found[1][0], rel=1e-5)
    np.testing.assert_allclose(found[0][1], found[1][1], atol=1e-5)
