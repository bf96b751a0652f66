"""Images that CUDA kernels gather, augment and standardize, on the emulator: bit for bit the reference's."""

import functools
import re

import numpy as np
import pytest
from emulator import engine
from emulator.arrays import NAMESPACE, emulated
from test_augmentation import arguments, random_options

from fastnet import backend
from fastnet.data import permutation
from fastnet.functions import augment_batch, philox
from fastnet.kernels.cuda import _launch, _nvrtc
from fastnet.kernels.cuda import augment_batch as augmenting

engine.install()


@pytest.fixture(autouse=True)
def few_blocks(monkeypatch):
    monkeypatch.setattr(_launch, "MOST_BLOCKS", 3)  # the loops have to go round


def call(name, *arrays, **options):
    with backend.use("cuda"):
        return backend.call(name, *map(emulated, arrays), **options)


def same_bits(a, b):
    np.testing.assert_array_equal(a.view(f"u{a.itemsize}"), b.view(f"u{b.itemsize}"))


SHAPES = pytest.mark.parametrize(("shape", "dtype"), [((9, 12, 3), "float32"), ((12, 9, 1), "float64"),
                                                      ((9, 9, 3), "float16")])


def given_for(shape, dtype):
    """Arrays for results of `dtype`; those of 16 bits are computed in float32."""
    return arguments(shape, 5, "float32" if dtype == "float16" else dtype)


@SHAPES
@pytest.mark.parametrize("seed", range(6))
def test_augmented_images_have_the_bits_of_the_reference(shape, dtype, seed):
    rng = np.random.default_rng([seed, *shape])
    given, options = given_for(shape, dtype), random_options(rng)
    key = (int(rng.integers(2**63)), int(rng.integers(2**32)))
    same_bits(call("augment_batch", *given, key=key, dtype=dtype, **options).get(),
              augment_batch.run(*given, key=key, dtype=dtype, **options))


@SHAPES
@pytest.mark.parametrize("crop", [(0.001, 0.002), (0.08, 1.0)], ids=["last resort", "usual"])
def test_resized_crops_have_the_bits_of_the_reference(shape, dtype, crop):
    """All attempts of the first are too small for a pixel."""
    given, options = given_for(shape, dtype), {"key": (2**64 - 1, 2**32 - 1), "resized_crop": crop, "cutout": 3,
                                               "horizontal_flip": True, "vertical_flip": True, "dtype": dtype}
    same_bits(call("augment_batch", *given, **options).get(), augment_batch.run(*given, **options))


def test_views_are_gathered_as_their_copies():
    images, indices, samples, mean, scale = arguments(batch=4)
    views = [emulated(np.repeat(a, 2, axis=0))[::2] for a in (images, indices, samples, mean, scale)]
    with backend.use("cuda"):
        y = backend.call("augment_batch", *views, key=(1, 2), pad=2)
    same_bits(y.get(), augment_batch.run(images, indices, samples, mean, scale, key=(1, 2), pad=2))


@pytest.mark.parametrize("options", [{"pad": 2}, {"resized_crop": (0.1, 1.0)}], ids=str)
def test_an_index_that_is_no_image_makes_its_sample_nan(options):
    images, indices, samples, mean, scale = arguments(batch=4)
    indices[1], indices[2] = len(images), -1
    y = call("augment_batch", images, indices, samples, mean, scale, key=(1, 2), **options).get()
    assert np.isnan(y).all(axis=(1, 2, 3)).tolist() == np.isnan(y).any(axis=(1, 2, 3)).tolist() == [
        False, True, True, False]


def test_what_the_kernels_do_not_take_goes_to_the_reference():
    images, indices, samples, mean, scale = fine = list(map(emulated, arguments(batch=4)))

    def chosen(*arrays, key=(1, 2), **options):
        return backend.pair("augment_batch", *arrays, key=key, **options)

    assert chosen(*fine) is augmenting
    for place, wrong in ((0, images.astype(np.int16)), (1, indices.astype(float)), (1, indices[1:]),
                         (2, samples.astype(float)), (2, samples[1:]), (3, mean[1:]), (4, scale.astype(np.float16))):
        assert chosen(*fine[:place], wrong, *fine[place + 1:]) is augment_batch
    assert chosen(images, indices[:0], samples[:0], mean, scale) is augment_batch
    for wrong in ({"dtype": "float64"}, {"key": (1, 2**32)}, {"cutout": 9}):
        assert chosen(*fine, **wrong) is augment_batch
    assert not augmenting.supports(*arguments(batch=4), key=(1, 2))


def test_an_epoch_is_shuffled_on_the_device(monkeypatch):
    """By the order of the keys, also where two samples have the same key, and go by their ids."""
    ids, run = np.random.default_rng(0).permutation(300) + 7, philox.run
    options = {"seed": 5, "stream": philox.SHUFFLE, "epoch": 3}
    for mask, how in ((2**32 - 1, "cuda"), (7, "reference")):
        monkeypatch.setattr(philox, "run", functools.wraps(run)(lambda *a, mask=mask, **o: run(*a, **o) & mask))
        words = philox.run(ids, **options, count=2).tolist()
        expected = sorted(range(300), key=lambda i, words=words: (words[i], ids[i]))
        with backend.use(how):
            order = permutation(emulated(ids), **options)
        assert order.__array_namespace__() is NAMESPACE
        assert order.get().tolist() == expected


def fused(name, storage):
    """The fused products in what the compiler makes of a kernel's source, as SASS or PTX would name them."""
    from cuda.bindings import nvrtc

    source = _launch.FOLDER / f"{name}.cu"
    given = _nvrtc.headers()
    program = _nvrtc._checked(nvrtc.nvrtcCreateProgram(source.read_bytes(), b"", len(given), [
        text.encode() for text in given.values()], [n.encode() for n in given]))
    options = [o.encode() for o in (*_nvrtc.OPTIONS[:2], "-arch=compute_80", f"-DFN_T={storage}")]
    _nvrtc._checked((*nvrtc.nvrtcCompileProgram(program, len(options), options), None))
    text = _nvrtc._text(nvrtc.nvrtcGetPTXSize, nvrtc.nvrtcGetPTX, program).decode()
    return re.findall(r"fma\.rn\.f\d\d.*", text), text


@pytest.mark.parametrize("storage", ["float", "double"])
def test_images_are_rounded_on_a_card_as_here(storage):
    """No product is fused with a sum, every quotient and root is rounded to the nearest, nothing is flushed to 0."""
    pytest.importorskip("cuda.bindings.nvrtc", reason="the extra gpu-test is not installed")
    products, text = fused("augment_batch", storage)
    # By a power of two a product is exact anyway.
    assert not [line for line in products if not re.search(r"0d3F[C-E]0000000000000", line)]
    assert not re.search(r"\.approx|\.full|\.ftz", text)
    assert "sqrt.rn.f64" in text
    assert fused("batch_norm", storage)[0]
