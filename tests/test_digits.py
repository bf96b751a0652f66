"""digits: read through scikit-learn, scaled, and divided so that the test images never change."""

import json

import numpy as np
import pytest

from fastnet.data import digits, load
from fastnet.data.splits import stratified

pytest.importorskip("sklearn", reason="scikit-learn is not installed (pip install 'fastnet[digits]')")


def test_shapes_types_and_levels():
    data = load("digits")
    assert data.name == "digits" and data.classes == tuple("0123456789")
    assert data.train.images.shape == (1300, 8, 8, 1) and data.train.images.dtype == np.uint8
    assert data.validation.images.shape == (200, 8, 8, 1) and data.test.images.shape == (297, 8, 8, 1)
    # The 17 levels of the source, 255/16 apart and rounded.
    assert np.unique(data.train.images).tolist() == [int(255 * level / 16 + 0.5) for level in range(17)]
    assert json.loads(json.dumps(data.identity)) == data.identity
    assert data.identity["form"] == "scikit-learn" and data.identity["split"] == "1300/200"


def test_every_image_is_in_one_split_with_its_label():
    from sklearn.datasets import load_digits

    theirs = load_digits()
    source = digits.read()
    ours = np.concatenate([source.train_images, source.test_images])
    labels = np.concatenate([source.train_labels, source.test_labels])
    assert len(ours) == len(theirs.images) == 1797

    def listed(images, labels):
        return sorted((bytes(image.astype(np.uint8)), int(label)) for image, label in zip(images, labels, strict=True))

    # 255 / 16 apart, the scaled levels round back to the source's.
    assert listed(np.rint(ours[..., 0] * (16 / 255)), labels) == listed(theirs.images, theirs.target)


def test_the_test_images_are_a_fixed_stratified_part():
    a, b = load("digits", seed=0), load("digits", seed=1, split="1000/500")
    np.testing.assert_array_equal(a.test.images, b.test.images)
    assert set(a.train.indices) != set(b.train.indices)
    counts = np.bincount(a.test.labels)
    share = 297 * (np.bincount(digits.read().train_labels) + counts) / 1797
    assert counts.sum() == 297 and (np.abs(counts - share) < 1).all()


def test_the_contents_are_recognised(monkeypatch):
    identity = digits.read().identity
    assert identity["official"] is True and identity["sha256"] == digits.SHA256 and identity["notice"] is None
    monkeypatch.setattr(digits, "SHA256", "0" * 64)
    identity = digits.read().identity
    assert identity["official"] is False and "differ from those that were known" in identity["notice"]


def test_without_scikit_learn_one_line_names_the_extra(without):
    without("sklearn")
    with pytest.raises(ImportError) as error:
        load("digits")
    assert str(error.value) == "digits: scikit-learn is needed: pip install 'fastnet[digits]'"


@pytest.mark.parametrize(("sizes", "count"), [
    ((10, 20, 70), 10), ((7, 1, 12, 3), 9), ((5, 5), 1), ((4, 3), 7), ((3,), 0)])
def test_a_stratified_part_has_its_share_of_every_class(sizes, count):
    labels = np.random.default_rng(0).permutation(np.repeat(np.arange(len(sizes)), sizes))
    at = stratified(labels, count)
    assert len(at) == len(set(at)) == count and (np.diff(at) > 0).all()
    share = np.array(sizes) * count / sum(sizes)
    assert (np.abs(np.bincount(labels[at], minlength=len(sizes)) - share) < 1).all()
    np.testing.assert_array_equal(stratified(labels, count), at)
