"""Splits, standardization (from the training images alone) and batches (keyed, restartable)."""

import subprocess
import sys

import numpy as np
import pytest

from fastnet import backend
from fastnet.data import Batches, Split, Standardization, load, permutation
from fastnet.data import standardization as standardization_module
from fastnet.functions import philox


def images_of(n, seed=0, shape=(4, 5, 3)):
    return np.random.default_rng(seed).integers(0, 256, (n, *shape), dtype=np.uint8)


def split_of(n, seed=0, first=0):
    return Split(images_of(n, seed), np.arange(n, dtype=np.int64) % 10, np.arange(first, first + n, dtype=np.int64))


# --- splits ---

@pytest.mark.parametrize(("change", "kind", "message"), [
    ({"images": [[1]]}, TypeError, "images must be a NumPy array, got list"),
    ({"images": np.zeros((3, 2, 2, 1))}, ValueError, "images are float64, but uint8 is needed"),
    ({"images": np.zeros((3, 12), np.uint8)}, ValueError, r"images have shape \(3, 12\), but \(N, H, W, C\) is needed"),
    ({"labels": np.zeros(3, np.uint8)}, ValueError, "labels are uint8, but int64 is needed"),
    ({"labels": np.zeros((3, 1), np.int64)}, ValueError, r"labels have shape \(3, 1\), but \(N,\) is needed"),
    ({"indices": np.zeros(3)}, ValueError, "indices are float64, but int64 is needed"),
    ({"labels": np.zeros(4, np.int64)}, ValueError, "3 images, 4 labels and 3 indices, but each image needs one"),
])
def test_a_split_says_what_does_not_fit(change, kind, message):
    good = {"images": images_of(3), "labels": np.zeros(3, np.int64), "indices": np.arange(3)}
    assert len(Split(**good)) == 3
    with pytest.raises(kind, match=message):
        Split(**good | change)


def test_a_random_split_is_seeded_disjoint_and_in_the_order_of_the_files():
    data = load("shapes10", split="6000/3000", seed=7)
    train, validation = data.train.indices, data.validation.indices
    assert len(train) == 6000 and len(validation) == 3000
    assert (np.diff(train) > 0).all() and (np.diff(validation) > 0).all()
    assert not set(train) & set(validation) and not (train == np.arange(6000)).all()
    drawn = permutation(np.arange(10_000), seed=7, stream=philox.SPLIT)
    assert set(train) == set(drawn[:6000]) and set(validation) == set(drawn[6000:9000])
    whole = load("shapes10", split="10000/0", order="file")
    for part in (data.train, data.validation):
        np.testing.assert_array_equal(part.images, whole.train.images[part.indices])
        np.testing.assert_array_equal(part.labels, whole.train.labels[part.indices])
    assert len(whole.validation) == 0 and len(data.test) == 2000
    np.testing.assert_array_equal(load("shapes10", split="6000/3000", seed=7).train.indices, train)
    assert set(load("shapes10", split="6000/3000", seed=8).train.indices) != set(train)
    assert {k: data.identity[k] for k in ("name", "split", "order", "seed")} == {
        "name": "shapes10", "split": "6000/3000", "order": "random", "seed": 7}


def test_a_split_in_file_order_takes_the_first_then_the_next():
    data = load("shapes10", split="100/50", order="file", seed=3)
    assert data.train.indices.tolist() == list(range(100)) and data.validation.indices.tolist() == list(range(100, 150))
    np.testing.assert_array_equal(data.test.indices, np.arange(2000))


@pytest.mark.parametrize(("arguments", "message"), [
    ({"name": "mnist"}, "load: there is no data set 'mnist'; choose from cifar10, shapes10"),
    ({"order": "sorted"}, "load: order 'sorted' does not exist; choose from random, file"),
    ({"split": "9000/1001"}, "load: split '9000/1001' needs 10001 images, but shapes10 has 10000 for training"),
    ({"split": "0/100"}, "load: split '0/100' is not of the form 'A/B'"),
    ({"split": "9000"}, "load: split '9000' is not of the form 'A/B'"),
    ({"split": "-5/10"}, "load: split '-5/10' is not of the form 'A/B'"),
    ({"split": "90%/10%"}, "load: split '90%/10%' is not of the form 'A/B'"),
])
def test_load_says_what_does_not_fit(arguments, message):
    with pytest.raises(ValueError) as error:
        load(**{"name": "shapes10"} | arguments)
    assert message in str(error.value)


