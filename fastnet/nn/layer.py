"""What a layer is: `y, back = layer(x, context)`, then `dx = back(dy)`, which adds to the parameters' gradients.

A container is a layer made of others. Its `children` are what names, summaries and taps see of it.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from fastnet.arrays import Array
from fastnet.nn.parameters import Parameter
from fastnet.unmade import Unmade

Backward = Callable[..., Array | None]  # back(dy, needs_dx=True) -> dx, or None when it is not needed
Shape = tuple[int, ...]  # of one sample, without the batch axis


@dataclass(frozen=True)
class Context:
    """What a pass is for: training or inference, the keys of its random numbers, who its samples are.

    `tap(layer, x, y)`, where there is one, is shown every layer's input and output, those of inner layers too.
    """

    training: bool = False
    seed: int = 0
    epoch: Any = 0  # an int, or Deferred in a step that is recorded
    samples: Array | None = None
    update_statistics: bool = True
    tap: Callable[["Layer", Array, Array], None] | None = None


INFERENCE = Context()


class Layer:
    """A layer. Subclasses set `parameters` (own ones), `statistics` (running averages) and define `__call__`."""

    name = ""  # its place in the model, set by the container that holds it
    held = False  # whether a container holds it

    def __init__(self) -> None:
        self.parameters_here: dict[str, Parameter] = {}
        self.statistics_here: dict[str, np.ndarray] = {}

    def __call__(self, x: Array, context: Context) -> tuple[Array, Backward]:
        raise NotImplementedError

    def takes(self, x: Unmade) -> bool:
        """Whether the layer can be given a batch that is not made yet instead of an array."""
        return False

    def children(self) -> list["Layer"]:
        """The layers inside this one, in order."""
        return []

    def walk(self) -> Iterator["Layer"]:
        """This layer and all below it, depth first, in the order of the forward pass."""
        yield self
        for child in self.children():
            yield from child.walk()

    def leaves(self, shape: Shape, needs_dx: bool = False) -> Iterator[tuple["Layer", Shape, bool]]:
        """(layer, shape that goes into it, whether its dx is needed) for all that is not itself made of layers.

        `needs_dx` says whether a parameter lies below this layer. Raises ValueError where a layer cannot take `shape`.
        """
        yield self, shape, needs_dx

    def output_shape(self, shape: Shape) -> Shape:
        """The shape of one sample after this layer. Raises ValueError where the layer cannot take `shape`."""
        return shape

    def runs_as(self, shape: Shape, batch_size: int, dtype: np.dtype) -> str:
        """How the forward pass is computed on so many samples of `shape`, where there is more than one way; else ''."""
        return ""

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


class Container(Layer):
    """A layer made of others: it gives them their names, and shows each to the tap.

    Subclasses define `children`, `leaves`, `output_shape` and the passes. What a child is called stands in
    parameter names, behind the container's own name and a dot.
    """

    def leaves(self, shape: Shape, needs_dx: bool = False) -> Iterator[tuple[Layer, Shape, bool]]:
        raise NotImplementedError

    def macs(self, shape: Shape) -> int:
        return sum(layer.macs(inner) for layer, inner, _ in self.leaves(shape))

    def fuse(self) -> list[Layer]:
        """Run neighbouring layers as one where there is a pattern (`fastnet.nn.fuse`); return what is run from now on.

        The children stay as they are, and those that are containers are asked by themselves.
        """
        return []

    def adopt(self, children: Iterable[Layer]) -> None:
        """Take in the children, which have their names. Raises ValueError for a name or a layer that is there twice."""
        children = list(children)
        inside = [layer for child in children for layer in child.walk()]
        if len({id(layer) for layer in inside}) < len(inside):
            raise ValueError(f"{self.kind}: the same layer object stands in it twice; make one for each place")
        names = [layer.name for layer in children]
        if repeated := {n for n in names if names.count(n) > 1}:
            raise ValueError(f"{self.kind}: layer names must differ, but {', '.join(sorted(repeated))} is repeated")
        if dotted := [n for n in names if "." in n]:
            raise ValueError(f"{self.kind}: layer name {dotted[0]!r} has a dot, which parts the names of nested layers")
        for layer in children:
            layer.held = True

    def __repr__(self) -> str:
        return f"{self.kind}({', '.join(map(repr, self.children()))})"


class Chain:
    """Layers run one after the other: each takes what the one before it gives."""

    def __init__(self, layers: Iterable[Layer]) -> None:
        self.layers = list(layers)
        self._needed = [False]  # whether layer i must hand dx to a parameter below it
        for layer in self.layers[:-1]:
            self._needed.append(self._needed[-1] or has_parameters(layer))

    def __call__(self, x: Array, context: Context) -> tuple[Array, Backward]:
        backs = []
        for layer in self.layers:
            x, back = run(layer, x, context)
            backs.append(back)

        def backward(dy: Array, needs_dx: bool = True) -> Array | None:
            if len(backs) < len(self.layers):
                raise gone_back("Sequential")
            for below in reversed(self._needed[: len(backs)]):
                # Taken off the list, a layer's cache is free as soon as it is used.
                dy = backs.pop()(dy, needs_dx or below)
                if not (needs_dx or below):
                    return None
            return dy

        return x, backward


def gone_back(kind: str) -> RuntimeError:
    """The error for a container's second way back of the same pass."""
    return RuntimeError(f"{kind}: this pass went back already, which frees what it had kept; go forward once more")


def run(layer: Layer, x: Array, context: Context) -> tuple[Array, Backward]:
    """A container's call of its child: the layer's own, and shown to the tap."""
    y, back = layer(x, context)
    if context.tap is not None:
        context.tap(layer, x, y)
    return y, back


class Misfit(ValueError):
    """A layer that cannot take the shape it is given: its dotted name and the reason."""

    def __init__(self, where: str, reason: str) -> None:
        super().__init__(f"{where}: {reason}")
        self.where, self.reason = where, reason


def shape_after(layer: Layer, shape: Shape) -> Shape:
    """A container's question to its child. Raises `Misfit`, which says where inside the container it is."""
    try:
        return layer.output_shape(shape)
    except Misfit as error:
        raise Misfit(f"{layer.name}.{error.where}", error.reason) from None
    except ValueError as error:
        raise Misfit(layer.name, str(error)) from None


def has_parameters(layer: Layer) -> bool:
    """Whether the layer or one inside it has parameters."""
    return any(inner.parameters_here for inner in layer.walk())


def require_maps(kind: str, shape: Shape, channels: int | None = None) -> None:
    """Raise ValueError unless `shape` is (H, W, C), of at least one pixel and with so many channels."""
    if len(shape) != 3 or min(shape) < 1:
        raise ValueError(f"{kind}: the input is {shape}, but feature maps (H, W, C) are needed")
    if channels is not None and shape[2] != channels:
        guess = "; is it (C, H, W)? Channels come last here" if shape[0] == channels else ""
        raise ValueError(f"{kind}: the input is {shape}, {shape[2]} channels (the last axis), but the layer takes "
                         f"{channels}{guess}")
