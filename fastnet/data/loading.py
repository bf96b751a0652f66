"""`load`: a data set by name, divided into training, validation and test images."""

import re
from pathlib import Path

import numpy as np

from fastnet.data import cifar10, shapes10
from fastnet.data.batches import permutation
from fastnet.data.dataset import Dataset, Source, Split
from fastnet.functions.philox import SPLIT

DEFAULT_SPLITS = {"cifar10": "45000/5000", "shapes10": "9000/1000"}


def load(name: str, data_dir: str | Path | None = None, *, split: str | None = None, order: str = "random",
         seed: int = 0, download: bool = True) -> Dataset:
    """Load data set `name` (`cifar10` or `shapes10`) and divide its training files.

    data_dir  where CIFAR-10 lies (see `fastnet.data.cifar10.locate`); `shapes10` is generated and needs no files
    split     'A/B': A training and B validation images, together at most all there are; B may be 0
    order     'random': A, then B images drawn by `seed`; 'file': the first A, then the next B. Either way each split
              keeps the order of the files, so a seed says which images are in it and nothing else
    download  whether CIFAR-10 may be fetched where no folder was named and none is in the cache

    The test images are always all of the test files. Raises ValueError for a name, split or order that does not exist
    and for damaged files, OSError (FileNotFoundError, ConnectionError) for files that cannot be had.
    """
    if name not in DEFAULT_SPLITS:
        raise ValueError(f"load: there is no data set {name!r}; choose from {', '.join(DEFAULT_SPLITS)}")
    if order not in ("random", "file"):
        raise ValueError(f"load: order {order!r} does not exist; choose from random, file")
    split = DEFAULT_SPLITS[name] if split is None else split
    sizes = _sizes(split)
    source = shapes10.read() if name == "shapes10" else cifar10.read(data_dir, download=download)
    return _divide(name, source, sizes, order, seed, {"split": split, "order": order, "seed": seed})


def _sizes(split: str) -> tuple[int, int]:
    found = re.fullmatch(r"(\d{1,9})/(\d{1,9})", split, re.ASCII)
    if not found or int(found[1]) == 0:
        raise ValueError(f"load: split {split!r} is not of the form 'A/B': A training images, at least 1, "
                         f"and B validation images, such as '45000/5000'")
    return int(found[1]), int(found[2])


def _divide(name: str, source: Source, sizes: tuple[int, int], order: str, seed: int, how: dict) -> Dataset:
    there = len(source.train_labels)
    first, both = sizes[0], sum(sizes)
    if both > there:
        raise ValueError(f"load: split {how['split']!r} needs {both} images, but {name} has {there} for training")
    order_of_files = np.arange(there)
    drawn = order_of_files if order == "file" else permutation(order_of_files, seed=seed, stream=SPLIT)
    test = Split(source.test_images, source.test_labels, np.arange(len(source.test_labels)))
    train, validation = (_part(source, np.sort(at)) for at in (drawn[:first], drawn[first:both]))
    return Dataset(name, source.classes, train, validation, test, {"name": name, **source.identity, **how})


def _part(source: Source, at: np.ndarray) -> Split:
    return Split(source.train_images[at], source.train_labels[at], at)
