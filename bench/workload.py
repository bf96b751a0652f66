"""What is timed as a whole."""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

import fastnet as fn
from fastnet.nn.layer import Shape
from fastnet.nn.models import entry, fitting, mlp
from fastnet.nn.sequential import Sequential
from fastnet.nn.summary import summarize

KINDS = ("step", "inference", "epoch")


class Workload(NamedTuple):
    """A training step, inference or an epoch of a model; `shape` is that of other images than the model's own."""

    name: str
    batch_size: int
    kind: str = "step"
    shape: Shape | None = None
    options: Mapping[str, Any] = {}
    images: int = 10_240  # of an epoch

    @property
    def label(self) -> str:
        """Name, kind, and whatever is not the model's own."""
        size = [] if self.shape is None else ["x".join(map(str, self.shape))]
        return ", ".join([self.name + (f" {self.kind}" if self.kind != "step" else ""),
                          *(f"{key} {value}" for key, value in self.options.items()), *size])

    @property
    def image(self) -> Shape:
        return self.shape or entry(self.name).input_shape

    @property
    def flat(self) -> bool:
        """Whether the model is a perceptron, which takes an image as a row of features."""
        return entry(self.name).make is mlp

    @property
    def input_shape(self) -> Shape:
        """Of a sample as the model takes it."""
        return (math.prod(self.image),) if self.flat else self.image

    @property
    def operations(self) -> int:
        """Multiplications and additions of products with weights, as the plain sums need them."""
        samples = self.images if self.kind == "epoch" else self.batch_size
        return 2 * samples * sum(row.macs_forward + (0 if self.kind == "inference" else row.macs_backward)
                                 for row in summarize(self.build(), self.image))

    def build(self, dtype: str = "float32", device: str = "cpu") -> Sequential:
        return fn.build(self.name, dtype=dtype, device=device, **{**fitting(self.name, self.image), **self.options})

    def batch(self, size: int | None = None, dtype: Any = np.float32) -> tuple[np.ndarray, np.ndarray]:
        """Random images (N, H, W, C) or (N, D), as the model takes them, and labels."""
        rng, size = np.random.default_rng(0), size or self.batch_size
        return rng.standard_normal((size, *self.input_shape)).astype(dtype), rng.integers(0, 10, size)
