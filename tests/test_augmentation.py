"""Augmentation: kernel and reference bit for bit, each against plain loops, and the keys that make it repeatable."""

import json
import math

import numba
import numpy as np
import pytest
from strict_arrays import strict, unwrap

from fastnet import backend
from fastnet.data import Augmentation, Batches, Split, Standardization, load
from fastnet.functions import augment_batch, philox
from fastnet.train.evaluation import evaluate

KEY = (7, 3)
ALL = {"pad": 4, "horizontal_flip": True, "vertical_flip": True, "cutout": 5}


def arguments(shape=(12, 9, 3), batch=40, dtype="float32", seed=0):
    """images, indices, samples, mean, scale"""
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 256, (50, *shape), dtype=np.uint8)
    indices = rng.integers(0, 50, batch)
    return (images, indices, indices + 1000, rng.normal(120, 20, shape).astype(dtype),
            rng.uniform(0.01, 0.03, shape).astype(dtype))


def plain(images):
    """All samples of `images` once, with constants that leave the levels alone."""
    n, *shape = images.shape
    return images, np.arange(n), np.arange(n), np.zeros(shape, "f4"), np.ones(shape, "f4")


def augment(given, *, key=KEY, implementation=None, **options):
    if implementation is None:
        return backend.call("augment_batch", *given, key=key, **options)
    with backend.use(implementation):
        return backend.call("augment_batch", *given, key=key, **options)


def words(samples, key=KEY, count=48):
    """Random words as the table in `fastnet.functions.augment_batch` counts them, as Python's integers."""
    drawn = philox.run(np.asarray(samples), seed=key[0], stream=philox.AUGMENT, epoch=key[1], count=count)
    return [[int(w) for w in row] for row in drawn]


# --- the function and its kernel ---

def random_options(rng):
    cut = ({}, {"pad": int(rng.integers(1, 9))}, {"resized_crop": (0.08, 1.0)},
           {"resized_crop": tuple(sorted(rng.uniform(0.001, 1, 2).tolist()))})[rng.integers(4)]
    return cut | {"horizontal_flip": bool(rng.integers(2)), "vertical_flip": bool(rng.integers(2)),
                  "cutout": int(rng.integers(2) * rng.integers(1, 9))}


@pytest.mark.parametrize(("shape", "batch", "dtype"), [
    ((32, 32, 3), 40, "float32"), ((12, 9, 3), 40, "float32"), ((9, 17, 1), 40, "float32"), ((9, 9, 4), 40, "float32"),
    ((12, 9, 3), 7, "float64"), ((9, 17, 1), 7, "float64")])  # few, for the parallel kernels take long to compile
def test_kernel_and_reference_give_the_same_bits(shape, batch, dtype):
    rng = np.random.default_rng(5)
    given = arguments(shape, batch, dtype)
    copies = [a.copy() for a in given]
    for _ in range(20):
        options = random_options(rng)
        key = (int(rng.integers(2**63)), int(rng.integers(2**32)))
        y, expected = (augment(given, key=key, implementation=which, dtype=dtype, **options)
                       for which in ("cpu", "reference"))
        assert y.dtype == expected.dtype == dtype and y.shape == (batch, *shape) and y.flags.c_contiguous
        np.testing.assert_array_equal(y.view(f"u{y.itemsize}"), expected.view(f"u{y.itemsize}"), err_msg=str(options))
    for a, copy in zip(given, copies, strict=True):
        np.testing.assert_array_equal(a, copy)


