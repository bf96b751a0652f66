"""The loss around a model along random directions that have the scale of its filters.

    f(a)    = loss(w + a d)
    f(a, b) = loss(w + a d + b e)

d and e are drawn normal; then each filter of a weight array (all that makes one output: the last axis) is scaled to the
norm of the model's own filter, so that surfaces of different models can be compared. Biases, gamma and beta, arrays of
one axis, do not move, nor do running statistics: the loss is that of inference.

Source: Li, Xu, Taylor, Studer & Goldstein, "Visualizing the loss landscape of neural nets", 2018, section 4. With
`move_vectors` an array of one axis moves along itself, as the authors' program does without its `biasbn`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fastnet import backend
from fastnet.arrays import Array, array_module, assign, to_numpy
from fastnet.data import Split, Standardization
from fastnet.functions import philox
from fastnet.lab.inputs import subset
from fastnet.nn.losses import check_loss
from fastnet.nn.sequential import Sequential

LINE = np.linspace(-1, 1, 51)
STREAM = 1 << 15  # of Philox, apart from those in fastnet.functions.philox


@dataclass(frozen=True)
class Surface:
    """Mean loss and accuracy (a fraction), float64 (A,) or (A, B), at the offsets a (A,) and b (B,), or b None.

    A loss may be infinite or NaN where numbers overflow.
    """

    a: np.ndarray
    b: np.ndarray | None
    losses: np.ndarray
    accuracies: np.ndarray
    images: int
    seed: int
    move_vectors: bool


def direction(model: Sequential, *, seed: int = 0, number: int = 0,
              move_vectors: bool = False) -> dict[str, np.ndarray]:
    """{name: float64 array} of direction `number`, normalised filter by filter; zeros for arrays that do not move."""
    found = {}
    for index, (name, value) in enumerate(model.parameters().items()):
        w = to_numpy(value).astype(np.float64)
        if w.ndim < 2:
            found[name] = w.copy() if move_vectors else np.zeros_like(w)
            continue
        drawn = philox.normal(w.size, seed=seed, stream=STREAM + number, sample=index).reshape(w.shape)
        axes = tuple(range(w.ndim - 1))
        found[name] = drawn * np.sqrt((w * w).sum(axis=axes) / (drawn * drawn).sum(axis=axes))
    return found


def loss_surface(model: Sequential, data: Split | tuple[Array, Array],
                 standardization: Standardization | None = None, *,
                 a: Sequence[float] | np.ndarray = LINE, b: Sequence[float] | np.ndarray | None = None,
                 images: int | None = None, seed: int = 0, move_vectors: bool = False,
                 loss: str = "softmax_cross_entropy", loss_options: Mapping[str, Any] | None = None) -> Surface:
    """The loss at w + a d for every a, or at w + a d + b e for every pair where there are `b`.

    `data` is a split, of which `images` are drawn by `seed` (None: all), or (x, labels) already standardised. Every
    point is one evaluation of these images. `seed` draws the directions too. The model is not changed. Raises
    ValueError or TypeError for data that do not fit, offsets that are none, or an unknown loss.
    """
    check_loss(loss, loss_options)
    offsets = [np.asarray(values, np.float64) for values in (a, b) if values is not None]
    if any(values.ndim != 1 or not values.size or not np.isfinite(values).all() for values in offsets):
        raise ValueError("loss_surface: the offsets a and b must each be some finite numbers")
    x, labels = subset(model, data, standardization, images, seed)
    twin = model.copy()
    vector = twin.store.vector
    centre, ways = vector.astype(np.float64), []
    for number in range(len(offsets)):
        flat = array_module(vector).zeros_like(centre)
        views = twin.store.views(flat)
        for name, values in direction(model, seed=seed, number=number, move_vectors=move_vectors).items():
            assign(views[name], values)
        ways.append(flat)
    losses, accuracies = (np.empty([len(values) for values in offsets]) for _ in range(2))
    for at in np.ndindex(*losses.shape):
        vector[...] = centre + sum(values[i] * way for values, i, way in zip(offsets, at, ways, strict=True))
        with np.errstate(all="ignore"):  # far from the model numbers may overflow, which is the finding
            logits = twin.predict(x)
            value, _ = backend.run(loss, logits, labels, **(loss_options or {}))
        losses[at] = float(value)
        accuracies[at] = float((logits.argmax(axis=1) == labels).mean())
    return Surface(offsets[0], offsets[1] if b is not None else None, losses, accuracies, len(x), seed, move_vectors)