def test_the_package_imports_nothing_heavy():
    code = ("import sys, fastnet.data; heavy = 'numba scipy matplotlib pooch tqdm requests sklearn PIL'.split(); "
            "print([m for m in heavy if m in sys.modules])")
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


# --- standardization ---

def test_pixel_statistics_are_those_of_numpy():
    images = images_of(1300)
    s = Standardization.fit(images)
    assert s.per == "pixel" and s.mean.shape == s.std.shape == (4, 5, 3) and s.mean.dtype == np.float64
    np.testing.assert_allclose(s.mean, images.mean(axis=0), rtol=1e-15)
    np.testing.assert_allclose(s.std, images.std(axis=0), rtol=1e-13)


def test_channel_statistics_are_those_of_numpy():
    images = images_of(700)
    s = Standardization.fit(images, "channel")
    assert s.per == "channel" and s.mean.shape == s.std.shape == (3,)
    np.testing.assert_allclose(s.mean, images.mean(axis=(0, 1, 2)), rtol=1e-14)
    np.testing.assert_allclose(s.std, images.std(axis=(0, 1, 2)), rtol=1e-13)


@pytest.mark.parametrize("per", ["pixel", "channel"])
def test_statistics_do_not_depend_on_chunks_or_order(per, monkeypatch):
    images = images_of(1100)
    a = Standardization.fit(images, per)
    monkeypatch.setattr(standardization_module, "CHUNK", 17)
    b = Standardization.fit(images[::-1], per)
    np.testing.assert_array_equal(a.mean, b.mean)
    np.testing.assert_array_equal(a.std, b.std)


@pytest.mark.parametrize("per", ["pixel", "channel"])
def test_the_brightest_images_do_not_overflow(per):
    s = Standardization.fit(np.full((3000, 8, 8, 1), 255, np.uint8), per)
    assert (s.mean == 255).all() and (s.std == 0).all()


def test_per_channel_sums_of_a_large_set_do_not_overflow():
    # n * sum(x^2) passes 2^64 here: 6.6e7 * 6.6e7 * 255^2 / 2; a view repeats one image without the memory.
    image = np.zeros((1, 256, 256, 1), np.uint8)
    image[0, ::2] = 255
    s = Standardization.fit(np.broadcast_to(image, (1000, 256, 256, 1)), "channel")
    assert s.mean == 127.5 and s.std == 127.5


@pytest.mark.parametrize("per", ["pixel", "channel"])
def test_applied_to_its_own_images_mean_is_zero_and_variance_one(per):
    images = images_of(500)
    x = Standardization.fit(images, per).apply(images, "float64")
    axis = 0 if per == "pixel" else (0, 1, 2)
    np.testing.assert_allclose(x.mean(axis=axis), 0, atol=1e-12)
    np.testing.assert_allclose(x.std(axis=axis), 1, rtol=1e-12)


def test_apply_subtracts_the_mean_and_divides_by_the_deviation():
    images = images_of(50)
    s = Standardization.fit(images)
    x = s.apply(images)
    assert x.dtype == np.float32 and x.shape == images.shape and x.flags.c_contiguous
    np.testing.assert_allclose(x, (images - images.mean(axis=0)) / images.std(axis=0), atol=1e-5)
    np.testing.assert_array_equal(s.apply(images[::-1, :, ::-1][::-1, :, ::-1]), x)  # any strides, the same bits
    np.testing.assert_array_equal(s.apply(np.ascontiguousarray(images[7:9])), x[7:9])


def test_a_pixel_that_never_varies_stays_zero():
    images = images_of(20)
    images[:, 1, 2, 0] = 9
    s = Standardization.fit(images)
    assert s.std[1, 2, 0] == 0
    x = s.apply(images)
    assert (x[:, 1, 2, 0] == 0).all() and np.isfinite(x).all()
    images[0, 1, 2, 0] = 12
    assert s.apply(images)[0, 1, 2, 0] == 3  # scale 1