@pytest.mark.parametrize("implementation", ["reference", "cpu"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_all_off_is_standardize_batch(implementation, dtype):
    given = arguments(dtype=dtype)
    images, indices, _, mean, scale = given
    expected = backend.call("standardize_batch", images, indices, mean, scale, dtype=dtype)
    np.testing.assert_array_equal(augment(given, implementation=implementation, dtype=dtype), expected)


@pytest.mark.parametrize("shape", [(32, 32, 3), (12, 9, 3), (9, 17, 1)])
@pytest.mark.parametrize("options", [
    {"pad": 4}, {"horizontal_flip": True}, {"vertical_flip": True}, {"cutout": 6}, ALL])
def test_every_pixel_is_where_the_words_say(shape, options):
    """Plain loops over pixels: crop, flips and cutout as the table of words has them."""
    given = images, indices, samples, mean, scale = arguments(shape, batch=30)
    y = augment(given, **options)
    height, width, _ = shape
    pad, side = options.get("pad", 0), options.get("cutout", 0)
    for b, w in enumerate(words(samples)):
        row0, column0 = (w[0] * (2 * pad + 1) >> 32), (w[1] * (2 * pad + 1) >> 32)
        padded = np.pad(images[indices[b]], ((pad, pad), (pad, pad), (0, 0)))
        centre = (w[4] * height >> 32), (w[5] * width >> 32)
        for i in range(height):
            for j in range(width):
                r = height - 1 - i if options.get("vertical_flip") and w[3] >= 2**31 else i
                c = width - 1 - j if options.get("horizontal_flip") and w[2] >= 2**31 else j
                expected = (padded[row0 + r, column0 + c].astype("f4") - mean[i, j]) * scale[i, j]
                if 0 <= i - centre[0] + side // 2 < side and 0 <= j - centre[1] + side // 2 < side:
                    expected[:] = 0
                assert (y[b, i, j] == expected).all(), (b, i, j)


def rectangle(w, height, width, lo, hi):
    """Top, left, height and width by the standard library's mathematics."""
    for k in range(10):
        area, ratio, row, column = w[8 + 4 * k : 12 + 4 * k]
        area = height * width * (lo + (hi - lo) * area / 2**32)
        ratio = math.exp(math.log(3 / 4) + (math.log(4 / 3) - math.log(3 / 4)) * ratio / 2**32)
        h, w_ = round(math.sqrt(area / ratio)), round(math.sqrt(area * ratio))
        if 0 < h <= height and 0 < w_ <= width:
            return row * (height - h + 1) >> 32, column * (width - w_ + 1) >> 32, h, w_
    if width / height < 3 / 4:
        h, w_ = round(width * 4 / 3), width
    elif width / height > 4 / 3:
        h, w_ = height, round(height * 4 / 3)
    else:
        h, w_ = height, width
    return (height - h) // 2, (width - w_) // 2, h, w_


@pytest.mark.parametrize("crop", [(0.08, 1.0), (0.3, 0.3), (0.9, 1.0)])
@pytest.mark.parametrize("shape", [(16, 16, 3), (12, 20, 1), (21, 9, 2)])
def test_a_resized_crop_is_the_rectangle_that_the_words_say(shape, crop):
    """On an image that rises evenly bilinear interpolation gives the line itself: no code of ours tells the truth."""
    height, width, _ = shape
    down, along = np.arange(height)[:, None, None], np.arange(width)[None, :, None]
    image = np.broadcast_to(5 * down + 3 * along, shape).astype(np.uint8)
    given = plain(np.repeat(image[None], 60, axis=0))
    y = augment(given, resized_crop=crop)
    for b, w in enumerate(words(given[2])):
        top, left, h, w_ = rectangle(w, height, width, *crop)
        rows = top + np.clip((np.arange(height) + 0.5) * h / height - 0.5, 0, h - 1)
        columns = left + np.clip((np.arange(width) + 0.5) * w_ / width - 0.5, 0, w_ - 1)
        expected = 5 * rows[:, None, None] + 3 * columns[None, :, None]
        np.testing.assert_allclose(y[b], np.broadcast_to(expected, shape), rtol=0, atol=1e-4)


def test_a_resized_crop_agrees_with_pillow():
    """Pillow's bilinear enlargement of the same rectangle, which rounds to whole levels on the way."""
    image = pytest.importorskip("PIL.Image", reason="Pillow is not installed")
    images = np.random.default_rng(0).integers(0, 256, (40, 32, 32, 3), dtype=np.uint8)
    y = augment(plain(images), resized_crop=(0.08, 1.0))
    for b, w in enumerate(words(np.arange(40))):
        top, left, h, w_ = rectangle(w, 32, 32, 0.08, 1.0)
        cut = image.fromarray(images[b, top : top + h, left : left + w_])
        assert np.abs(y[b] - np.asarray(cut.resize((32, 32), image.Resampling.BILINEAR))).max() <= 1.01


def test_resized_crops_have_the_areas_and_ratios_asked_for():
    drawn = philox.run(np.arange(4000), seed=1, stream=philox.AUGMENT, count=40)
    top, left, tall, wide = augment_batch._rectangles(np, 224, 224, drawn, (0.25, 0.5))
    assert (top >= 0).all() and (left >= 0).all() and (top + tall <= 224).all() and (left + wide <= 224).all()
    area, ratio = tall * wide / 224**2, np.log(wide / tall)
    for values, lo, hi in ((area, 0.25, 0.5), (ratio, math.log(3 / 4), math.log(4 / 3))):
        assert lo - 0.01 < values.min() and values.max() < hi + 0.01
        counts = np.histogram(values, bins=8, range=(lo, hi))[0]
        assert (np.abs(counts - 500) < 5 * math.sqrt(500)).all()
    for corner, free in ((top, 224 - tall), (left, 224 - wide)):
        assert abs((corner / free).mean() - 0.5) < 0.02


@pytest.mark.parametrize("implementation", ["reference", "cpu"])
def test_a_resized_crop_of_the_whole_square_changes_nothing(implementation):
    # No rectangle of the whole area fits but the square itself, so it is the last resort that is seen here.
    given = arguments((12, 12, 3))
    np.testing.assert_array_equal(augment(given, resized_crop=(1, 1), implementation=implementation), augment(given))


def test_where_no_attempt_fits_the_largest_centred_rectangle_is_taken():
    assert augment_batch.last_resort(12, 12) == (12, 12) and augment_batch.last_resort(20, 6) == (8, 6)
    assert augment_batch.last_resort(6, 20) == (6, 8) and augment_batch.last_resort(9, 12) == (9, 12)
    images = np.zeros((3, 20, 6, 1), np.uint8)
    images[:, 6:14] = 50  # rows 6..13 are the middle eight
    for implementation in ("reference", "cpu"):
        assert (augment(plain(images), resized_crop=(1, 1), implementation=implementation) == 50).all()


def test_the_series_is_the_exponential():
    half = np.linspace(-1, 1, 1001) * augment_batch.LOG_ASPECT / 2
    root = 1.0
    for k in range(augment_batch.TERMS, 0, -1):
        root = 1 + half * root / k
    np.testing.assert_allclose(root, np.exp(half), rtol=1e-13)


def test_a_crop_is_black_outside_the_image_before_standardization():
    given = images, indices, samples, mean, scale = arguments()
    y = augment((np.full_like(images, 9), indices, samples, mean, scale), pad=8)
    inside, outside = (np.float32(9) - mean) * scale, (np.float32(0) - mean) * scale
    assert ((y == inside) | (y == outside)).all() and (y == outside).mean() > 0.3
    assert (augment(given) != outside).any()


def test_cutout_is_a_square_of_zeros_that_may_leave_the_image():
    images = np.full((3000, 20, 20, 1), 77, np.uint8)
    for side in (1, 6, 7):
        hidden = augment(plain(images), cutout=side)[..., 0] == 0
        rows, columns = hidden.any(axis=2), hidden.any(axis=1)
        np.testing.assert_array_equal(hidden, rows[:, :, None] & columns[:, None, :])
        assert (augment(plain(images), cutout=side)[..., 0][~hidden] == 77).all()
        for line in (rows, columns):
            assert (np.abs(np.diff(line.astype(int), axis=1)).sum(axis=1) <= 2).all()  # one stretch
            assert line.sum(axis=1).max() == side and line.sum(axis=1).min() == side - side // 2
        # By its centre, a square covers on average this much of a side of 20.
        share = np.mean([min(20, c - side // 2 + side) - max(0, c - side // 2) for c in range(20)]) / 20
        assert abs(hidden.mean() - share**2) < 0.01
        assert (hidden.mean(axis=0) > 0).all()


def test_cutout_hides_after_the_other_transforms():
    given = arguments()
    with_it, without = (augment(given, **ALL | {"cutout": side}) for side in (5, 0))
    _, _, _, zeros, ones = plain(given[0])
    hidden = augment((np.full_like(given[0], 9), *given[1:3], zeros, ones), cutout=5) == 0
    np.testing.assert_array_equal(with_it, np.where(hidden, 0, without))


# --- draws ---

def test_offsets_and_flips_are_uniform():
    """Read from images whose every pixel is another: chi-square of 81 places and of 4 pairs of flips."""
    n = 8100
    image = np.zeros((9, 9, 2), np.uint8)
    image[..., 0], image[..., 1] = np.arange(10, 19)[:, None], np.arange(10, 19)
    given = plain(np.repeat(image[None], n, axis=0))
    at = augment(given, pad=4)[:, 4, 4] - 10  # what lies in the middle: 0..8 rows down and columns along
    counts = np.histogram2d(at[:, 0], at[:, 1], bins=9, range=((0, 9), (0, 9)))[0]
    assert counts.sum() == n and ((counts - 100) ** 2 / 100).sum() < 130  # 80 degrees of freedom: p = 0.0003
    corner = augment(given, horizontal_flip=True, vertical_flip=True)[:, 0, 0] > 10
    counts = np.histogram2d(corner[:, 0], corner[:, 1], bins=2)[0]
    assert ((counts - n / 4) ** 2 / (n / 4)).sum() < 18  # 3 degrees of freedom: p = 0.0004
    # And flips say nothing about offsets.
    for flip in corner.T:
        for place in at.T:
            assert abs(np.corrcoef(flip, place)[0, 1]) < 0.05


def test_a_sample_gets_the_same_in_any_batch():
    given = images, indices, samples, mean, scale = arguments(batch=40)
    for options in (ALL, {"resized_crop": (0.1, 1.0), "horizontal_flip": True, "cutout": 3}):
        together = augment(given, **options)
        for chosen in (np.array([3]), np.array([39, 0, 17]), np.arange(40)[::-1], np.arange(20)):
            some = augment((images, indices[chosen], samples[chosen], mean, scale), **options)
            np.testing.assert_array_equal(some, together[chosen])


def test_seed_epoch_and_sample_each_change_the_draw():
    images = np.repeat(np.random.default_rng(0).integers(0, 256, (1, 12, 12, 3), dtype=np.uint8), 60, axis=0)
    given = plain(images)
    first = augment(given, **ALL)
    shifted = (*given[:2], given[2] + 60, *given[3:])
    for other in (augment(given, key=(8, 3), **ALL), augment(given, key=(7, 4), **ALL), augment(shifted, **ALL)):
        assert (first == other).all(axis=(1, 2, 3)).mean() < 0.05


def test_no_transform_changes_what_another_draws():
    image = np.arange(12 * 12, dtype=np.uint8).reshape(1, 12, 12, 1)
    given = plain(np.repeat(image, 50, axis=0))
    crop = augment(given, pad=4)
    flipped = augment(given, pad=4, horizontal_flip=True)
    mirrored = np.array([w[2] >= 2**31 for w in words(given[2])])
    np.testing.assert_array_equal(flipped, np.where(mirrored[:, None, None, None], crop[:, :, ::-1], crop))
    resized = augment(given, resized_crop=(0.2, 0.8))
    both = augment(given, resized_crop=(0.2, 0.8), horizontal_flip=True, vertical_flip=True)
    turned = np.array([w[3] >= 2**31 for w in words(given[2])])
    resized = np.where(turned[:, None, None, None], resized[:, ::-1], resized)
    np.testing.assert_array_equal(both, np.where(mirrored[:, None, None, None], resized[:, :, ::-1], resized))


def test_threads_do_not_change_the_bits():
    given = arguments((32, 32, 3), batch=50)  # enough for the parallel kernels
    threads = numba.get_num_threads()
    for options in (ALL, {"resized_crop": (0.1, 1.0), "horizontal_flip": True}):
        results = []
        try:
            for count in {1, min(2, numba.config.NUMBA_NUM_THREADS)}:
                numba.set_num_threads(count)
                results.append(augment(given, implementation="cpu", **options))
        finally:
            numba.set_num_threads(threads)
        results += [np.concatenate([augment((given[0], *(a[k : k + 5] for a in given[1:3]), *given[3:]), **options)
                                    for k in range(0, 50, 5)])]  # few at a time: the serial kernels
        for y in results[1:]:
            np.testing.assert_array_equal(y, results[0])


# --- what does not fit ---

@pytest.mark.parametrize("implementation", ["reference", "cpu"])
def test_an_empty_batch_is_empty(implementation):
    images, _, _, mean, scale = arguments()
    none = np.arange(0)
    for options in (ALL, {"resized_crop": (0.1, 1.0)}):
        y = augment((images, none, none, mean, scale), implementation=implementation, **options)
        assert y.shape == (0, 12, 9, 3) and y.dtype == np.float32


def test_images_without_pixels_stay_so():
    given = arguments((2, 0, 3))
    for implementation in ("reference", "cpu"):
        assert augment(given, implementation=implementation, horizontal_flip=True).shape == (40, 2, 0, 3)


def test_what_the_kernel_does_not_take_goes_to_the_reference():
    given = images, *rest = arguments()
    for options in (ALL, {"resized_crop": (0.1, 1.0)}):
        expected = augment(given, **options)
        np.testing.assert_array_equal(augment((np.asfortranarray(images), *rest), **options), expected)
        half = augment(given, dtype="float16", **options)
        np.testing.assert_array_equal(half, expected.astype(np.float16))
        small = (images, *(np.repeat(a.astype(np.int32), 2)[::2] for a in rest[:2]), *rest[2:])
        np.testing.assert_array_equal(augment(small, implementation="cpu", **options), expected)


def test_the_reference_uses_nothing_that_numpy_arrays_alone_have():
    given = arguments(batch=6)
    for options in (ALL, {"resized_crop": (0.1, 1.0), "horizontal_flip": True}):
        y = augment_batch.run(*(strict(a) for a in given), key=KEY, **options)
        np.testing.assert_array_equal(unwrap(y), augment(given, **options))


@pytest.mark.parametrize(("change", "kind", "message"), [
    ({"images": np.zeros((50, 12, 9, 3))}, TypeError, "images are float64, but uint8 is needed"),
    ({"indices": np.full(40, 50)}, ValueError, r"index 50 is outside 0\.\.49"),
    ({"samples": np.zeros(40)}, TypeError, "samples are float64, but integers are needed"),
    ({"samples": np.arange(39)}, ValueError, r"samples have shape \(39,\) but indices \(40,\); one id a sample"),
    ({"key": (1,)}, ValueError, r"key must be \(seed, epoch\) of 64 and 32 bits but is \(1,\)"),
    ({"key": (2**64, 0)}, ValueError, r"key must be \(seed, epoch\)"),
    ({"key": (0, -1)}, ValueError, r"key must be \(seed, epoch\)"),
    ({"pad": 9}, ValueError, "pad 9 could hide a whole image: below 9 is needed for 12 x 9"),
    ({"cutout": 12}, ValueError, "cutout 12 could hide a whole image: below 9 is needed for 12 x 9"),
    ({"pad": -1}, ValueError, "pad must be a whole number of pixels, at least 0, but is -1"),
])
def test_augment_batch_says_what_does_not_fit(change, kind, message):
    given = dict(zip(("images", "indices", "samples", "mean", "scale"), arguments(), strict=True))
    options = {"key": KEY} | {k: v for k, v in change.items() if k not in given}
    given |= {k: v for k, v in change.items() if k in given}
    with pytest.raises(kind, match="augment_batch: .*" + message):
        backend.call("augment_batch", *given.values(), **options)


@pytest.mark.parametrize(("settings", "message"), [
    ({"pad": 1.5}, "pad must be a whole number of pixels, at least 0, but is 1.5"),
    ({"pad": True}, "pad must be a whole number of pixels, at least 0, but is True"),
    ({"cutout": -3}, "cutout must be a whole number of pixels, at least 0, but is -3"),
    ({"horizontal_flip": 1}, "horizontal_flip must be True or False but is 1"),
    ({"vertical_flip": "no"}, "vertical_flip must be True or False but is 'no'"),
    ({"resized_crop": 0.5},
     "resized_crop must be (lo, hi), parts of the image's area with 0 < lo <= hi <= 1, but is 0.5"),
    ({"resized_crop": (0.5,)}, "but is (0.5,)"),
    ({"resized_crop": ("a", "b")}, "but is ('a', 'b')"),
    ({"resized_crop": (0.0, 1.0)}, "but is (0.0, 1.0)"),
    ({"resized_crop": (0.8, 0.3)}, "but is (0.8, 0.3)"),
    ({"resized_crop": (0.5, 1.1)}, "but is (0.5, 1.1)"),
    ({"resized_crop": (math.nan, 1.0)}, "but is (nan, 1.0)"),
    ({"resized_crop": (0.5, 1.0), "pad": 4}, "pad and resized_crop both say what is cut out of the image: give one"),
])
def test_an_augmentation_says_what_does_not_exist(settings, message):
    with pytest.raises(ValueError) as error:
        Augmentation(**settings)
    assert str(error.value).startswith("Augmentation: ") and message in str(error.value)
    as_json = {k: list(v) if isinstance(v, tuple) else v for k, v in settings.items()}
    with pytest.raises(ValueError, match="Augmentation: "):
        Augmentation.from_settings(as_json)


# --- settings and batches ---

@pytest.mark.parametrize("augmentation", [
    Augmentation(), Augmentation(**ALL), Augmentation(resized_crop=(0.08, 1), horizontal_flip=True)])
def test_settings_survive_the_run_record(augmentation):
    settings = json.loads(json.dumps(augmentation.settings()))
    assert set(settings) == {"pad", "horizontal_flip", "vertical_flip", "resized_crop", "cutout"}
    assert Augmentation.from_settings(settings) == augmentation
    assert Augmentation.from_settings({}) == Augmentation()


def test_unknown_settings_are_named():
    with pytest.raises(ValueError, match=r"Augmentation: 'rotate': no such setting; there are pad, horizontal_flip, "):
        Augmentation.from_settings({"pad": 4, "rotate": 10})


def make(augmentation, size=10, **options):
    images = np.random.default_rng(2).integers(0, 256, (53, 8, 8, 3), dtype=np.uint8)
    split = Split(images, np.arange(53) % 10, np.arange(500, 553))
    return split, Batches(split, Standardization.fit(images, "channel"), size, augmentation=augmentation, **options)


CROP_AND_FLIP = Augmentation(pad=2, horizontal_flip=True)


def test_batches_are_augmented_by_sample_and_epoch():
    split, batches = make(CROP_AND_FLIP, seed=4)
    mean, scale = Standardization.fit(split.images, "channel").constants((8, 8, 3))
    for epoch in (0, 5):
        for x, labels, samples in batches.epoch(epoch):
            at = samples - 500
            expected = backend.call("augment_batch", split.images, at, samples, mean, scale, key=(4, epoch), pad=2,
                                    horizontal_flip=True)
            np.testing.assert_array_equal(x, expected)
            np.testing.assert_array_equal(labels, split.labels[at])


def by_sample(batches, epoch):
    found = list(batches.epoch(epoch))
    x, samples = np.concatenate([b.x for b in found]), np.concatenate([b.samples for b in found])
    return x[np.argsort(samples)]


def test_neither_batch_size_nor_shuffling_changes_a_sample():
    expected = by_sample(make(CROP_AND_FLIP)[1], 1)
    for options in ({"size": 53}, {"size": 1}, {"shuffle": False}):
        np.testing.assert_array_equal(by_sample(make(CROP_AND_FLIP, **options)[1], 1), expected)
    assert (by_sample(make(CROP_AND_FLIP)[1], 2) != expected).any(axis=(1, 2, 3)).mean() > 0.9


@pytest.mark.parametrize("augmentation", [
    CROP_AND_FLIP, Augmentation(resized_crop=(0.3, 1.0), vertical_flip=True, cutout=3)])
def test_a_restart_inside_an_epoch_goes_on_with_the_same_bits(augmentation):
    whole = list(make(augmentation, seed=3)[1].epoch(2))
    for start in (0, 1, 4, 6):
        rest = list(make(augmentation, seed=3)[1].epoch(2, start))
        assert len(rest) == len(whole) - start
        for a, b in zip(rest, whole[start:], strict=True):
            for left, right in zip(a, b, strict=True):
                np.testing.assert_array_equal(left, right)


def test_batches_may_be_float64_and_the_images_are_not_modified():
    split, batches = make(Augmentation(**ALL | {"cutout": 3}), dtype="float64")
    images = split.images.copy()
    first = next(batches.epoch(0))
    assert first.x.dtype == np.float64
    first.x[:] = np.nan
    np.testing.assert_array_equal(split.images, images)


@pytest.mark.parametrize("augmentation", [None, Augmentation()])
def test_without_transforms_batches_are_plain(augmentation, monkeypatch):
    split, batches = make(augmentation)
    called = []
    real = backend.call
    monkeypatch.setattr(backend, "call", lambda name, *a, **k: called.append(name) or real(name, *a, **k))
    np.testing.assert_array_equal(by_sample(batches, 0),
                                  Standardization.fit(split.images, "channel").apply(split.images))
    assert "augment_batch" not in called  # whose kernel would have to be compiled first


def test_images_that_are_too_small_are_found_before_the_first_batch():
    with pytest.raises(ValueError, match="Augmentation: pad 8 could hide a whole image: below 8 is needed for 8 x 8"):
        make(Augmentation(pad=8))


def test_evaluation_never_augments(monkeypatch):
    from fastnet import Linear, Sequential

    def refuse(*_, **__):
        raise AssertionError("augmented")

    monkeypatch.setattr(augment_batch, "run", refuse)
    monkeypatch.setattr("fastnet.kernels.cpu.augment_batch.run", refuse)
    data = load("shapes10", split="200/50")
    model = Sequential([Linear(3072, 10)], seed=0)
    evaluate(model, data.validation, Standardization.fit(data.train.images))
