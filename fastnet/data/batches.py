"""Batches: shuffled by key, gathered, augmented and standardized in one pass."""

from collections.abc import Iterator
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

import numpy as np

from fastnet import backend, devices
from fastnet.arrays import Array, accumulator, move
from fastnet.data.augmentation import Augmentation
from fastnet.data.dataset import Split
from fastnet.data.standardization import Standardization
from fastnet.functions.philox import SHUFFLE


class Batch(NamedTuple):
    """x (B, H, W, C) standardized; labels (B,) and samples (B,) int64. `samples` are sample ids (`Split.indices`)."""

    x: Array
    labels: Array
    samples: Array


def permutation(ids: np.ndarray, *, seed: int, stream: int, epoch: int = 0) -> np.ndarray:
    """Positions 0..N-1 in shuffled order: those of `ids` (N,) sorted by a 64-bit Philox key that each id has.

    So the order of two samples depends on their ids, the seed, the stream and the epoch, and on no other sample. Equal
    keys go by id.
    """
    words = backend.call("philox", ids, seed=seed, stream=stream, epoch=epoch, count=2).astype(np.uint64)
    keys = words[:, 0] << np.uint64(32) | words[:, 1]
    order = np.argsort(keys)  # a fifth of lexsort's time
    ordered = keys[order]
    return np.lexsort((ids, keys)) if (ordered[1:] == ordered[:-1]).any() else order


_copies: WeakKeyDictionary[Split, dict[str, tuple[Array, ...]]] = WeakKeyDictionary()


def _on(library: Any, split: Split) -> tuple[Array, ...]:
    """Images, labels and indices as arrays of `library`, copied once for as long as the split lives."""
    arrays = split.images, split.labels, split.indices
    if library is np:
        return arrays
    there = _copies.setdefault(split, {})
    if library.__name__ not in there:
        there[library.__name__] = tuple(move(a, library) for a in arrays)
    return there[library.__name__]


class Batches:
    """The batches of a split, epoch by epoch.

    len(batches)           batches an epoch, the smaller last one included
    batches.epoch(e, k)    an iterator over the batches of epoch e from number k on

    What an epoch holds is a function of (seed, epoch) and of the split, so a run that stopped inside an epoch goes on
    with the same bits. Every batch is in new arrays, which the caller may keep. Without `shuffle` the split's own order
    is kept. `augmentation` is for training: evaluation leaves it out. The images are copied to `device`, once
    for all `Batches` of the split, and batches are made there, with the same bits as everywhere. Raises ValueError for
    a batch size below 1 or above the split's size, and where the constants or the augmentation do not fit the images.
    """

    def __init__(self, split: Split, standardization: Standardization, batch_size: int, *, seed: int = 0,
                 shuffle: bool = True, dtype: Any = "float32", augmentation: Augmentation | None = None,
                 device: str = "cpu") -> None:
        if batch_size < 1:
            raise ValueError(f"batch size {batch_size} is not at least 1")
        if batch_size > len(split):
            raise ValueError(f"batch size {batch_size} is larger than the {len(split)} training images")
        self.split, self.batch_size, self.seed, self.shuffle, self.dtype = split, batch_size, seed, shuffle, dtype
        self._library = devices.library(device)
        self._images, self._labels, self._ids = _on(self._library, split)
        constants = standardization.constants(split.images.shape[1:], accumulator(dtype))
        self._mean, self._scale = (move(a, self._library) for a in constants)
        self._augmentation = None if augmentation == Augmentation() else augmentation
        if self._augmentation:
            self._augmentation.check(split.images.shape[1:])

    def __len__(self) -> int:
        return -(-len(self.split) // self.batch_size)

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """Iterate over the batches of `epoch` from batch number `start` (0..len) on; ValueError for any other start."""
        if not 0 <= start <= len(self):
            raise ValueError(f"batch {start} does not exist: an epoch has {len(self)} batches")
        order = np.arange(len(self.split))
        if self.shuffle:
            order = permutation(self.split.indices, seed=self.seed, stream=SHUFFLE, epoch=epoch)
        order = move(order, self._library)
        return (self._batch(epoch, order[k * self.batch_size : (k + 1) * self.batch_size])
                for k in range(start, len(self)))

    def _batch(self, epoch: int, at: Array) -> Batch:
        images, samples = self._images, self._ids[at]
        if self._augmentation:
            x = backend.call("augment_batch", images, at, samples, self._mean, self._scale, key=(self.seed, epoch),
                             dtype=self.dtype, **vars(self._augmentation))
        else:
            x = backend.call("standardize_batch", images, at, self._mean, self._scale, dtype=self.dtype)
        return Batch(x, self._labels[at], samples)
