"""Divide a data set into training, validation and test images."""

import re

import numpy as np

from fastnet.data.batches import permutation
from fastnet.data.dataset import Dataset, Source, Split
from fastnet.functions.philox import SPLIT


def sizes(split: str) -> tuple[int, int]:
    """The numbers in 'A/B', training and validation images. Raises ValueError for anything else."""
    found = re.fullmatch(r"(\d{1,9})/(\d{1,9})", split, re.ASCII)
    if not found or int(found[1]) == 0:
        raise ValueError(f"load: split {split!r} is not of the form 'A/B': A training images, at least 1, "
                         f"and B validation images, such as '45000/5000'")
    return int(found[1]), int(found[2])


def nine_to_one(images: int) -> str:
    """'A/B' for so many images: a tenth of them, rounded, for validation."""
    return f"{images - round(images / 10)}/{round(images / 10)}"


def divide(name: str, source: Source, split: str, order: str, seed: int) -> Dataset:
    """Take 'A/B' images of the training files as `load` says. Raises ValueError where there are not so many."""
    there = len(source.train_labels)
    first, both = sizes(split)[0], sum(sizes(split))
    if both > there:
        raise ValueError(f"load: split {split!r} needs {both} images, but {name} has {there} for training")
    order_of_files = np.arange(there)
    drawn = order_of_files if order == "file" else permutation(order_of_files, seed=seed, stream=SPLIT)
    test = Split(source.test_images, source.test_labels, np.arange(len(source.test_labels)))
    train, validation = (_part(source, np.sort(at)) for at in (drawn[:first], drawn[first:both]))
    how = {"split": split, "order": order, "seed": seed}
    return Dataset(name, source.classes, train, validation, test, {"name": name, **source.identity, **how})


def _part(source: Source, at: np.ndarray) -> Split:
    return Split(source.train_images[at], source.train_labels[at], at)


def stratified(labels: np.ndarray, count: int) -> np.ndarray:
    """`count` (at most N) positions, rising, drawn at random from `labels` (N,): of every class the same part.

    They stand at even distances in the list of all positions by class and, within a class, by Philox key. So a class
    has its share to within one image. Seed 0 always: it says what is in a test set, which no run's seed may change.
    """
    shuffled = permutation(np.arange(len(labels)), seed=0, stream=SPLIT)
    by_class = shuffled[np.argsort(labels[shuffled], kind="stable")]
    return np.sort(by_class[(2 * np.arange(count) + 1) * len(labels) // (2 * count)])
