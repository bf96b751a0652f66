"""digits: 1,797 handwritten digits, 8x8x1, ten classes, which scikit-learn brings along.

Their levels 0..16 become 0..255 by level * 255 / 16, halves rounded up. 297 images are the test images, always the
same ones and of every class the same part (`splits.stratified`); the other 1,500, in scikit-learn's order, are for
training.

Source: Alpaydin & Kaynak, "Optical recognition of handwritten digits", UCI Machine Learning Repository, 1998
(its test file); https://scikit-learn.org/stable/modules/generated/sklearn.datasets.load_digits.html
"""

import hashlib

import numpy as np

from fastnet.data.dataset import Source
from fastnet.data.splits import stratified

CLASSES = tuple("0123456789")
TEST = 297
SHA256 = "a19cb3d96bba7deace8ee5a513a6eb7bad0403d528f00bf4d351b6a7a55baa91"  # of the levels, then the labels


def read() -> Source:
    """The data set as it comes. Raises ImportError where scikit-learn is not installed."""
    try:
        from sklearn.datasets import load_digits
    except ImportError:
        raise ImportError("digits: scikit-learn is needed: pip install 'fastnet[digits]'") from None
    found = load_digits()
    images = ((found.images.astype(np.int64) * 255 + 8) // 16).astype(np.uint8)[..., None]
    labels = found.target.astype(np.int64)
    sha256 = hashlib.sha256(images.tobytes() + labels.astype(np.uint8).tobytes()).hexdigest()
    official = sha256 == SHA256
    notice = None if official else "digits: this scikit-learn's images differ from those that were known so far"
    identity = {"form": "scikit-learn", "sha256": sha256, "official": official, "notice": notice}
    test = stratified(labels, TEST)
    train = np.setdiff1d(np.arange(len(labels)), test)
    return Source(CLASSES, images[train], labels[train], images[test], labels[test], identity)