@pytest.mark.parametrize("per", ["pixel", "channel"])
def test_validation_and_test_images_do_not_leak_into_the_constants(per):
    data = load("shapes10", split="500/500", seed=2)
    before = Standardization.fit(data.train.images, per)
    # The same data set, with every image outside the training split painted over.
    source = load("shapes10", split="10000/0", order="file").train.images.copy()
    kept = np.zeros(len(source), bool)
    kept[data.train.indices] = True
    source[~kept] = 255
    after = Standardization.fit(source[data.train.indices], per)
    np.testing.assert_array_equal(before.mean, after.mean)
    np.testing.assert_array_equal(before.std, after.std)
    everything = Standardization.fit(source, per)
    assert not (everything.mean == before.mean).any()  # so a leak would show


def test_the_constants_survive_a_checkpoint():
    for per in ("pixel", "channel"):
        s = Standardization.fit(images_of(30), per)
        again = Standardization.from_arrays({name: a.copy() for name, a in s.arrays().items()})
        assert again.per == per
        np.testing.assert_array_equal(again.mean, s.mean)
        np.testing.assert_array_equal(again.std, s.std)


@pytest.mark.parametrize(("make", "message"), [
    (lambda: Standardization.fit(images_of(3), "image"), "per 'image' does not exist; choose from pixel, channel"),
    (lambda: Standardization.fit(images_of(0)), "there are no images to compute the mean from"),
    (lambda: Standardization.fit(images_of(3).astype("f4")), "images are float32(3, 4, 5, 3), but uint8 (N, H, W, C)"),
    (lambda: Standardization.fit(images_of(3)[0]), "images are uint8(4, 5, 3), but uint8 (N, H, W, C) is needed"),
    (lambda: Standardization(np.zeros(3), np.ones(3), "pixel"), "per pixel both need (H, W, C)"),
    (lambda: Standardization(np.zeros(3), np.ones(4), "channel"), "per channel both need (C,)"),
    (lambda: Standardization(np.zeros(3), -np.ones(3), "channel"), "must be finite and std at least 0"),
    (lambda: Standardization(np.full(3, np.nan), np.ones(3), "channel"), "must be finite and std at least 0"),
    (lambda: Standardization.fit(images_of(3)).apply(images_of(2, shape=(5, 5, 3))),
     "the images are (5, 5, 3) (H, W, C), but the mean is per pixel and has shape (4, 5, 3)"),
    (lambda: Standardization.fit(images_of(3), "channel").apply(images_of(2, shape=(5, 5, 1))),
     "the images are (5, 5, 1) (H, W, C), but the mean is per channel and has shape (3,)"),
])
def test_standardization_says_what_does_not_fit(make, message):
    with pytest.raises(ValueError) as error:
        make()
    assert message in str(error.value)


def test_channel_constants_fit_images_of_any_size():
    s = Standardization.fit(images_of(9), "channel")
    assert s.apply(images_of(2, shape=(7, 2, 3))).shape == (2, 7, 2, 3)


# --- the function and its kernel ---

def _arguments(dtype, shape=(6, 5, 3), n=40, batch=23):
    rng = np.random.default_rng(1)
    images = images_of(n, shape=shape)
    return (images, rng.integers(0, n, batch), rng.normal(120, 20, shape).astype(dtype),
            rng.uniform(0.01, 0.03, shape).astype(dtype))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("shape", [(6, 5, 3), (32, 32, 3), (1, 1, 1), (2, 0, 3)])
def test_kernel_and_reference_give_the_same_bits(dtype, shape):
    arguments = _arguments(dtype, shape)
    copies = [a.copy() for a in arguments]
    results = {}
    for implementation in ("reference", "cpu"):
        with backend.use(implementation):
            results[implementation] = backend.call("standardize_batch", *arguments, dtype=dtype)
    y = results["cpu"]
    assert y.dtype == dtype and y.shape == (23, *shape) and y.flags.c_contiguous
    np.testing.assert_array_equal(y, results["reference"])
    images, indices, mean, scale = arguments
    np.testing.assert_array_equal(y, (images[indices].astype(dtype) - mean) * scale)
    for a, copy in zip(arguments, copies, strict=True):
        np.testing.assert_array_equal(a, copy)


