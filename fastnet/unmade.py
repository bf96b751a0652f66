"""Batches of images that are not made yet.

On a GPU the first layer of a network can read the bytes of the data set itself (`fastnet.ops.augment_conv2d`). So
`fastnet.data.Batches` may hand out what such a batch is to be made of; whoever cannot take it makes it.
"""

from collections.abc import Hashable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from fastnet import backend
from fastnet.arrays import Array, array_module


@dataclass(frozen=True, eq=False)
class Unmade:
    """What `augment_batch` makes a batch of: `made()` is that batch, in the type `dtype`.

    images (M, H, W, C) uint8; indices and samples (N,) int64; mean and scale (H, W, C); epoch (1,) int64, the second
    number of `key` = (seed, epoch); `augmentation` has those options of `augment_batch` that change anything.

    A part x[start:stop] is one too, and x[...] = other takes over the samples and the epoch of another one of its form.
    """

    images: Array
    indices: Array
    samples: Array
    epoch: Array
    mean: Array
    scale: Array
    key: tuple[int, int]
    augmentation: Mapping[str, Any]
    dtype: np.dtype

    @property
    def shape(self) -> tuple[int, ...]:
        return (len(self.indices), *self.images.shape[1:])

    @property
    def ndim(self) -> int:
        return self.images.ndim

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, part: slice) -> "Unmade":
        return replace(self, indices=self.indices[part], samples=self.samples[part])

    def __setitem__(self, everything: Any, other: "Unmade") -> None:
        for name in ("indices", "samples", "epoch"):
            getattr(self, name)[everything] = getattr(other, name)

    def made(self) -> Array:
        """The batch (N, H, W, C)."""
        if self.augmentation:
            return backend.call("augment_batch", self.images, self.indices, self.samples, self.mean, self.scale,
                                key=self.key, dtype=self.dtype, **self.augmentation)
        return backend.call("standardize_batch", self.images, self.indices, self.mean, self.scale, dtype=self.dtype)

    def call(self) -> tuple[tuple[Array, ...], dict[str, Any]]:
        """The first arrays of `augment_conv2d`, and its first options."""
        arrays = self.images, self.indices, self.samples, self.epoch, self.mean, self.scale
        return arrays, {"seed": self.key[0], "augmentation": self.augmentation, "dtype": self.dtype}


def made(x: Array | Unmade) -> Array:
    """x itself, or the batch that it is to be."""
    return x.made() if isinstance(x, Unmade) else x


def form(x: Array | Unmade) -> Hashable:
    """What a recording of work on x has in it: shape and type; of an `Unmade` also what it is made of, and how."""
    if not isinstance(x, Unmade):
        return x.shape, x.dtype
    return (x.shape, x.dtype, id(x.images), id(x.mean), id(x.scale), x.key[0], tuple(sorted(x.augmentation.items())))


def room(x: Array | Unmade) -> Any:
    """Uninitialised memory for others of the form of x, to be filled by `room(x)[...] = x`."""
    if not isinstance(x, Unmade):
        return array_module(x).empty(x.shape, x.dtype)
    return replace(x, indices=room(x.indices), samples=room(x.samples), epoch=room(x.epoch))
