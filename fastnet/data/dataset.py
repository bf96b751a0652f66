"""What a data set is here: three splits of uint8 images, and an identity that can be kept with a run."""

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np


@dataclass(frozen=True, eq=False)
class Split:
    """Images of one split and where they came from.

    images   uint8 (N, H, W, C), 0..255
    labels   int64 (N,)
    indices  int64 (N,), each image's position in the source's training (or test) files: its sample id

    Raises TypeError for anything but NumPy arrays of these types, ValueError for other shapes or lengths that differ.
    """

    images: np.ndarray
    labels: np.ndarray
    indices: np.ndarray

    def __post_init__(self) -> None:
        for name, dtype, rank, shape in (("images", np.uint8, 4, "(N, H, W, C)"), ("labels", np.int64, 1, "(N,)"),
                                         ("indices", np.int64, 1, "(N,)")):
            x = getattr(self, name)
            if not isinstance(x, np.ndarray):
                raise TypeError(f"Split: {name} must be a NumPy array, got {type(x).__name__}")
            if x.dtype != dtype:
                raise ValueError(f"Split: {name} are {x.dtype}, but {np.dtype(dtype)} is needed")
            if x.ndim != rank:
                raise ValueError(f"Split: {name} have shape {x.shape}, but {shape} is needed")
        if not len(self.images) == len(self.labels) == len(self.indices):
            raise ValueError(f"Split: {len(self.images)} images, {len(self.labels)} labels and {len(self.indices)} "
                             f"indices, but each image needs one of each")

    def __len__(self) -> int:
        return len(self.images)


@dataclass(frozen=True, eq=False)
class Dataset:
    """A data set, split. `identity` is plain JSON: it says exactly which images these are.

    Its keys: name, form (how the files lay there), sha256 (of the contents), official (True, False, or None where it
    cannot be told), notice (a line to print, or None), and the split, order and seed that divided it.
    """

    name: str
    classes: tuple[str, ...]
    train: Split
    validation: Split
    test: Split
    identity: dict[str, Any]


class Source(NamedTuple):
    """A data set as its files hold it, before it is split. Images are uint8 (N, H, W, C), labels int64 (N,)."""

    classes: tuple[str, ...]
    train_images: np.ndarray
    train_labels: np.ndarray
    test_images: np.ndarray
    test_labels: np.ndarray
    identity: dict[str, Any]