def test_an_empty_batch_is_empty():
    images, _, mean, scale = _arguments("float32")
    for implementation in ("reference", "cpu"):
        with backend.use(implementation):
            y = backend.call("standardize_batch", images, np.arange(0), mean, scale)
            assert y.shape == (0, 6, 5, 3) and y.dtype == np.float32


def test_what_the_kernel_does_not_take_goes_to_the_reference():
    images, indices, mean, scale = _arguments("float32")
    expected = backend.call("standardize_batch", images, indices, mean, scale)
    turned = np.asfortranarray(images)
    np.testing.assert_array_equal(backend.call("standardize_batch", turned, indices, mean, scale), expected)
    half = backend.call("standardize_batch", images, indices, mean, scale, dtype="float16")
    assert half.dtype == np.float16
    np.testing.assert_array_equal(half, expected.astype(np.float16))


@pytest.mark.parametrize(("change", "kind", "message"), [
    ({"images": np.zeros((40, 6, 5, 3))}, TypeError, "images are float64, but uint8 is needed"),
    ({"indices": np.zeros(3)}, TypeError, "indices are float64, but integers are needed"),
    ({"mean": np.zeros((6, 5, 3), int)}, TypeError, "mean is int64, but floating-point numbers are needed"),
    ({"mean": np.zeros((6, 5, 3))}, TypeError, "mean is float64 but scale is float32"),
    ({"mean": np.zeros(3, "f4")}, ValueError, r"images \(40, 6, 5, 3\), indices \(23,\), mean \(3,\) and scale"),
    ({"images": np.zeros((40, 90), np.uint8)}, ValueError, r"images \(40, 90\), indices"),
    ({"indices": np.array([[1]])}, ValueError, r"indices \(1, 1\)"),
    ({"indices": np.array([3, 40, 41])}, ValueError, "index 40 is outside 0..39"),
    ({"indices": np.array([40])}, ValueError, "index 40 is outside 0..39"),
    ({"indices": np.array([3, -1])}, ValueError, "index -1 is outside 0..39"),
])
def test_standardize_batch_says_what_does_not_fit(change, kind, message):
    arguments = dict(zip(("images", "indices", "mean", "scale"), _arguments("float32"), strict=True)) | change
    with pytest.raises(kind, match="standardize_batch: .*" + message):
        backend.call("standardize_batch", *arguments.values())


# --- batches ---

def test_a_permutation_holds_every_position_once_and_is_keyed_by_id():
    ids = np.arange(1000, 3000)
    order = permutation(ids, seed=1, stream=philox.SHUFFLE, epoch=2)
    assert sorted(order) == list(range(2000)) and not (order == np.arange(2000)).all()
    # Any subset comes in the order that it has within the whole.
    some = np.sort(np.random.default_rng(0).choice(ids, 300, replace=False))
    of_some = some[permutation(some, seed=1, stream=philox.SHUFFLE, epoch=2)]
    whole = ids[order]
    np.testing.assert_array_equal(of_some, whole[np.isin(whole, some)])
    for other in ({"seed": 2}, {"stream": philox.SPLIT}, {"epoch": 3}):
        again = permutation(ids, **{"seed": 1, "stream": philox.SHUFFLE, "epoch": 2} | other)
        assert (again == order).mean() < 0.01


def test_a_permutation_is_uniform():
    # Each of 6 places holds each of 6 ids equally often: 36 counts of about 200, by chi-square (25 degrees of freedom).
    counts = np.zeros((6, 6))
    with backend.use("reference"):
        for epoch in range(1200):
            counts[np.arange(6), permutation(np.arange(6), seed=9, stream=philox.SHUFFLE, epoch=epoch)] += 1
    assert ((counts - 200) ** 2 / 200).sum() < 60


def test_equal_keys_go_by_id(monkeypatch):
    monkeypatch.setattr(backend, "call", lambda name, ids, **key: np.zeros((len(ids), 2), np.uint32))
    ids = np.array([5, 2, 9])
    assert ids[permutation(ids, seed=0, stream=0)].tolist() == [2, 5, 9]


def test_both_key_words_count(monkeypatch):
    words = np.array([[1, 2], [1, 1], [0, 9]], np.uint32)
    monkeypatch.setattr(backend, "call", lambda name, ids, **key: words)
    assert permutation(np.arange(3), seed=0, stream=0).tolist() == [2, 1, 0]


