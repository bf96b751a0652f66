"""Small data sets and models for the tests of training and of the command line."""

import numpy as np

import fastnet as fn
from fastnet.data import Dataset, Split

CLASSES = 10


def split(n, seed=0, shape=(8, 8, 3), classes=CLASSES):
    """Noise over a picture that each class has, so that a loss can fall."""
    pictures = np.random.default_rng(99).integers(0, 100, (classes, *shape))
    labels = np.arange(n, dtype=np.int64) % classes
    images = pictures[labels] + np.random.default_rng(seed).integers(0, 150, (n, *shape))
    return Split(images.astype(np.uint8), labels, np.arange(n, dtype=np.int64))


def dataset(train=60, validation=20, test=30, shape=(8, 8, 3)):
    """Random images; `identity` is JSON, as a run's record needs it."""
    return Dataset("tiny", tuple("abcdefghij"), split(train, 1, shape), split(validation, 2, shape),
                   split(test, 3, shape), {"name": "tiny", "sha256": "0", "split": f"{train}/{validation}"})


def model(seed=3, dtype="float32"):
    """All that a run has to bring back: parameters, running statistics and keyed masks."""
    return fn.Sequential([fn.Linear(192, 16), fn.BatchNorm(16), fn.ReLU(), fn.Dropout(0.3), fn.Linear(16, CLASSES)],
                         seed=seed, dtype=dtype)


def bits(arrays):
    """{name: bytes}, to compare arrays bit by bit."""
    return {name: a.tobytes() for name, a in arrays.items()}
