"""Batches: shuffled by key, gathered, augmented and standardized in one pass."""

from collections.abc import Iterator
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

import numpy as np

from fastnet import backend, devices
from fastnet.arrays import Array, accumulator, array_module, floating, move, to_numpy
from fastnet.data.augmentation import Augmentation
from fastnet.data.dataset import Split
from fastnet.data.standardization import Standardization
from fastnet.functions.philox import SHUFFLE
from fastnet.unmade import Unmade


class Batch(NamedTuple):
    """x (B, H, W, C) standardized; labels (B,) and samples (B,) int64. `samples` are sample ids (`Split.indices`)."""

    x: Array | Unmade
    labels: Array
    samples: Array


def permutation(ids: Array, *, seed: int, stream: int, epoch: int = 0) -> Array:
    """Positions 0..N-1 in shuffled order: those of `ids` (N,) sorted by a 64-bit Philox key that each id has.

    So the order of two samples depends on their ids, the seed, the stream and the epoch, and on no other sample. Equal
    keys go by id. It is made where the ids are, and is the same everywhere.
    """
    xp = array_module(ids)
    words = backend.call("philox", ids, seed=seed, stream=stream, epoch=epoch, count=2).astype(np.uint64)
    keys = words[:, 0] << np.uint64(32) | words[:, 1]
    order = xp.argsort(keys)  # a fifth of lexsort's time
    ordered = keys[order]
    if bool((ordered[1:] == ordered[:-1]).any()):
        return move(np.lexsort((to_numpy(ids), to_numpy(keys))), xp)
    return order


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
    for all `Batches` of the split, and batches are made there, with the same bits as everywhere. With `unmade` those on
    a GPU are handed out before that (`fastnet.unmade`). Raises ValueError for a batch size below 1 or above the split's
    size, and where the constants or the augmentation do not fit the images.
    """

    def __init__(self, split: Split, standardization: Standardization, batch_size: int, *, seed: int = 0,
                 shuffle: bool = True, dtype: Any = "float32", augmentation: Augmentation | None = None,
                 device: str = "cpu", unmade: bool = False) -> None:
        if batch_size < 1:
            raise ValueError(f"batch size {batch_size} is not at least 1")
        if batch_size > len(split):
            raise ValueError(f"batch size {batch_size} is larger than the {len(split)} training images")
        self.split, self.batch_size, self.seed, self.shuffle, self.dtype = split, batch_size, seed, shuffle, dtype
        self._library = devices.library(device)
        self._images, self._labels, self._ids = _on(self._library, split)
        constants = standardization.constants(split.images.shape[1:], accumulator(dtype))
        self._mean, self._scale = (move(a, self._library) for a in constants)
        augmentation = augmentation or Augmentation()
        augmentation.check(split.images.shape[1:])
        self._augmentation = {name: value for name, value in vars(augmentation).items() if value}
        self._unmade = unmade and self._library is not np

    def __len__(self) -> int:
        return -(-len(self.split) // self.batch_size)

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """Iterate over the batches of `epoch` from batch number `start` (0..len) on; ValueError for any other start."""
        if not 0 <= start <= len(self):
            raise ValueError(f"batch {start} does not exist: an epoch has {len(self)} batches")
        order = self._library.arange(len(self.split))
        if self.shuffle:
            order = permutation(self._ids, seed=self.seed, stream=SHUFFLE, epoch=epoch)
        whole = Unmade(self._images, order, self._ids[order], move(np.array([epoch]), self._library), self._mean,
                       self._scale, (self.seed, epoch), self._augmentation, floating(self.dtype))
        labels = self._labels[order]
        return (self._batch(whole, labels, slice(k * self.batch_size, (k + 1) * self.batch_size))
                for k in range(start, len(self)))

    def _batch(self, epoch: Unmade, labels: Array, here: slice) -> Batch:
        x = epoch[here]
        return Batch(x if self._unmade else x.made(), labels[here], x.samples)
