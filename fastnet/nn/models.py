"""The table of models: networks as data, each with the settings its report trained it with (REPORT, experiment).

`build(name, **options)` makes one; its options are keyword arguments.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from fastnet.nn.initializers import Initializer
from fastnet.nn.layer import Layer
from fastnet.nn.layers import ACTIVATIONS, BatchNorm, Linear
from fastnet.nn.sequential import Sequential

IMAGE = (32, 32, 3)


@dataclass(frozen=True)
class Settings:
    """How a report trained a model: the defaults of `fastnet train`. Lengths are in epochs."""

    source: str
    epochs: int = 20
    batch_size: int = 100
    split: str = "45000/5000"
    optimizer: str = "sgd"
    momentum: float = 0.0
    schedule: str = "triangular"
    lr: float = 0.1  # the largest rate of a triangular schedule
    lr_min: float = 1e-5
    half_cycle_epochs: float = 5
    decay: float = 0.995  # per epoch, of an exponential schedule
    l2: float = 0.005
    normalization: str = "pixel"


@dataclass(frozen=True)
class Entry:
    """A row of the table."""

    make: Callable[..., list[Layer]]
    options: Mapping[str, Any]
    settings: Settings
    about: str
    input_shape: tuple[int, ...] = field(default=IMAGE)


def mlp(*, hidden: tuple[int, ...], inputs: int = math.prod(IMAGE), classes: int = 10, batch_norm: bool = False,
        norm_after: bool = False, activation: str = "relu", init: str | Initializer = "lecun_normal") -> list[Layer]:
    """A multi-layer perceptron: a Linear layer for each entry of `hidden`, and a last one for the classes.

    Batch normalisation stands before the activation, or after it with `norm_after`; never behind the classifier.
    Raises ValueError for an unknown activation or initialiser.
    """
    if activation not in ACTIVATIONS:
        raise ValueError(f"activation {activation!r} is not known; choose from {', '.join(ACTIVATIONS)}")
    layers: list[Layer] = []
    width = inputs
    for size in hidden:
        layers.append(Linear(width, size, init=init))
        inner: list[Layer] = [ACTIVATIONS[activation]()]
        if batch_norm:
            inner.insert(1 if norm_after else 0, BatchNorm(size))
        layers += inner
        width = size
    return [*layers, Linear(width, classes, init=init)]


_R1 = Settings("R1, E05", epochs=24, split="49000/1000", half_cycle_epochs=4, l2=0.0027)
_R2 = Settings("R2, E06-E09")
_R3 = Settings("R3, E15 and E16", epochs=30, batch_size=450, optimizer="adam", schedule="exponential", lr=2e-3)
_NINE = (50, 30, 20, 20, 10, 10, 10, 10)

MODELS: dict[str, Entry] = {
    "mlp2": Entry(mlp, {"hidden": (50,)}, _R1, "2 layers"),
    "mlp3": Entry(mlp, {"hidden": (50, 50)}, _R2, "3 layers"),
    "mlp3-bn": Entry(mlp, {"hidden": (50, 50), "batch_norm": True}, _R2, "3 layers, batch norm"),
    "mlp9": Entry(mlp, {"hidden": _NINE}, _R2, "9 layers"),
    "mlp9-bn": Entry(mlp, {"hidden": _NINE, "batch_norm": True}, _R2, "9 layers, batch norm"),
    "mlp7": Entry(mlp, {"hidden": (50, 30, 20, 20, 10, 10)}, _R3, "7 layers, narrow"),
    "mlp7-wide": Entry(mlp, {"hidden": (100, 100, 50, 50, 30, 20)}, _R3, "7 layers, wide"),
}


def entry(name: str) -> Entry:
    """The table's row. Raises ValueError, naming the choices, for an unknown model."""
    if name not in MODELS:
        raise ValueError(f"model {name!r} is not known; choose from {', '.join(MODELS)}")
    return MODELS[name]


def build(name: str, *, seed: int = 0, dtype: str = "float32", **options: Any) -> Sequential:
    """The model of that name, its parameters drawn from `seed`. `options` override those of the table.

    Raises ValueError for an unknown name and TypeError for an unknown option.
    """
    row = entry(name)
    merged = {**row.options, **options}
    try:
        layers = row.make(**merged)
    except TypeError as error:
        raise TypeError(f"build: {name} {str(error).partition('() ')[2] or error}") from None
    model = Sequential(layers, seed=seed, dtype=dtype, name=name)
    model.settings = {"options": {k: str(v) if isinstance(v, Initializer) else v for k, v in merged.items()}}
    return model