def collect(batches, epoch, start=0):
    return list(batches.epoch(epoch, start))


def make(n=103, size=10, **options):
    split = split_of(n, first=500)
    return split, Batches(split, Standardization.fit(split.images), size, **options)


def test_an_epoch_holds_every_sample_once_the_last_batch_being_smaller():
    split, batches = make()
    epoch = collect(batches, 0)
    assert len(epoch) == len(batches) == 11 and [len(b.labels) for b in epoch] == [10] * 10 + [3]
    samples = np.concatenate([b.samples for b in epoch])
    np.testing.assert_array_equal(np.sort(samples), split.indices)
    np.testing.assert_array_equal(split.indices[permutation(split.indices, seed=0, stream=philox.SHUFFLE)], samples)
    x = Standardization.fit(split.images).apply(split.images)
    for b in epoch:
        np.testing.assert_array_equal(b.x, x[b.samples - 500])
        np.testing.assert_array_equal(b.labels, split.labels[b.samples - 500])
        assert b.x.dtype == np.float32 and b.labels.dtype == b.samples.dtype == np.int64


def test_a_full_last_batch_is_not_followed_by_an_empty_one():
    _, batches = make(100, 10)
    assert len(batches) == len(collect(batches, 0)) == 10
    _, batches = make(100, 100)
    assert len(batches) == len(collect(batches, 0)) == 1


@pytest.mark.parametrize("shuffle", [True, False])
def test_a_restart_inside_an_epoch_goes_on_with_the_same_bits(shuffle):
    _, batches = make(seed=3, shuffle=shuffle)
    whole = collect(batches, 5)
    for start in (0, 1, 7, 10, 11):
        rest = collect(make(seed=3, shuffle=shuffle)[1], 5, start)
        assert len(rest) == 11 - start
        for a, b in zip(rest, whole[start:], strict=True):
            for left, right in zip(a, b, strict=True):
                np.testing.assert_array_equal(left, right)


def test_epochs_and_seeds_shuffle_differently_and_no_shuffle_keeps_the_order():
    split, batches = make(seed=1)
    orders = [np.concatenate([b.samples for b in collect(which, epoch)])
              for which, epoch in ((batches, 0), (batches, 1), (make(seed=2)[1], 0))]
    for a, b in ((0, 1), (0, 2), (1, 2)):
        assert (orders[a] == orders[b]).mean() < 0.1
    plain = make(shuffle=False)[1]
    for epoch in (0, 4):
        np.testing.assert_array_equal(np.concatenate([b.samples for b in collect(plain, epoch)]), split.indices)


def test_the_order_does_not_depend_on_the_batch_size():
    orders = [np.concatenate([b.samples for b in collect(make(size=size, seed=4)[1], 2)]) for size in (1, 10, 103)]
    np.testing.assert_array_equal(orders[0], orders[1])
    np.testing.assert_array_equal(orders[0], orders[2])


def test_a_kept_batch_is_not_overwritten_and_the_images_are_not_modified():
    split, batches = make()
    images = split.images.copy()
    iterator = batches.epoch(0)
    first = next(iterator)
    kept = first.x.copy()
    first.labels[:] = -1
    second = next(iterator)
    second.x[:] = np.nan
    np.testing.assert_array_equal(first.x, kept)
    np.testing.assert_array_equal(split.images, images)
    assert (split.labels >= 0).all()


def test_batches_may_be_float64():
    _, batches = make(dtype="float64")
    assert next(batches.epoch(0)).x.dtype == np.float64


@pytest.mark.parametrize(("n", "size", "message"), [
    (100, 1000, "batch size 1000 is larger than the 100 training images"), (100, 0, "batch size 0 is not at least 1"),
    (100, -3, "batch size -3 is not at least 1")])
def test_a_batch_size_that_does_not_fit_is_an_error(n, size, message):
    with pytest.raises(ValueError, match=message):
        make(n, size)


@pytest.mark.parametrize("start", [-1, 12])
def test_a_start_outside_the_epoch_is_an_error(start):
    with pytest.raises(ValueError, match=f"batch {start} does not exist: an epoch has 11 batches"):
        make()[1].epoch(0, start)
