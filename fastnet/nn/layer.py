"""What a layer is: `y, back = layer(x, context)`, then `dx = back(dy)`, which adds to the parameters' gradients."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from fastnet.arrays import Array
from fastnet.nn.parameters import Parameter

Backward = Callable[..., Array | None]  # back(dy, needs_dx=True) -> dx, or None when it is not needed
Shape = tuple[int, ...]  # of one sample, without the batch axis


@dataclass(frozen=True)
class Context:
    """What a pass is for: training or inference, the keys of its random numbers, who its samples are.

    `tap(layer, x, y)`, where there is one, is shown every layer's input and output.
    """

    training: bool = False
    seed: int = 0
    epoch: int = 0
    samples: Array | None = None
    update_statistics: bool = True
    tap: Callable[["Layer", Array, Array], None] | None = None


INFERENCE = Context()


class Layer:
    """A layer. Subclasses set `parameters` (own ones), `statistics` (running averages) and define `__call__`."""

    name = ""  # its place in the model, set by the container that holds it

    def __init__(self) -> None:
        self.parameters_here: dict[str, Parameter] = {}
        self.statistics_here: dict[str, np.ndarray] = {}

    def __call__(self, x: Array, context: Context) -> tuple[Array, Backward]:
        raise NotImplementedError

    def children(self) -> list["Layer"]:
        """The layers inside this one, in order."""
        return []

    def walk(self) -> Iterator["Layer"]:
        """This layer and all below it, depth first, in the order of the forward pass."""
        yield self
        for child in self.children():
            yield from child.walk()

    def output_shape(self, shape: Shape) -> Shape:
        """The shape of one sample after this layer. Raises ValueError where the layer cannot take `shape`."""
        return shape

    def macs(self, shape: Shape) -> int:
        """Multiply-accumulates of the forward pass for one sample (products with weights only)."""
        return 0

    def options(self) -> dict[str, Any]:
        """The settings shown in summaries and stored with a run."""
        return {}

    @property
    def kind(self) -> str:
        return type(self).__name__

    def __repr__(self) -> str:
        return f"{self.kind}({', '.join(f'{k}={v}' for k, v in self.options().items())})"
