"""What the laboratory's functions are given: a split with its standardization, or arrays that are ready."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from fastnet.arrays import Array
from fastnet.data import Batches, Split, Standardization, permutation
from fastnet.functions.philox import SHUFFLE
from fastnet.nn.sequential import Sequential


def passes(model: Sequential, data: Split | Array, standardization: Standardization | None, batch_size: int,
           seed: int = 0) -> tuple[Callable[[], Iterator[Array]], int]:
    """A function that begins a pass over the images of `data`, always the same batches x; and how many images it has.

    `data` is a split, whose images are shuffled by `seed` (a folder's lie class by class) and standardised, or a
    floating array (N, H, W, C) or (N, D), already standardised, whose order is kept. Raises TypeError or ValueError
    where the standardization is missing or too much, where there are no images, for a batch size below 1, and for
    images that the model cannot take.
    """
    if batch_size < 1:
        raise ValueError(f"batch size {batch_size} is not at least 1")
    _require(data, standardization)
    if isinstance(data, Split):
        found = Batches(data, standardization, min(batch_size, len(data)), seed=seed,  # type: ignore[arg-type]
                        dtype=model.dtype, device=model.device)
        model.output_shape(data.images.shape[1:])
        return lambda: (batch.x for batch in found.epoch(0)), len(data)
    x = model.prepare(data)
    model.require_fit(x)
    return lambda: (x[i : i + batch_size] for i in range(0, len(x), batch_size)), len(x)


def subset(model: Sequential, data: Split | tuple[Array, Array], standardization: Standardization | None,
           images: int | None, seed: int) -> tuple[Array, np.ndarray | Array]:
    """(x, labels) of `images` images of a split (None: all), drawn by `seed`; or the pair (x, labels) that is given.

    Raises TypeError or ValueError as `passes` does, and for more images than there are.
    """
    _require(data if isinstance(data, Split) else data[0], standardization)
    if isinstance(data, Split):
        count = len(data) if images is None else images
        if not 1 <= count <= len(data):
            raise ValueError(f"{count} images are wanted, but there are {len(data)}; at least 1 is needed")
        at = np.sort(permutation(data.indices, seed=seed, stream=SHUFFLE)[:count])
        x: Any = standardization.apply(data.images[at], model.dtype)  # type: ignore[union-attr]
        labels: Any = data.labels[at]
    else:
        if images is not None:
            raise ValueError("the number of images is that of the array")
        x, labels = data
    x, labels = model.prepare(x), model.accept("labels", labels)
    model.require_fit(x)
    if len(labels) != len(x):
        raise ValueError(f"there are {len(x)} images but {len(labels)} labels")
    return x, labels


def _require(data: Any, standardization: Standardization | None) -> None:
    if isinstance(data, Split) and standardization is None:
        raise TypeError("a split holds uint8 images: say how they are standardised (standardization="
                        "run.standardization)")
    if not isinstance(data, Split) and standardization is not None:
        raise TypeError("an array is taken as it is; standardization is for a split")
    if len(data) == 0:
        raise ValueError("there are no images")
